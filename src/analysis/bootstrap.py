"""Confidence intervals by the bootstrap over seeds, and over rows where these are a sample.

Seeds are what was drawn, so seeds are resampled; the pairs stay. All methods share a resample, as
they share the seeds.

A statistic of T resampled seeds is not centred on the observed one: a seed that is drawn twice adds
no spread, so on noise the p-values of resamples are too small, and percentiles of the resamples
miss the truth mostly, and nearly always where the pairs vary on their own
(`tests/analysis/test_bootstrap.py` simulates it). Their spread is about right, or too large the
less the pairs vary together, so the intervals are `estimate ± t · standard error` with the standard
error of the resamples and Student's t of T − 1 degrees of freedom (Efron and Tibshirani 1993,
chapter 12.4): of three seeds, normal intervals of a difference would miss 0 five times as often.

Where the training samples that are scored are a random sample, K of n (`Rows`), means over pairs
are estimates for that reason, too. The variance that the sample adds, (1 − K / n) s² / K with s²
the variance between rows (Cochran 1977, chapter 2.6, with the correction for a finite population),
is added by resampled rows. It is rather too large: a sample is balanced over classes, which makes
means vary less, and what seeds do to single rows is counted by the resamples of seeds already.
Correlations and variance components are those of the scored pairs, and their intervals are from
seeds alone.

Where there are more than MOST_PAIRS pairs, the resamples of means and correlations are of as many
pairs, drawn at random and the same for all resamples, methods and experiments of one shape: a
standard error needs no more. The means themselves are of all pairs.

Two numbers of the same T seeds are compared by their difference on each resample, which leaves out
what a seed, or a row that both have, does to both. Whatever is said of a rise, a fall or a largest
one is said by `Estimate`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import t as student_t

from src.analysis.rows import N_RESAMPLES, Rows, some_pairs
from src.analysis.stats import correlation_matrix, moments, pvalues, pvalues_of_moments

LEVEL = 0.95
LEAST_DRAWS = 3  # the resamples of two seeds with any spread at all are all alike
_ROUNDING = 1e-12  # of numbers about as large as 1, as p-values and logarithms are
_NO_SPREAD = 1e-250  # a standard deviation that divides 0 to 0, and scores to finite numbers


def seed_resamples(n_draws: int, n_resamples: int = N_RESAMPLES) -> np.ndarray:
    """Return how often each seed stands in each resample, int64 (n_resamples, T).

    The same T gives the same resamples. Those of a single seed, T times, have no standard deviation
    and are left out.
    """
    rng = np.random.default_rng(n_draws)
    counts = np.empty((0, n_draws), dtype=np.int64)
    while len(counts) < n_resamples:
        more = rng.multinomial(n_draws, np.full(n_draws, 1 / n_draws), size=n_resamples)
        counts = np.concatenate([counts, more[(more > 0).sum(axis=1) > 1]])
    return counts[:n_resamples]


def resampled_moments(
    samples: np.ndarray,
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return the function that gives mean and standard deviation of every pair over a resample.

    It takes how often each seed stands in the resample, (T,). A pair whose resampled samples are
    equal gets a standard deviation just above 0, so that its p-value is 0, or 1 where they are all
    0.

    Args:
        samples: Samples (T, ...).
    """
    n_draws = len(samples)
    mean = samples.mean(axis=0)
    centred = samples - mean  # the difference of large squares would lose the variance
    squares = centred**2

    def moments(count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        weights = count.astype(np.float64)
        shift = np.tensordot(weights, centred, axes=1) / n_draws
        resampled = mean + shift
        variance = np.tensordot(weights, squares, axes=1) - n_draws * shift**2
        std = np.sqrt(np.maximum(variance / (n_draws - 1), 0))
        # Seeds that are nearly equal but far from the others: the difference lost their variance.
        lost = variance <= 1e-9 * n_draws * shift**2
        if lost.any():
            drawn = np.repeat(samples[:, lost], count, axis=0)
            constant = (drawn == drawn[0]).all(axis=0)
            resampled[lost] = np.where(constant, drawn[0], drawn.mean(axis=0))
            std[lost] = np.where(constant, 0.0, drawn.std(axis=0, ddof=1))
        return resampled, np.maximum(std, _NO_SPREAD)

    return moments


@dataclass(frozen=True)
class Estimate:
    """A number about as large as 1, and what it is on the resamples of seeds and rows.

    Attributes:
        value: The number, of all T seeds and scored rows.
        drawn: Of the resamples in the order of `seed_resamples`, (N_RESAMPLES,). NaN where there
            are fewer than LEAST_DRAWS seeds, or one row of several.
        n_draws: T.
    """

    value: float
    drawn: np.ndarray
    n_draws: int

    def __sub__(self, other: Estimate) -> Estimate:
        """Return the difference from a number of the same T seeds in the same order.

        Raises:
            ValueError: The other has another T.
        """
        if self.n_draws != other.n_draws:
            raise ValueError(f"{self.n_draws} seeds cannot be compared with {other.n_draws}")
        return Estimate(self.value - other.value, self.drawn - other.drawn, self.n_draws)

    def interval(self, low: float = -np.inf, high: float = np.inf) -> tuple[float, float]:
        """Return the confidence interval within the limits of what is estimated.

        NaN, as the estimate or its resamples are without enough seeds, gives NaN.
        """
        reach = _errors_to_limit(self.n_draws) * np.std(self.drawn, ddof=1)
        lower, upper = np.maximum(low, self.value - reach), np.minimum(high, self.value + reach)
        return float(lower), float(upper)

    @property
    def sign(self) -> int:
        """1 or −1 where the confidence interval lies above or below 0; 0 where it does not tell."""
        low, high = self.interval()
        return int(low > _ROUNDING) - int(high < -_ROUNDING)


def unresampled(value: float, n_draws: int) -> Estimate:
    """Return an estimate without an interval."""
    return Estimate(value, np.full(N_RESAMPLES, np.nan), n_draws)


def _errors_to_limit(n_draws: int) -> float:
    """Return how many standard errors a confidence limit of T seeds is away."""
    return float(student_t.isf((1 - LEVEL) / 2, n_draws - 1))


def clearly_largest(estimates: dict[str, Estimate]) -> str | None:
    """Return which of several numbers of the same T seeds is the largest; None: cannot be told.

    It is told where the confidence intervals of its differences from all others lie above 0.
    """
    for key, own in estimates.items():
        others = [other for name, other in estimates.items() if name != key]
        if others and all((own - other).sign > 0 for other in others):
            return key
    return None


def pair_means(
    samples: np.ndarray,
    tests: tuple[str, ...],
    rows: Rows | None = None,
    p: list[np.ndarray] | None = None,
) -> dict[str, Estimate]:
    """Return the means over pairs of the p-value, the standard deviation and the mean's size.

    Args:
        samples: Samples (T, n_scored, n_test).
        tests: Of `src.analysis.stats.TESTS`.
        rows: Which training samples are scored; None: all.
        p: The p-values (n_scored, n_test) of each test, where they are known.

    Returns:
        `mean_pvalue_<test>` of each test, `mean_std` and `mean_abs_mean`.
    """
    n_draws = len(samples)

    def means(mean: np.ndarray, std: np.ndarray, p: list[np.ndarray]) -> list[float]:
        return [values.mean() for values in (*p, std, np.abs(mean))]

    mean, std = moments(samples)
    p = [pvalues(samples, test) for test in tests] if p is None else p
    value = means(mean, std, p)
    drawn = np.full((N_RESAMPLES, len(value)), np.nan)
    if n_draws >= LEAST_DRAWS:
        moments_of = resampled_moments(some_pairs(samples))

        def of_resample(count: np.ndarray) -> list[float]:
            mean, std = moments_of(count)
            return means(mean, std, [pvalues_of_moments(mean, std, n_draws, t) for t in tests])

        with ThreadPoolExecutor() as pool:  # numpy and scipy let other threads run
            drawn = np.array([*pool.map(of_resample, seed_resamples(n_draws))])
    if rows is not None:
        of_rows = [values.mean(axis=1) for values in (*p, std, np.abs(mean))]
        drawn = drawn + rows.deviations(np.stack(of_rows, axis=1))
    names = [*(f"mean_pvalue_{test}" for test in tests), "mean_std", "mean_abs_mean"]
    return {name: Estimate(*own, n_draws) for name, *own in zip(names, value, drawn.T, strict=True)}


def difference_table(
    differences: dict[Hashable, Estimate], names: list[str] | None = None
) -> pd.DataFrame:
    """Return differences with their confidence intervals, a row for each.

    Args:
        differences: By label; a tuple is one of several levels.
        names: Of the levels of the labels.
    """
    rows = [(d.value, *d.interval()) for d in differences.values()]
    keys = [key if isinstance(key, tuple) else (key,) for key in differences]
    index = pd.MultiIndex.from_tuples(keys, names=names)
    return pd.DataFrame(rows, index, columns=["difference", "low", "high"])


def correlation_intervals(
    samples: dict[str, np.ndarray], estimates: dict[tuple[str, str], pd.DataFrame]
) -> dict[tuple[str, str], tuple[pd.DataFrame, pd.DataFrame]]:
    """Return the confidence intervals of the correlations between methods over pairs.

    Args:
        samples: Samples (T, n_train, n_test), by method, all of the same seeds.
        estimates: The correlations, as `src.analysis.stats.correlation_matrices` returns them of
            means, standard deviations and the t-test's p-values.

    Returns:
        Frames of lower and of upper limits, method by method, by (statistic, coefficient). They are
        symmetric after Fisher's transformation, so they stay between −1 and 1. NaN where there are
        fewer than LEAST_DRAWS seeds. They hold the correlation that T seeds show on average; what
        endless seeds would show is further from 0 where the means are noisy.
    """
    n_draws = len(next(iter(samples.values())))
    resampled = [resampled_moments(some_pairs(v)) for v in samples.values()]

    def matrices(count: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
        by_method = (moments_of(count) for moments_of in resampled)
        mean, std = (np.stack(parts) for parts in zip(*by_method, strict=True))
        statistics = {"mean": mean, "std": std, "pvalue": pvalues_of_moments(mean, std, n_draws)}
        return {
            (name, coefficient): _fisher(correlation_matrix(statistics[name], coefficient))
            for name, coefficient in estimates
        }

    with ThreadPoolExecutor() as pool:
        drawn = [*pool.map(matrices, seed_resamples(n_draws))]
    errors_to_limit = _errors_to_limit(n_draws) if n_draws >= LEAST_DRAWS else np.nan
    limits = {}
    for key, matrix in estimates.items():
        errors = np.std([matrix_of[key] for matrix_of in drawn], axis=0, ddof=1)
        reach = errors_to_limit * errors
        centre = _fisher(matrix.to_numpy())
        low, high = (
            pd.DataFrame(np.tanh(bound), matrix.index, matrix.columns)
            for bound in (centre - reach, centre + reach)
        )
        limits[key] = low, high
    return limits


def _fisher(correlation: np.ndarray) -> np.ndarray:
    # One, that of a method with itself and now and then of two, would be infinite.
    return np.arctanh(np.clip(correlation, -1 + 1e-12, 1 - 1e-12))
