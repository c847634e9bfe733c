"""Where the variance of a score comes from: seeds, checkpoints, initialisation, batch order."""

from __future__ import annotations

import numpy as np
import pandas as pd

from src.analysis.bootstrap import LEAST_DRAWS, interval, seed_resamples


def variance_components(scores: np.ndarray) -> dict[str, float]:
    """Return the variance of a score between seeds and, within a seed, between checkpoints.

    The model of a pair's score is τ_tc = μ + a_t + e_tc with independent a_t of variance `between`
    and e_tc of variance `within` (one-way random effects, Searle, Casella and McCulloch 1992,
    chapter 3). Checkpoints of neighbouring epochs resemble each other, so `within` is what five
    late epochs show, not all the noise that a longer training would.

    Args:
        scores: Scores (T, C, n_train, n_test).

    Returns:
        `between` and `within`, averaged over pairs, and the share of `between` in their sum, each
        with a confidence interval (`..._low`, `..._high`; NaN below LEAST_DRAWS seeds). An
        estimate below 0 counts as 0. With one checkpoint all but `between` is NaN, and `between`
        holds both.
    """
    n_draws, n_checkpoints = scores.shape[:2]
    flat = scores.reshape(n_draws, n_checkpoints, -1).astype(np.float64)
    flat -= flat[0, 0]  # the same variances, and exactly 0 for a constant
    means = flat.mean(axis=1)
    if n_checkpoints > 1:
        within_of_seed = flat.var(axis=1, ddof=1).mean(axis=1)
    else:
        within_of_seed = np.full(n_draws, np.nan)
    gram = _gram(means)

    def components(count: np.ndarray) -> np.ndarray:
        within = count @ within_of_seed / n_draws
        between = _pooled_variance(gram, count)
        if n_checkpoints > 1:
            between -= within / n_checkpoints
        total = between + within
        return np.array([between, within, between / total if total > 0 else np.nan])

    # Resamples may be below 0, or they would have no spread where `between` is near it.
    estimate = np.maximum(components(np.ones(n_draws)), 0.0)
    error = np.full(3, np.nan)
    if n_draws >= LEAST_DRAWS:
        drawn = [components(count) for count in seed_resamples(n_draws)]
        error = np.std(drawn, axis=0, ddof=1)
    names, upper = ("between", "within", "share_between"), (np.inf, np.inf, 1.0)
    result: dict[str, float] = {}
    for k, name in enumerate(names):
        low, high = interval(estimate[k], error[k], 0.0, upper[k])
        result |= {name: estimate[k], f"{name}_low": low, f"{name}_high": high}
    return result


def variance_components_table(scores: dict[str, np.ndarray]) -> pd.DataFrame:
    """Return the variance components of each method, a row for each.

    Args:
        scores: Scores (T, C, n_train, n_test), by method.
    """
    rows = {method: variance_components(values) for method, values in scores.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def variance_by_source(samples: dict[str, dict[str, np.ndarray]]) -> pd.DataFrame:
    """Return how much of a score's variance remains when a seed drives only one source.

    `init` is the variance over initialisations with the batch order held at one, `batch` the
    reverse, each of them with what depends on both; so their sum may be above that of `both`.

    Args:
        samples: Samples (T, n_train, n_test), by method, by source: "both" and any of "init" and
            "batch".

    Returns:
        A row for each method that all sources have: the variance averaged over pairs by source,
        and its ratio to that of `both` with a confidence interval.
    """
    methods = [m for m in samples["both"] if all(m in by_method for by_method in samples.values())]
    rows = {}
    for method in methods:
        row = {}
        logs = {}
        for source, by_method in samples.items():
            variance, log_error = _variance_and_log_error(by_method[method])
            row[f"variance_{source}"] = variance
            logs[source] = np.log(variance) if variance > 0 else np.nan, log_error
        for source in samples:
            if source == "both":
                continue
            log_ratio = logs[source][0] - logs["both"][0]
            low, high = interval(
                log_ratio, np.hypot(logs[source][1], logs["both"][1]), -np.inf, np.inf
            )
            row |= {
                f"{source}_to_both": np.exp(log_ratio),
                f"{source}_to_both_low": np.exp(low),
                f"{source}_to_both_high": np.exp(high),
            }
        rows[method] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def _variance_and_log_error(samples: np.ndarray) -> tuple[float, float]:
    """Return the variance over seeds averaged over pairs, and the standard error of its log."""
    n_draws = len(samples)
    gram = _gram(samples.reshape(n_draws, -1))
    variance = _pooled_variance(gram, np.ones(n_draws))
    if n_draws < LEAST_DRAWS or variance <= 0:
        return variance, np.nan
    drawn = [_pooled_variance(gram, count) for count in seed_resamples(n_draws)]
    return variance, np.std(np.log(drawn), ddof=1)


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
