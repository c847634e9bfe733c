"""Data Shapley: the marginal contribution of a sample, averaged over orders of joining.

    τ(z_j, z) = mean over permutations π of L(z; θ_before) − L(z; θ_{before ∪ {z_j}}),

`before` the samples in front of z_j in π (Ghorbani and Zou 2019, "Data Shapley", with the negative
loss as the value of a set). The empty set's loss is that of the untrained start. The
permutations are those of a seed's subsets `permutations`; one that was truncated
(`src.subsets.walk`) counts 0 for the samples behind. Positive: z_j helps z.

Efficiency: the scores of a test sample over all training samples sum to the value of the whole set
minus that of the empty one. Without truncation this holds for each permutation, since the sum
telescopes; what truncation leaves out is in `gap`, the sum minus what it should be, with its
standard error over permutations, `gap_error`, both (C, n_test). `standard_error` is that of the
scores over permutations, (C, n_scored, n_test).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from src.tda.estimator import Draws, Scores


@dataclass(frozen=True)
class Shapley:
    """The estimator `shapley`.

    Attributes:
        chunk_size: Models on subsets trained at once, in a notebook; None: what fits.
    """

    methods: ClassVar[tuple[str, ...]] = ("shapley",)
    retrains: ClassVar[bool] = True

    chunk_size: int | None = None

    def settings(self) -> dict:
        """Return every option that changes the numbers: those of the subsets do."""
        return {}

    def __call__(self, draws: Draws) -> dict[str, Scores]:
        """Return the scores of all pairs at all checkpoints, by method."""
        content = draws.subsets
        start, whole = content["start"], content["whole"]
        result = shapley(
            content["permutations"], content["lengths"], content["losses"], start, whole
        )
        value = start - whole
        typical, gap = result.errors.nanmedian(), result.gap.abs().max()
        message = (
            f"median |score| {result.scores.abs().median():.2e}, median standard error "
            f"{typical:.2e} over {len(content['lengths'])} permutations; efficiency: scores sum to "
            f"{result.total.mean():.4f}, the whole set is worth {value.mean():.4f} (means over "
            f"test samples; the largest difference is {gap:.2e}, the median standard error "
            f"{result.gap_error.nanmedian():.2e})"
        )
        scored = draws.setup.scored
        extra = {
            "standard_error": result.errors[:, scored].float(),
            "gap": result.gap.float(),
            "gap_error": result.gap_error.float(),
        }
        return {"shapley": Scores(result.scores[:, scored], extra, message)}


@dataclass(frozen=True)
class ShapleyValues:
    """Shapley values by permutations, float64; errors are NaN of a single permutation.

    Attributes:
        scores: (C, n_train, n_test).
        errors: Their standard errors over permutations, (C, n_train, n_test).
        total: Sum of the scores of each test sample, (C, n_test).
        gap: The sum minus the value of the whole set, (C, n_test).
        gap_error: Its standard error over permutations, (C, n_test).
    """

    scores: Tensor
    errors: Tensor
    total: Tensor
    gap: Tensor
    gap_error: Tensor


def shapley(
    permutations: Tensor, lengths: Tensor, losses: Tensor, start: Tensor, whole: Tensor
) -> ShapleyValues:
    """Average marginal contributions over permutations.

    Args:
        permutations: Orders of the training samples, int64 (P, n_train).
        lengths: Number of prefixes that models were trained on, of each permutation, int64 (P,):
            n_train − 1, or fewer where it was truncated.
        losses: Of these prefixes, one permutation's after another's, (C, sum of lengths, n_test).
        start: Losses of the empty set, (n_test,).
        whole: Losses of the whole set, (C, n_test).
    """
    n_permutations, n_train = permutations.shape
    start, whole = start.double().expand_as(whole), whole.double()
    # Sums and sums of squares, since contributions of all permutations may not fit in memory.
    sums = torch.zeros(len(whole), n_train, whole.shape[1], dtype=torch.float64)
    squares, gaps = torch.zeros_like(sums), []
    own = losses.split(lengths.tolist(), 1)
    for order, length, prefixes in zip(permutations, lengths.tolist(), own, strict=True):
        ends = [whole[:, None]] if length == n_train - 1 else []
        values = torch.cat([start[:, None], prefixes.double(), *ends], 1)
        gained = values[:, :-1] - values[:, 1:]
        joined = order[: gained.shape[1]]
        sums[:, joined] += gained
        squares[:, joined] += gained.square()
        gaps.append(whole - values[:, -1])
    scores = sums / n_permutations
    variance = (squares / n_permutations - scores.square()).clamp(min=0)
    gap = torch.stack(gaps)
    if n_permutations > 1:
        errors = (variance / (n_permutations - 1)).sqrt()
        gap_error = gap.std(0) / n_permutations**0.5
    else:
        errors, gap_error = (torch.full_like(t, torch.nan) for t in (scores, whole))
    total = scores.sum(1)
    return ShapleyValues(scores, errors, total, total - (start - whole), gap_error)
