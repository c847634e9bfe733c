"""Statistics of attribution scores over draws: moments, tests of mean = 0, correlations.

Scores of one method are an array (T, C, n_train, n_test): T seeds, C checkpoints. The samples of a
pair's score are T numbers, one per seed: the mean over its last k checkpoints.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import norm, ttest_1samp

TESTS = ("ttest", "snr")
COEFFICIENTS = ("pearson", "spearman")


def draw_samples(scores: np.ndarray, n_checkpoints: int) -> np.ndarray:
    """Return the samples of every pair's score, float64 (T, n_train, n_test).

    Args:
        scores: Scores (T, C, n_train, n_test).
        n_checkpoints: k, the number of last checkpoints that are averaged.

    Raises:
        ValueError: k is not between 1 and C.
    """
    if not 1 <= n_checkpoints <= scores.shape[1]:
        raise ValueError(f"n_checkpoints is {n_checkpoints}, not from 1 to {scores.shape[1]}")
    return scores[:, -n_checkpoints:].mean(axis=1, dtype=np.float64)


def moments(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation (T − 1 in the denominator) over the first axis."""
    return samples.mean(axis=0), samples.std(axis=0, ddof=1)


def pvalues(samples: np.ndarray, test: str = "ttest") -> np.ndarray:
    """Return the p-value of 'the mean is 0' for every pair.

    Args:
        samples: Samples (T, ...), T at least 2.
        test: "ttest": two-sided one-sample Student t with T − 1 degrees of freedom. "snr":
            2 (1 − Φ(|mean / std|)), the formula of the published code; it has no √T, so on pure
            Gaussian noise it is not uniform.

    Returns:
        P-values (...). A pair whose samples are all equal has no noise: 1 if they are 0, else 0.

    Raises:
        ValueError: There are fewer than two samples, or the test is unknown.
    """
    if len(samples) < 2:
        raise ValueError(f"a test needs at least 2 samples, got {len(samples)}")
    # Equal samples would be divided by a standard deviation of zero, or of rounding.
    constant = (samples == samples[0]).all(axis=0)
    p = np.where(samples[0] == 0, 1.0, 0.0)
    noisy = samples[:, ~constant]
    if test == "ttest":
        p[~constant] = ttest_1samp(noisy, 0).pvalue
    elif test == "snr":
        mean, std = moments(noisy)
        p[~constant] = 2 * norm.sf(np.abs(mean / std))
    else:
        raise ValueError(f"unknown test {test!r}: choose from {', '.join(TESTS)}")
    return p


def correlations(values: dict[str, np.ndarray], coefficient: str) -> pd.DataFrame:
    """Return the correlations between methods over pairs, a frame of method by method.

    Args:
        values: One number per pair, (n_train, n_test), by method.
        coefficient: "pearson" or "spearman".

    A method that is constant over pairs has no correlation: NaN.
    """
    frame = pd.DataFrame({method: v.ravel() for method, v in values.items()})
    return frame.corr(method=coefficient)
