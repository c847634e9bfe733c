"""Where the variance of a score comes from: seeds, epochs, initialisation, batch order."""

from __future__ import annotations

import numpy as np
import pandas as pd

from src.analysis.bootstrap import LEAST_DRAWS, Estimate, seed_resamples
from src.analysis.rows import N_RESAMPLES

_PAIRS_AT_ONCE = 2**12  # of which all scores stay in a core's cache


def variance_components(scores: np.ndarray) -> dict[str, float]:
    """Return the variance of a score between seeds, between epochs, and of what is left.

    The model of a pair's score is τ_tc = μ + a_t + β_c + e_tc. Checkpoint c is the same epoch in
    every seed, so seeds and epochs are crossed: a_t are independent of variance `between`, β_c are
    fixed effects of mean 0, and e_tc are independent of variance `residual`. The estimates are
    those of the analysis of variance, mean squares less what `residual` adds to them (two-way mixed
    model with one observation a cell, Searle, Casella and McCulloch 1992, chapters 4 and 5).
    Checkpoints of neighbouring epochs resemble each other, so `residual` is what five late epochs
    show, not all the noise that a longer training would.

    Args:
        scores: Scores (T, C, n_train, n_test).

    Returns:
        `between`, `residual` and `epoch`, Σ β_c² / (C − 1), averaged over pairs, and
        `share_between`, that of `between` in what is random, `between` + `residual`; each with a
        confidence interval (`..._low`, `..._high`; NaN below LEAST_DRAWS seeds). An estimate below
        0 counts as 0. With one checkpoint all but `between` is NaN, and `between` holds all.
        Intervals of `residual` and of the variance of the seeds' means are those of logarithms,
        since variances of few seeds are skewed, and both give that of `between`, their difference
        (method of variance estimates recovery, Zou and Donner 2008).
    """
    n_draws, n_checkpoints = scores.shape[:2]
    flat = scores.reshape(n_draws, n_checkpoints, -1)
    n_pairs = flat.shape[2]
    gram_of_means, gram_within, products = np.zeros((3, n_draws, n_draws))
    for start in range(0, n_pairs, _PAIRS_AT_ONCE):
        some = flat[:, :, start : start + _PAIRS_AT_ONCE].astype(np.float64)
        share = some.shape[2] / n_pairs
        some -= some[0, 0].copy()  # the same variances, and exactly 0 for a constant
        means = some.mean(axis=1)
        # What the seed's mean leaves of each epoch, β_c and e_tc, as one long vector for each seed.
        within = (some - means[:, None]).reshape(n_draws, -1)
        gram_of_means += share * _gram(means)
        gram_within += share * _gram(within)
        products += share * (within @ within.T / within.shape[1])

    def components(count: np.ndarray) -> np.ndarray:
        of_means, residual, epoch = _pooled_variance(gram_of_means, count), np.nan, np.nan
        between = of_means
        if n_checkpoints > 1:
            per_degree = n_checkpoints / (n_checkpoints - 1)
            residual = per_degree * _pooled_variance(gram_within, count)
            between -= residual / n_checkpoints
            epoch = per_degree * (count @ products @ count) / n_draws**2 - residual / n_draws
        total = between + residual
        share = between / total if total > 0 else np.nan
        return np.array([of_means, residual, between, epoch, share])

    value = components(np.ones(n_draws))
    drawn = np.full((len(value), N_RESAMPLES), np.nan)
    if n_draws >= LEAST_DRAWS:
        # These may be below 0, or they would have no spread where the estimate is near it.
        drawn = np.array([components(count) for count in seed_resamples(n_draws)]).T
    of_means, residual = (
        np.array([own, *_limits(own, of_resamples, n_draws)])
        for own, of_resamples in zip(value[:2], drawn[:2], strict=True)
    )
    between = of_means if n_checkpoints == 1 else _difference(of_means, residual / n_checkpoints)
    epoch, share = (
        (own, *Estimate(max(own, 0.0), of_resamples, n_draws).interval(0.0, most))
        for own, of_resamples, most in zip(value[3:], drawn[3:], (np.inf, 1.0), strict=True)
    )
    found = {"between": between, "residual": residual, "epoch": epoch, "share_between": share}
    return {
        f"{name}{end}": float(np.maximum(number, 0.0))  # which leaves NaN as it is
        for name, numbers in found.items()
        for end, number in zip(("", "_low", "_high"), numbers, strict=True)
    }


