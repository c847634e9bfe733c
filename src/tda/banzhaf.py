"""Data Banzhaf: the marginal contribution of a sample, averaged over all subsets alike.

    τ(z_j, z) = mean over S ⊆ D ∖ {z_j} of L(z; θ_S) − L(z; θ_{S ∪ {z_j}})

(Wang and Jia 2023, "Data Banzhaf"). Whether z_j is in says nothing of who else is, where every
sample is in or out by itself, so that the mean over drawn subsets without z_j minus that over those
with it estimates this from all of them at once (their maximum-sample-reuse estimator).
They are the subsets `independent` of a seed; with another probability than 1/2 it is the weighted
value (Li and Yu 2023). Positive: z_j helps z.

`standard_error`, beside the scores, is that of the two means, (C, n_scored, n_test).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from src.subsets.means import scores_of_means
from src.tda.estimator import Draws, Scores


@dataclass(frozen=True)
class Banzhaf:
    """The estimator `banzhaf`.

    Attributes:
        chunk_size: Models on subsets trained at once, in a notebook; None: what fits.
    """

    methods: ClassVar[tuple[str, ...]] = ("banzhaf",)
    retrains: ClassVar[bool] = True

    chunk_size: int | None = None

    def settings(self) -> dict:
        """Return every option that changes the numbers: those of the subsets do."""
        return {}

    def __call__(self, draws: Draws) -> dict[str, Scores]:
        """Return the scores of all pairs at all checkpoints, by method."""
        return {"banzhaf": scores_of_means(draws)}
