"""Statistics of attribution scores over draws: moments, tests of mean = 0, correlations.

Scores of one method are an array (T, C, n_train, n_test): T seeds, C checkpoints. The samples of a
pair's score are T numbers, one per seed: the mean over its last k checkpoints.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import cut_tree, linkage
from scipy.spatial.distance import squareform
from scipy.special import ndtr, stdtr
from scipy.stats import t as student_t

TESTS = ("ttest", "snr")
COEFFICIENTS = ("pearson", "spearman")
_MOST_FREEDOM = 100  # of which p-values are summed up
_SMALL = 1e-4  # p-values of which 1 − (1 − p) has fewer than twelve digits


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
    mean = samples.mean(axis=0, keepdims=True)  # which `std` would compute again
    return mean[0], samples.std(axis=0, ddof=1, mean=mean)


def sign_agreement(samples: np.ndarray) -> np.ndarray:
    """Return the share of the samples (T, ...) that have their mean's sign, (...)."""
    return (np.sign(samples) == np.sign(samples.mean(axis=0))).mean(axis=0)


def pvalues(samples: np.ndarray, test: str = "ttest") -> np.ndarray:
    """Return the p-value of 'the mean is 0' for every pair.

    Args:
        samples: Samples (T, ...), T at least 2.
        test: One of TESTS, see `pvalues_of_moments`.

    Returns:
        P-values (...). A pair whose samples are all equal has no noise: 1 if they are 0, else 0.

    Raises:
        ValueError: There are fewer than two samples, or the test is unknown.
    """
    if len(samples) < 2:
        raise ValueError(f"a test needs at least 2 samples, got {len(samples)}")
    mean, std = moments(samples)
    # The standard deviation of equal samples is zero, or of the size of rounding.
    constant = (samples == samples[0]).all(axis=0)
    p = pvalues_of_moments(mean, np.where(constant, 1.0, std), len(samples), test)
    return np.where(constant, np.where(samples[0] == 0, 1.0, 0.0), p)


def pvalues_of_moments(
    mean: np.ndarray, std: np.ndarray, n_draws: int, test: str = "ttest"
) -> np.ndarray:
    """Return the p-value of 'the mean is 0' from mean and standard deviation of T samples.

    Args:
        mean: Means (...).
        std: Standard deviations (...), above 0.
        n_draws: T, the number of samples.
        test: "ttest": two-sided one-sample Student t with T − 1 degrees of freedom. "snr":
            2 (1 − Φ(|mean / std|)), the formula of the published code; it has no √T, so on pure
            Gaussian noise it is not uniform.

    Raises:
        ValueError: The test is unknown.
    """
    ratio = -np.abs(mean) / std
    if test == "ttest":
        return student_pvalues(ratio * np.sqrt(n_draws), n_draws - 1)
    if test == "snr":
        return 2 * ndtr(ratio)
    raise ValueError(f"unknown test {test!r}: choose from {', '.join(TESTS)}")


def student_pvalues(t: np.ndarray, freedom: int) -> np.ndarray:
    """Return the probability that |Student's t| is at least |t|, (...).

    Of whole degrees of freedom ν the distribution is elementary (Abramowitz and Stegun 1964, 26.7.3
    and 26.7.4). With tan θ = |t| / √ν, one minus the probability is

        2/π (θ + sin θ (cos θ + 2/3 cos³ θ + ... + 2·4···(ν−3) / (3·5···(ν−2)) cos^(ν−2) θ)), odd ν
        sin θ (1 + 1/2 cos² θ + ... + 1·3···(ν−3) / (2·4···(ν−2)) cos^(ν−2) θ), even ν

    which takes a fraction of the time of scipy's continued fractions. What is small has lost digits
    to that one, and is left to scipy, as are degrees of freedom with many terms.

    Args:
        t: Values of t (...).
        freedom: ν, from 1.
    """
    if freedom > _MOST_FREEDOM:
        return 2 * stdtr(freedom, -np.abs(t))
    angle = np.arctan(np.abs(t) / np.sqrt(freedom))
    sine, cosine = np.sin(angle), np.cos(angle)
    series = np.zeros_like(angle)
    for k in range(freedom - 2, 1, -2):
        series = (1 + series) * cosine**2 * ((k - 1) / k)
    if freedom % 2 == 0:
        inside = sine * (1 + series)
    else:
        further = sine * cosine * (1 + series) if freedom > 1 else 0.0
        inside = (angle + further) * (2 / np.pi)
    p = np.asarray(1 - inside)
    small = p < _SMALL
    p[small] = 2 * stdtr(freedom, -np.abs(t[small]))
    return p


def mean_under_noise(test: str, n_draws: int) -> float:
    """Return the mean p-value of pairs of pure Gaussian noise with T samples each."""
    if test == "ttest":
        return 0.5
    # √T mean / std has Student's distribution.
    return float(student_t.expect(lambda t: 2 * ndtr(-abs(t) / n_draws**0.5), (n_draws - 1,)))


