"""Intervals of means over seeds and test samples, both resampled; and halves of the seeds.

Both the seeds and the test samples are a sample of what could have been drawn, so each resample
draws both anew (the pigeonhole bootstrap; Owen 2007 shows that its variance is, if anything, too
large). Seeds are resampled by weights rather than by counts (the Bayesian bootstrap, Rubin 1981),
since with counts a half could be left without seeds: a seed's weight is a gamma variable of shape
(n − 2) / n over their sum, which gives a mean of n numbers its variance, s² / n, exactly. All
numbers of the same T seeds share the resamples, so that their differences are paired.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from src.analysis.bootstrap import LEAST_DRAWS, Estimate
from src.analysis.draws_needed import rotations
from src.analysis.mean_ranks import Weighting
from src.analysis.rows import N_RESAMPLES

MOST_HALVINGS = 4


def resamples(n_draws: int) -> np.ndarray:
    """Return weights of T seeds: equal ones first, then those of resamples, (1 + R, T).

    Fewer than LEAST_DRAWS seeds have no resamples.
    """
    equal = np.full((1, n_draws), 1 / n_draws)
    if n_draws < LEAST_DRAWS:
        return equal
    return np.concatenate([equal, _normalised(_gamma(n_draws, n_draws))])


def _gamma(n_draws: int, n_averaged: int) -> np.ndarray:
    """Return weights (R, T) for means of `n_averaged` of T seeds, not yet normalised."""
    rng = np.random.default_rng([n_draws, n_averaged])
    # The smallest shapes give numbers that a float rounds to 0, all of a half's at once.
    return rng.gamma((n_averaged - 2) / n_averaged, size=(N_RESAMPLES, n_draws)) + 1e-100


def _normalised(weights: np.ndarray) -> np.ndarray:
    return weights / weights.sum(axis=-1, keepdims=True)


def _test_weights(n_test: int) -> np.ndarray:
    """Return how often each test sample stands in each resample, after once each, (1 + R, m)."""
    counts = np.random.default_rng(n_test).multinomial(
        n_test, np.full(n_test, 1 / n_test), size=N_RESAMPLES
    )
    return np.concatenate([np.ones((1, n_test)), counts])


def _weighted_means(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return weighted means over the last axis without what is NaN; NaN where all of it is."""
    there = ~np.isnan(values)
    total = (weights * there).sum(axis=-1)
    sums = (weights * np.where(there, values, 0.0)).sum(axis=-1)
    return np.divide(sums, total, out=np.full(sums.shape, np.nan), where=total > 0)


def mean_without_nan(values: np.ndarray) -> np.ndarray:
    """Return means over the last axis without what is NaN; NaN where all of it is."""
    return _weighted_means(values, np.ones(values.shape[-1]))


def _as_estimate(values: np.ndarray, n_draws: int, n_averaged: int) -> Estimate:
    drawn = values[1:] if n_averaged >= LEAST_DRAWS else np.full(N_RESAMPLES, np.nan)
    return Estimate(float(values[0]), drawn, n_draws)


def estimate(
    weights: np.ndarray, values: np.ndarray, n_draws: int, *, by_draw: bool = False
) -> Estimate:
    """Return the mean over test samples with its resamples of seeds and test samples.

    Args:
        weights: What `resamples` returns, (1 + R, T).
        values: A number of each test sample on each resample, (1 + R, m); or, `by_draw`, of each
            draw, (T, m), which are averaged by the weights.
        n_draws: T.
        by_draw: What the values are of.
    """
    # What is left out of all means is no test sample to draw: resamples of it alone have no mean.
    there = ~np.isnan(values).all(axis=0)
    values = values[:, there] if there.any() else values
    of_tests = _test_weights(values.shape[1])[: len(weights)]
    if by_draw:
        both = weights[:, :, None] * of_tests[:, None]
        return _as_estimate(
            _weighted_means(values.ravel(), both.reshape(len(both), -1)), n_draws, n_draws
        )
    return _as_estimate(_weighted_means(values, of_tests), n_draws, n_draws)


@dataclass(frozen=True)
class Halves:
    """Ways to deal T seeds into ⌊T/2⌋ and the others, so that every seed counts nearly alike.

    Attributes:
        n_draws: T.
        first: Positions of the seeds of each way's first half, (H, ⌊T/2⌋).
        second: Positions of the others, (H, T − ⌊T/2⌋).
    """

    n_draws: int
    first: np.ndarray
    second: np.ndarray

    @classmethod
    def of(cls, n_draws: int) -> Halves:
        """Return the first seeds of rotations of one random order, and the others."""
        order, shifts = rotations(n_draws, MOST_HALVINGS)
        rotated = np.stack([np.roll(order, -shift) for shift in shifts])
        return cls(n_draws, rotated[:, : n_draws // 2], rotated[:, n_draws // 2 :])

    @property
    def size(self) -> int:
        """Number of seeds of a first half."""
        return self.first.shape[1]

    def resampled(self) -> Weighting:
        """Return weights of both halves, equal ones and those of resamples, of every way.

        ((1 + R) H, T) each: all ways of a resample follow each other, and share its weights.
        """
        weights = np.ones((1, self.n_draws))
        if self.size >= LEAST_DRAWS:
            weights = np.concatenate([weights, _gamma(self.n_draws, self.size)])
        return Weighting(*(self._within(weights, half) for half in (self.first, self.second)))

    def _within(self, weights: np.ndarray, half: np.ndarray) -> np.ndarray:
        inside = np.zeros((len(half), self.n_draws))
        np.put_along_axis(inside, half, 1.0, axis=1)
        return _normalised(weights[:, None] * inside).reshape(-1, self.n_draws)

    def estimate(self, values: np.ndarray) -> Estimate:
        """Return the mean over halvings and test samples of values ((1 + R) H, m)."""
        by_resample = values.reshape(-1, len(self.first), values.shape[1])
        of_tests = _test_weights(values.shape[1])[: len(by_resample), None]
        means = _weighted_means(by_resample, of_tests)
        return _as_estimate(mean_without_nan(means), self.n_draws, self.size)
