"""Datamodels: the loss of a test sample as a linear function of who is in the training set.

    L(z; θ_S) ≈ b_z + Σ_{z_i in S} w_zi,        τ(z_j, z) = −w_zj

w by ridge regression over the subsets `half` of a seed, the penalty of each test sample by
leave-one-out cross-validation over subsets (Ilyas et al. 2022, "Datamodels", there by lasso and of
margins). A weight is what z_j adds to the loss, so that its negative is positive where z_j helps z,
as of leave-one-out.

Beside the scores: `penalty`, the chosen one, and `explained`, the share of the variance of the
losses of left-out subsets that is predicted, both (C, n_test).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from src.tda.estimator import Draws, Scores

PENALTIES = 10.0 ** np.arange(-2, 4.5, 0.5)  # from nearly least squares to nearly nothing


@dataclass(frozen=True)
class Datamodel:
    """The estimator `datamodel`.

    Attributes:
        chunk_size: Models on subsets trained at once, in a notebook; None: what fits.
    """

    methods: ClassVar[tuple[str, ...]] = ("datamodel",)
    retrains: ClassVar[bool] = True

    chunk_size: int | None = None

    def settings(self) -> dict:
        """Return every option that changes the numbers: those of the subsets do."""
        return {}

    def __call__(self, draws: Draws) -> dict[str, Scores]:
        """Return the scores of all pairs at all checkpoints, by method."""
        content = draws.subsets
        fits = [linear_fit(content["masks"], losses) for losses in content["losses"]]
        weights, penalties, explained = (torch.stack(parts) for parts in zip(*fits, strict=True))
        message = (
            f"of the variance of left-out subsets' losses {explained.median():.1%} is predicted, "
            f"penalty {penalties.median():.3g} (medians over test samples)"
        )
        extra = {"penalty": penalties.float(), "explained": explained.float()}
        return {"datamodel": Scores(-weights[:, draws.setup.scored], extra, message)}


def linear_fit(
    masks: Tensor, losses: Tensor, penalties: np.ndarray = PENALTIES
) -> tuple[Tensor, Tensor, Tensor]:
    """Fit losses as linear functions of masks by ridge regression with an intercept.

    Args:
        masks: Which samples are in each subset, bool (K, n_train).
        losses: Of the models trained on them, (K, n_test).
        penalties: Of the sum of squared weights, beside the sum of squared errors, to choose from.

    Returns:
        Weights (n_train, n_test); the penalty of each test sample, that of the smallest mean
        squared error of left-out subsets, (n_test,); and 1 minus that over the variance of the
        losses, (n_test,), 0 where these are all the same. All float64.
    """
    from sklearn.linear_model import RidgeCV

    targets = losses.double().numpy()
    # By itself scikit-learn takes the closed form of leave-one-out, each target for its own.
    ridge = RidgeCV(alphas=penalties, alpha_per_target=True)
    ridge.fit(masks.double().numpy(), targets)
    variance = targets.var(0)
    is_constant = variance == 0
    explained = 1 + np.atleast_1d(ridge.best_score_) / np.where(is_constant, 1, variance)
    explained[is_constant] = 0
    weights = np.atleast_2d(ridge.coef_)  # (n_test, n_train)
    parts = weights.T, np.atleast_1d(ridge.alpha_), explained
    return tuple(torch.from_numpy(np.ascontiguousarray(part)) for part in parts)
