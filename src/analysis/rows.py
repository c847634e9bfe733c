"""Which pairs numbers and their standard errors rest on: sampled rows, and random pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

N_RESAMPLES = 100  # enough for a standard error (ibid., chapter 6.4)
MOST_PAIRS = 10_000  # that resamples are of


def some_pairs(samples: np.ndarray, n_leading: int = 1) -> np.ndarray:
    """Return samples of all pairs, or of MOST_PAIRS random ones where there are more.

    Args:
        samples: (T, n_train, n_test), or with more dimensions before those of pairs.
        n_leading: Number of the dimensions before those of pairs.

    Returns:
        The samples as they are, or with one dimension of pairs, (T, MOST_PAIRS).
    """
    leading, pairs = samples.shape[:n_leading], samples.shape[n_leading:]
    n_pairs = int(np.prod(pairs))
    if n_pairs <= MOST_PAIRS:
        return samples
    chosen = np.random.default_rng(n_pairs).choice(n_pairs, MOST_PAIRS, replace=False)
    return samples.reshape(*leading, -1)[..., np.sort(chosen)]


@dataclass(frozen=True)
class Rows:
    """The training samples that are scored: the rows of the pair matrix.

    Attributes:
        n_scored: Their number K.
        n_train: Number n of the training samples that they are a random sample of.
        seed: Of the resamples: the same for the same rows, so that their differences are paired,
            and another for others.
    """

    n_scored: int
    n_train: int
    seed: int

    @property
    def are_all(self) -> bool:
        """Whether all training samples are scored."""
        return self.n_scored == self.n_train

    @property
    def words(self) -> str:
        """How many rows there are of how many, for people; empty where these are all."""
        return "" if self.are_all else f"{self.n_scored} of {self.n_train:,} training samples"

    def deviations(self, means: np.ndarray) -> np.ndarray:
        """Return how far means over rows are off on resamples of these, (N_RESAMPLES, ...).

        Their variance is (1 − K / n) s² / K: 0 where all are scored, NaN of a single one.

        Args:
            means: Mean of each row, (K, ...).
        """
        if self.are_all:
            return np.zeros((N_RESAMPLES, *means.shape[1:]))
        k = self.n_scored
        rng = np.random.default_rng(self.seed)
        counts = rng.multinomial(k, np.full(k, 1 / k), size=N_RESAMPLES)
        # Resampled means have a variance of (1 − 1 / K) s² / K.
        size = np.sqrt((1 - k / self.n_train) / (1 - 1 / k)) if k > 1 else np.nan
        return size * np.tensordot(counts / k, means - means.mean(axis=0), axes=1)
