"""A walk through the prefixes of permutations, each until nothing is left to be gained.

As in truncated Monte Carlo (Ghorbani and Zou 2019, algorithm 1), a permutation is left at the first
prefix whose value is that of the whole set as far as can be told: the mean over test samples of

    L(z; θ_prefix) − L(z; θ)

at the last epoch is smaller than its standard error over test samples. What the samples behind it
would add counts as 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from src.subsets.masks import prefixes


class Walk:
    """Where a walk through the prefixes of permutations is.

    Args:
        permutations: Orders of the training samples, int64 (P, n_train).
        whole: Losses of the model trained on all, (C, n_test).

    Attributes:
        lengths: Number of prefixes walked through, of each permutation so far.
    """

    def __init__(self, permutations: Tensor, whole: Tensor) -> None:
        self.permutations = permutations
        self.whole = whole
        self.lengths: list[int] = []
        self._n_prefixes = permutations.shape[1] - 1
        self._begin()

    @property
    def is_over(self) -> bool:
        """Whether all permutations have been walked through."""
        return self._number == len(self.permutations)

    @property
    def n_behind(self) -> int:
        """Number of prefixes behind, with those that a truncation spared."""
        return self._number * self._n_prefixes + (0 if self.is_over else self.lengths[-1])

    def ahead(self) -> Tensor:
        """Return the masks of the prefixes ahead in this permutation, bool (M, n_train)."""
        return prefixes(self.permutations[self._number])[self.lengths[-1] :]

    def take(self, losses: Tensor) -> Tensor:
        """Walk on by some prefixes, and return the losses of those that are kept.

        Args:
            losses: Losses of the next prefixes of this permutation, (C, M, n_test).
        """
        ends = is_settled(losses[-1], self.whole[-1]).nonzero()
        n_kept = int(ends[0]) + 1 if len(ends) else losses.shape[1]
        self.lengths[-1] += n_kept
        if len(ends) or self.lengths[-1] == self._n_prefixes:
            self._begin()
        return losses[:, :n_kept]

    def masks(self) -> Tensor:
        """Return the masks of all prefixes walked through, bool (K, n_train)."""
        walked = zip(self.permutations, self.lengths, strict=True)
        return torch.cat([prefixes(order)[:length] for order, length in walked])

    def _begin(self) -> None:
        """Begin the next permutation that has prefixes."""
        n_left = len(self.permutations) - len(self.lengths)
        if self._n_prefixes == 0:  # a single sample, whose prefixes are the empty and the whole set
            self.lengths += [0] * n_left
            n_left = 0
        elif n_left:
            self.lengths.append(0)
            self._number = len(self.lengths) - 1
            return
        self._number = len(self.permutations)


def is_settled(losses: Tensor, whole: Tensor) -> Tensor:
    """Say whether prefixes have the value of the whole set, to the standard error, bool (M,).

    Args:
        losses: Of the prefixes, (M, n_test). Of a single test sample nothing is known of the error.
        whole: Of the whole set, (n_test,).
    """
    left = (losses - whole).double()
    if left.shape[1] < 2:
        return torch.zeros(len(left), dtype=torch.bool)
    error = left.std(1) / left.shape[1] ** 0.5
    return left.mean(1).abs() < error