def ranks(values: np.ndarray) -> np.ndarray:
    """Return the rank of each of n values, from 1 to n, float64 (n,).

    Equal values share the mean of their ranks; a NaN makes all ranks NaN. The same as
    `scipy.stats.rankdata`, whose stable sort takes several times as long.

    Args:
        values: Numbers (n,).
    """
    order = np.argsort(values)
    ordered = values[order]
    if np.isnan(ordered[-1]):  # NaN stands last
        return np.full(len(values), np.nan)
    is_new = np.concatenate([[True], ordered[1:] != ordered[:-1], [True]])
    starts = np.flatnonzero(is_new)  # of each run of equal values, and the end
    lengths = np.diff(starts)
    result = np.empty(len(values))
    result[order] = np.repeat(starts[:-1] + (lengths + 1) / 2, lengths)
    return result


def correlation(a: np.ndarray, b: np.ndarray, coefficient: str) -> float:
    """Return the correlation over pairs of two numbers per pair, (n_train, n_test) each.

    As `correlations` does of methods.
    """
    return float(correlation_matrix(np.stack([a, b]), coefficient)[0, 1])


def correlations(values: dict[str, np.ndarray], coefficient: str) -> pd.DataFrame:
    """Return the correlations between methods over pairs, a frame of method by method.

    Args:
        values: One number per pair, (n_train, n_test), by method.
        coefficient: "pearson" or "spearman".

    A method that is constant over pairs, as is a single pair, has no correlation: NaN.
    """
    matrix = correlation_matrix(np.stack([*values.values()]), coefficient)
    return pd.DataFrame(matrix, index=list(values), columns=list(values))


def correlation_matrix(values: np.ndarray, coefficient: str) -> np.ndarray:
    """Return the correlations over pairs of n numbers per pair, (n, n).

    As `correlations` does of methods.

    Args:
        values: The numbers, (n, n_train, n_test).
        coefficient: "pearson" or "spearman".
    """
    rows = values.reshape(len(values), -1)
    if coefficient == "spearman":
        rows = np.stack([ranks(row) for row in rows])
    elif coefficient == "pearson":
        rows = rows.astype(np.float64)
    else:
        raise ValueError(f"unknown {coefficient!r}: choose from {', '.join(COEFFICIENTS)}")
    # The deviations of a constant from its mean are zero, or rounding.
    rows[(rows == rows[:, :1]).all(axis=1)] = np.nan
    matrix = np.corrcoef(rows) if rows.shape[1] > 1 else np.full([len(rows)] * 2, np.nan)
    return np.atleast_2d(matrix)


def kappa(a: np.ndarray, b: np.ndarray) -> float:
    """Return Cohen's kappa (1960) of two answers to the same n questions: agreement beyond chance.

    Args:
        a: Answers, bool or integers from 0 (...).
        b: Answers of the other (...).

    Returns:
        1 if all are the same, 0 if as many are as chance would give; NaN if both always give one
        and the same answer, as then chance would agree too.
    """
    n_answers = int(max(a.max(), b.max())) + 1
    counts = np.zeros((n_answers, n_answers))
    np.add.at(counts, (a.ravel().astype(np.int64), b.ravel().astype(np.int64)), 1)
    by_chance = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / counts.sum()
    differ = 1 - np.eye(n_answers)
    expected = (differ * by_chance).sum()
    return float(1 - (differ * counts).sum() / expected) if expected > 0 else np.nan


def method_linkage(correlations: pd.DataFrame) -> tuple[np.ndarray, tuple[list[str], list[str]]]:
    """Return the hierarchical clustering of methods by how alike they rank pairs.

    The distance of two methods is 1 − |correlation|, that of two groups the mean over their members
    (average linkage).

    Args:
        correlations: Method by method, without NaN; two methods at least.

    Returns:
        The linkage, as scipy has it, and the methods of the two groups that are joined last, each
        in the frame's order, the first one with the first method.
    """
    distances = 1 - correlations.abs().to_numpy()
    np.fill_diagonal(distances, 0)
    tree = linkage(squareform(np.maximum(distances, 0), checks=False), "average")
    group = cut_tree(tree, n_clusters=2).ravel()
    methods = np.array(correlations.columns)
    return tree, ([*methods[group == group[0]]], [*methods[group != group[0]]])


def correlation_matrices(
    statistics: dict[str, dict[str, np.ndarray]],
) -> dict[tuple[str, str], pd.DataFrame]:
    """Return the correlations between methods of several statistics of every pair.

    Args:
        statistics: One number per pair, (n_train, n_test), by method and by name of the statistic.

    Returns:
        Frames of method by method, by (statistic, coefficient).
    """
    return {
        (name, coefficient): correlations({m: v[name] for m, v in statistics.items()}, coefficient)
        for name in next(iter(statistics.values()))
        for coefficient in COEFFICIENTS
    }
