"""Which random subsets of the training set models are trained on.

    truth         K subsets of m = fraction × n samples, the same ones for all seeds
    half          the same, drawn anew for each seed
    independent   each sample is in with probability `inclusion`, by itself, for each seed
    permutations  P random orders of all samples, for each seed; the subsets are their prefixes

All come from numpy's default generator, seeded by (2023, number of the kind, seed), with 0 as the
seed of `truth`: no subset depends on what a seed drives in training. Of a larger number of subsets
the first ones are those of a smaller number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from src.errors import UserError
from src.experiments import FRACTION, INCLUSION, PERMUTATIONS, SUBSET_KINDS, TRUTH

SEED = 2023
OPTIONS = ("n_subsets", "fraction", "inclusion")  # that decide which subsets are drawn


@dataclass(frozen=True)
class Subsets:
    """What is drawn for one seed.

    Attributes:
        kind: One of SUBSET_KINDS.
        n_subsets: Their number K; of permutations the number P of these.
        fraction: Share of the training set in a subset; only of kinds whose size is that.
        inclusion: Probability of a sample; only of the kind whose size is that.
    """

    kind: str
    n_subsets: int
    fraction: float | None = None
    inclusion: float | None = None

    @classmethod
    def of(
        cls,
        kind: str,
        n_subsets: int | None = None,
        fraction: float = FRACTION,
        inclusion: float = INCLUSION,
    ) -> Subsets:
        """Return a kind's subsets: by default their usual number and sizes."""
        known = SUBSET_KINDS[kind]
        return cls(
            kind,
            n_subsets or known.n_subsets,
            fraction if known.size == "fraction" else None,
            inclusion if known.size == "inclusion" else None,
        )

    def settings(self) -> dict:
        """Return every option that changes the subsets."""
        options = {key: getattr(self, key) for key in OPTIONS}
        return {key: value for key, value in options.items() if value is not None}

    def masks(self, n_train: int, seed: int) -> Tensor:
        """Return which samples are in each subset, bool (K, n_train); not of permutations.

        Raises:
            UserError: The fraction is of no sample, or of all.
        """
        generator = self._generator(seed)
        if self.fraction is None:
            drawn = generator.random((self.n_subsets, n_train)) < self.inclusion
            return torch.from_numpy(drawn)
        n_in = round(self.fraction * n_train)
        if not 0 < n_in < n_train:
            raise UserError(
                f"--fraction {self.fraction:g} of {n_train} training samples is {n_in}: choose one "
                "that leaves some in and some out"
            )
        masks = torch.zeros(self.n_subsets, n_train, dtype=torch.bool)
        for mask in masks:
            mask[torch.from_numpy(generator.permutation(n_train)[:n_in])] = True
        return masks

    def permutations(self, n_train: int, seed: int) -> Tensor:
        """Return random orders of the samples' positions, int64 (P, n_train)."""
        generator = self._generator(seed)
        orders = [generator.permutation(n_train) for _ in range(self.n_subsets)]
        return torch.from_numpy(np.stack(orders)).long()

    @property
    def is_permutations(self) -> bool:
        """Whether subsets are prefixes of permutations."""
        return self.kind == PERMUTATIONS

    def _generator(self, seed: int) -> np.random.Generator:
        number = [*SUBSET_KINDS].index(self.kind)
        return np.random.default_rng([SEED, number, 0 if self.kind == TRUTH else seed])


def prefixes(permutation: Tensor) -> Tensor:
    """Return the masks of a permutation's prefixes but the empty and the whole one.

    Args:
        permutation: Positions, (n_train,).

    Returns:
        bool (n_train − 1, n_train), in the order of their lengths.
    """
    place = permutation.argsort()
    return place[None] < torch.arange(1, len(permutation))[:, None]