def _difference(one: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """Return the difference of two numbers with its limits; each is (number, low, high)."""
    value = one[0] - other[0]
    down, up = (np.hypot(one[k] - one[0], other[3 - k] - other[0]) for k in (1, 2))
    return value, value - down, value + up


def _limits(variance: float, drawn: np.ndarray, n_draws: int) -> tuple[float, float]:
    """Return the confidence limits of a variance by those of its logarithm; of 0 they are 0."""
    if variance <= 0 and n_draws >= LEAST_DRAWS:
        return 0.0, 0.0
    low, high = _log(variance, drawn, n_draws).interval()
    return float(np.exp(low)), float(np.exp(high))


def _log(variance: float, drawn: np.ndarray, n_draws: int) -> Estimate:
    """Return the estimate of a variance's logarithm, −∞ of 0."""
    with np.errstate(divide="ignore"):
        # Seeds that are all alike but one leave resamples without any variance.
        return Estimate(np.log(variance), np.log(np.where(drawn > 0, drawn, np.nan)), n_draws)


def variance_components_table(scores: dict[str, np.ndarray]) -> pd.DataFrame:
    """Return the variance components of each method, a row for each.

    Args:
        scores: Scores (T, C, n_train, n_test), by method.
    """
    rows = {m: {"draws": len(values)} | variance_components(values) for m, values in scores.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def variance_by_source(samples: dict[str, dict[str, np.ndarray]]) -> pd.DataFrame:
    """Return how much of a score's variance remains when a seed drives only one source.

    `init` is the variance over initialisations with the batch order held at one, `batch` the
    reverse, each of them with what depends on both; so their sum may be above that of `both`.

    Args:
        samples: Samples (T, n_train, n_test) of the same T seeds, by method, by source: "both" and
            any of "init" and "batch".

    Returns:
        A row for each method that all sources have: the variance averaged over pairs by source, its
        ratio to that of `both`, and where all three are there that of `init` to `batch`, each with
        a confidence interval. A ratio to 0 is infinite, and one of 0 to 0 NaN.
    """
    ratios = [(source, "both") for source in samples if source != "both"]
    if len(ratios) > 1:
        ratios.append(("init", "batch"))
    rows = {}
    for method in [m for m in samples["both"] if all(m in own for own in samples.values())]:
        row = {"draws": len(samples["both"][method])}
        logs = {}
        for source, by_method in samples.items():
            row[f"variance_{source}"], logs[source] = _variance_and_log(by_method[method])
        for one, other in ratios:
            with np.errstate(invalid="ignore"):  # −∞ less −∞
                ratio, name = logs[one] - logs[other], f"{one}_to_{other}"
            low, high = ratio.interval()
            if np.isinf(ratio.value) and ratio.n_draws >= LEAST_DRAWS:
                low = high = ratio.value  # a score that these seeds do not change
            row |= {
                name: np.exp(ratio.value),
                f"{name}_low": np.exp(low),
                f"{name}_high": np.exp(high),
            }
        rows[method] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def _variance_and_log(samples: np.ndarray) -> tuple[float, Estimate]:
    """Return the variance over seeds averaged over pairs, and the estimate of its logarithm."""
    n_draws = len(samples)
    # The same variance, and exactly 0 for what no seed changes.
    gram = _gram((samples - samples[0]).reshape(n_draws, -1))
    variance = max(0.0, _pooled_variance(gram, np.ones(n_draws)))
    drawn = np.full(N_RESAMPLES, np.nan)
    if n_draws >= LEAST_DRAWS:
        drawn = np.array([_pooled_variance(gram, count) for count in seed_resamples(n_draws)])
    return variance, _log(variance, drawn, n_draws)


def _gram(values: np.ndarray) -> np.ndarray:
    """Return the products (T, T) of the seeds' deviations from their mean, averaged over pairs.

    All that the variance of any resample takes, without the pairs.
    """
    centred = values - values.mean(axis=0)
    return centred @ centred.T / values.shape[1]


def _pooled_variance(gram: np.ndarray, count: np.ndarray) -> float:
    """Return the variance over a resample of seeds, T − 1 in the denominator, over all pairs."""
    n_draws = len(gram)
    return (count @ np.diag(gram) - count @ gram @ count / n_draws) / (n_draws - 1)
