"""Significance of many pairs at once: what noise alone would give, and tests that allow for it.

27,000 pairs of pure noise have 1,350 p-values below 0.05. Beside the plain fraction of significant
pairs stand therefore the fraction expected of noise, the fraction that Benjamini and Hochberg
(1995) keep, and a sign-flip test, which needs no normal distribution.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, norm
from scipy.stats import t as student_t

from src.analysis.stats import kappa, pvalues

MOST_SIGN_CHOICES = 4096  # all there are up to 13 samples
_PRODUCTS_AT_ONCE = 2**18  # 2 MB


def expected_under_noise(test: str, alpha: float, n_draws: int) -> float:
    """Return the fraction of pairs of pure Gaussian noise whose p-value is below alpha.

    Args:
        test: "ttest" or "snr", see `src.analysis.stats.pvalues`.
        alpha: Significance level.
        n_draws: T, the number of samples of each pair.
    """
    if test == "ttest":
        return alpha
    # p < alpha is |mean / std| > z, and √T mean / std has Student's distribution.
    z = norm.isf(alpha / 2)
    return float(2 * student_t.sf(z * np.sqrt(n_draws), n_draws - 1))


def false_discovery_rates(p: np.ndarray) -> np.ndarray:
    """Return the smallest rate at which Benjamini and Hochberg's procedure keeps each test, (...).

    Args:
        p: P-values (...), of all the tests that were made.
    """
    return false_discovery_control(p.ravel()).reshape(p.shape)


def false_discoveries_controlled(p: np.ndarray, rate: float) -> np.ndarray:
    """Return which pairs Benjamini and Hochberg's procedure calls significant.

    Args:
        p: P-values (...), of all the tests that were made.
        rate: Share of the significant pairs that may be false, on average.

    Returns:
        bool (...). The tests may depend on each other positively, as pairs with a common sample do
        (Benjamini and Yekutieli 2001, theorem 1.2).
    """
    return false_discovery_rates(p) <= rate


def least_sign_flip_pvalue(n_draws: int) -> float:
    """Return the smallest p-value that the sign-flip test can give with T samples."""
    return 1 / len(_sign_choices(n_draws))


def _sign_choices(n_draws: int) -> np.ndarray:
    """Return choices of signs (n, T), the first of them without a flip."""
    if n_draws - 1 > np.log2(MOST_SIGN_CHOICES):  # 2^T may be beyond an integer of numpy
        signs = np.random.default_rng(0).choice([-1.0, 1.0], (MOST_SIGN_CHOICES, n_draws))
        signs[0] = 1
        return signs
    # A choice and its opposite have the same |mean|: the last sign can stay.
    choices = np.arange(2 ** (n_draws - 1))
    return 1.0 - 2.0 * ((choices[:, None] >> np.arange(n_draws)) & 1)


def sign_flip_pvalues(samples: np.ndarray) -> np.ndarray:
    """Return p-values of 'the distribution is symmetric about 0'.

    Under it every choice of signs of the T samples is as likely as the one observed. The p-value is
    the share of all 2^T choices whose |mean| is at least the observed one; as the sum of squares is
    the same for all, the order is that of |t|. It is exact, and never below 2 / 2^T. Where that
    would be more than MOST_SIGN_CHOICES, as many are drawn at random, the observed one among them,
    which leaves the test valid (Phipson and Smyth 2010).

    Args:
        samples: Samples (T, ...).

    Returns:
        P-values (...); NaN where a sample is.
    """
    n_draws = len(samples)
    flat = samples.reshape(n_draws, -1)
    signs = _sign_choices(n_draws)
    at_once = max(1, _PRODUCTS_AT_ONCE // len(signs))
    p = np.empty(flat.shape[1])
    for start in range(0, flat.shape[1], at_once):
        chunk = flat[:, start : start + at_once]
        # Equal sums, as of samples with ties, may differ by rounding.
        observed = np.abs(chunk.sum(axis=0)) - 1e-12 * np.abs(chunk).sum(axis=0)
        flipped = np.abs(signs @ chunk)
        p[start : start + at_once] = np.count_nonzero(flipped >= observed, axis=0)
    p[np.isnan(flat).any(axis=0)] = np.nan
    return p.reshape(samples.shape[1:]) / len(signs)


def significance_table(
    samples: dict[str, np.ndarray], test: str, alpha: float, rate: float
) -> pd.DataFrame:
    """Return, for each method, the fraction of pairs below alpha, and what noise would give.

    The published formula's values are not uniform under noise, so they stand beside the fraction
    that noise gives and nothing else. The t-test's stand beside other tests.

    Args:
        samples: Samples (T, n_train, n_test), by method.
        test: "ttest" or "snr".
        alpha: Significance level of a single test.
        rate: False discovery rate.

    Returns:
        A frame with a row for each method. For "snr" the fraction is called `below_alpha`. For
        "ttest" it is `significant`, and beside it stand the fractions that Benjamini and
        Hochberg's procedure keeps and that the sign-flip test finds; `agreement` is the share of
        pairs on which both tests give the same answer at alpha, `kappa` what of it is beyond
        chance. Where T samples are too few for the sign-flip test to find anything, it says
        nothing: NaN.
    """
    rows = {}
    for method, values in samples.items():
        p, n_draws = pvalues(values, test), len(values)
        row: dict[str, float] = {
            "pairs": p.size,
            "draws": n_draws,
            "expected_of_noise": expected_under_noise(test, alpha, n_draws),
        }
        if test == "snr":
            row["below_alpha"] = (p < alpha).mean()
        else:
            significant = p < alpha
            row["significant"] = significant.mean()
            row["benjamini_hochberg"] = false_discoveries_controlled(p, rate).mean()
            row |= _sign_flip_columns(values, significant, alpha, rate)
        rows[method] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def _sign_flip_columns(
    samples: np.ndarray, significant: np.ndarray, alpha: float, rate: float
) -> dict[str, float]:
    """Return what the sign-flip test finds in samples (T, ...), and its agreement with another."""
    names = "sign_flip", "sign_flip_benjamini_hochberg", "agreement", "kappa"
    columns = dict.fromkeys(names, np.nan)
    least = least_sign_flip_pvalue(len(samples))
    if least > rate and least >= alpha:
        return columns
    p = sign_flip_pvalues(samples)
    if least <= rate:
        columns["sign_flip_benjamini_hochberg"] = false_discoveries_controlled(p, rate).mean()
    if least < alpha:
        found = p < alpha
        columns["sign_flip"] = found.mean()
        columns["agreement"] = (found == significant).mean()
        columns["kappa"] = kappa(found, significant)
    return columns
