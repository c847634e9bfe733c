"""Significance of many pairs at once: what noise alone would give, and tests that allow for it.

27,000 pairs of pure noise have 1,350 p-values below 0.05. Beside the plain fraction of significant
pairs stand therefore the fraction expected of noise, the fraction that Benjamini and Hochberg
(1995) keep, and an exact sign-flip test, which needs no normal distribution.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, norm
from scipy.stats import t as student_t

from src.stats import pvalues

_PAIRS_AT_ONCE = 4096  # times 512 sign vectors: 16 MB


def expected_under_noise(test: str, alpha: float, n_draws: int) -> float:
    """Return the fraction of pairs of pure Gaussian noise whose p-value is below alpha.

    Args:
        test: "ttest" or "snr", see `src.stats.pvalues`.
        alpha: Significance level.
        n_draws: T, the number of samples of each pair.
    """
    if test == "ttest":
        return alpha
    # p < alpha is |mean / std| > z, and √T mean / std has Student's distribution.
    z = norm.isf(alpha / 2)
    return float(2 * student_t.sf(z * np.sqrt(n_draws), n_draws - 1))


def false_discoveries_controlled(p: np.ndarray, rate: float) -> np.ndarray:
    """Return which pairs Benjamini and Hochberg's procedure calls significant.

    Args:
        p: P-values (...), of all the tests that were made.
        rate: Share of the significant pairs that may be false, on average.

    Returns:
        bool (...). The tests may depend on each other positively, as pairs with a common sample do
        (Benjamini and Yekutieli 2001, theorem 1.2).
    """
    return (false_discovery_control(p.ravel()) <= rate).reshape(p.shape)


def sign_flip_pvalues(samples: np.ndarray) -> np.ndarray:
    """Return exact p-values of 'the distribution is symmetric about 0'.

    Under it every choice of signs of the T samples is as likely as the one observed. The p-value is
    the share of all 2^T choices whose |mean| is at least the observed one; as the sum of squares is
    the same for all, the order is that of |t|. It is never below 2 / 2^T.

    Args:
        samples: Samples (T, ...), T at most ten or so: 2^(T - 1) choices are tried.

    Returns:
        P-values (...).
    """
    n_draws = len(samples)
    flat = samples.reshape(n_draws, -1)
    # A choice and its opposite have the same |mean|: the first sign can stay.
    choices = np.arange(2 ** (n_draws - 1))
    signs = 1.0 - 2.0 * ((choices[:, None] >> np.arange(n_draws)) & 1)
    p = np.empty(flat.shape[1])
    for start in range(0, flat.shape[1], _PAIRS_AT_ONCE):
        chunk = flat[:, start : start + _PAIRS_AT_ONCE]
        # Equal sums, as of samples with ties, may differ by rounding.
        observed = np.abs(chunk.sum(axis=0)) - 1e-12 * np.abs(chunk).sum(axis=0)
        p[start : start + _PAIRS_AT_ONCE] = (np.abs(signs @ chunk) >= observed).mean(axis=0)
    return p.reshape(samples.shape[1:])


def significance_table(
    samples: dict[str, np.ndarray], test: str, alpha: float, rate: float
) -> pd.DataFrame:
    """Return, for each method, the fractions of pairs that the several tests call significant.

    Args:
        samples: Samples (T, n_train, n_test), by method.
        test: "ttest" or "snr".
        alpha: Significance level of a single test.
        rate: False discovery rate.

    Returns:
        A frame with a row for each method. `agreement` is the share of pairs on which the test and
        the sign-flip test give the same answer at alpha.
    """
    rows = {}
    for method, values in samples.items():
        p, exact = pvalues(values, test), sign_flip_pvalues(values)
        rows[method] = {
            "pairs": p.size,
            "draws": len(values),
            "expected_of_noise": expected_under_noise(test, alpha, len(values)),
            "significant": (p < alpha).mean(),
            "benjamini_hochberg": false_discoveries_controlled(p, rate).mean(),
            "sign_flip": (exact < alpha).mean(),
            "sign_flip_benjamini_hochberg": false_discoveries_controlled(exact, rate).mean(),
            "agreement": ((p < alpha) == (exact < alpha)).mean(),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")
