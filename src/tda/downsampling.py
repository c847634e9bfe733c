"""Downsampling: the influence of a sample over random subsets of a fixed size.

    τ(z_j, z) = mean of L(z; θ_S) over subsets S without z_j − mean over those with z_j

over the subsets `half` of a seed: by default 200 of half of the training set (Feldman and Zhang
2020, "What neural networks memorize and why", with the loss in the place of the chance of a right
answer). All models of a draw share its initialisation and batches, so that the mean is
over subsets alone. Positive: z_j helps z.

`standard_error`, beside the scores, is that of the two means, (C, n_scored, n_test).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from src.subsets.means import scores_of_means
from src.tda.estimator import Draws, Scores


@dataclass(frozen=True)
class Downsampling:
    """The estimator `downsampling`.

    Attributes:
        chunk_size: Models on subsets trained at once, in a notebook; None: what fits.
    """

    methods: ClassVar[tuple[str, ...]] = ("downsampling",)
    retrains: ClassVar[bool] = True

    chunk_size: int | None = None

    def settings(self) -> dict:
        """Return every option that changes the numbers: those of the subsets do."""
        return {}

    def __call__(self, draws: Draws) -> dict[str, Scores]:
        """Return the scores of all pairs at all checkpoints, by method."""
        return {"downsampling": scores_of_means(draws)}
