"""What a sample's being in changes on the average over random subsets.

    τ(z_j, z) = mean of L(z; θ_S) over subsets S without z_j − mean over those with z_j

Positive: z_j helps z, as of leave-one-out, which is the same difference at one subset, all others.
"""

from __future__ import annotations

import torch
from torch import Tensor

from src.errors import UserError
from src.tda.estimator import Draws, Scores


def difference_of_means(masks: Tensor, losses: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean losses without each sample minus those with it, and their standard errors.

    The standard error is that of two independent means of losses with variances of their own
    (Welch). It is of which subsets were drawn, in one draw of the training.

    Args:
        masks: Which samples are in each subset, bool (K, n_train).
        losses: Of the models trained on them, (C, K, n_test).

    Returns:
        Both float64 (C, n_train, n_test); errors are NaN where a mean is of one subset.

    Raises:
        UserError: A sample is in all subsets, or in none.
    """
    n_in = masks.sum(0)
    alone = ((n_in == 0) | (n_in == len(masks))).nonzero().flatten().tolist()
    if alone:
        raise UserError(
            f"{len(alone)} of {masks.shape[1]} scored samples, the first at position {alone[0]}, "
            f"are in all or in none of {len(masks)} subsets, so that nothing can be said of them: "
            "draw more by run_subsets.py --n_subsets"
        )
    # Around their mean, so that squares keep their digits.
    centred = losses.double() - losses.double().mean(1, keepdim=True)
    means, errors = [], []
    for members in (~masks, masks):
        n = members.sum(0)[:, None]
        weights = members.double().T / n  # (n_train, K)
        mean = weights @ centred
        variance = (weights @ centred.square() - mean.square()).clamp(min=0) * n / (n - 1)
        means.append(mean)
        errors.append(variance / n)
    return means[0] - means[1], (errors[0] + errors[1]).sqrt()


def scores_of_means(draws: Draws) -> Scores:
    """Return scores that are differences of means over a seed's subsets."""
    masks = draws.subsets["masks"][:, draws.setup.scored]
    scores, errors = difference_of_means(masks, draws.subsets["losses"])
    typical = torch.nanmedian(errors)
    message = (
        f"median |score| {scores.abs().median():.2e}, median standard error {typical:.2e} over "
        f"{len(masks)} subsets"
    )
    return Scores(scores, {"standard_error": errors.float()}, message)
