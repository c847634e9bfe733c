"""Do two trainings name the same training samples as a test sample's most helpful ones?

For each seed and test sample the top k are the k training samples of the largest score in helpful
sign, averaged over all checkpoints. The consistency is the mean Jaccard index |A ∩ B| / |A ∪ B| of
the top k by two seeds, over all pairs of seeds and all test samples (f-INE, Panda et al. 2025,
compares methods so). Equal scores are put in a random order, another one for each seed and test
sample, so that a method whose scores are all equal has the consistency of chance.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import hypergeom

from src.analysis.bootstrap import LEAST_DRAWS, Estimate, seed_resamples, unresampled
from src.experiments import METHODS

SHARES = (0.01, 0.05, 0.1)  # of the training samples
_COMPARED_AT_ONCE = 2**22  # pairs of seeds times test samples, 16 MB


def numbers_of_top(n_train: int) -> dict[int, float]:
    """Return the numbers k of top samples, with the share of `n_train` that each stands for.

    k is the share rounded up; of shares with one k the largest stands.
    """
    return {int(np.ceil(share * n_train - 1e-9)): share for share in SHARES}


def jaccard_by_chance(n_train: int, k: int) -> float:
    """Return the expected Jaccard index of two random sets of k of n training samples.

    Their intersection has a hypergeometric distribution.
    """
    common = np.arange(k + 1)
    return float((hypergeom.pmf(common, n_train, k, k) * common / (2 * k - common)).sum())


def jaccard_of_seeds(samples: np.ndarray, method: str, ks: list[int]) -> np.ndarray:
    """Return the mean Jaccard index over test samples of every two seeds, (n_ks, T, T).

    Args:
        samples: Samples (T, n_train, n_test).
        method: The method, which decides the sign.
        ks: Numbers of top samples, each from 1 to n_train.
    """
    n_draws, n_train, n_test = samples.shape
    ranked = np.empty((n_draws, n_train, n_test), dtype=np.int32)  # training samples, best first
    rng = np.random.default_rng(0)
    positions = np.tile(np.arange(n_train)[:, None], (1, n_test))
    for values, own in zip(METHODS[method].helpful_sign * samples, ranked, strict=True):
        order = rng.permuted(positions, axis=0)  # in which equal scores come
        best = np.argsort(-np.take_along_axis(values, order, axis=0), axis=0, kind="stable")
        own[:] = np.take_along_axis(order, best, axis=0)
    at_once = max(1, _COMPARED_AT_ONCE // n_draws**2)
    sums = np.zeros((len(ks), n_draws, n_draws))
    for start in range(0, n_test, at_once):
        chunk = ranked[:, :, start : start + at_once]
        for total, k in zip(sums, ks, strict=True):
            belongs = np.zeros(chunk.shape, dtype=np.float32)
            np.put_along_axis(belongs, chunk[:, :k], 1, axis=1)
            of_test = belongs.transpose(2, 0, 1)
            common = of_test @ of_test.transpose(0, 2, 1)
            total += (common / (2 * k - common)).sum(axis=0, dtype=np.float64)
    return sums / n_test


def mean_over_pairs(of_seeds: np.ndarray) -> Estimate:
    """Return the mean over pairs of seeds of what two seeds have in common, (T, T), symmetric.

    On a resample it is the mean over pairs of different seeds.
    """
    n_draws = len(of_seeds)
    own = np.diag(of_seeds)

    def mean(count: np.ndarray) -> float:
        n_pairs = count.sum() ** 2 - (count**2).sum()
        return float((count @ of_seeds @ count - (count**2) @ own) / n_pairs)

    value = mean(np.ones(n_draws))
    if n_draws < LEAST_DRAWS:
        return unresampled(value, n_draws)
    drawn = [mean(count.astype(np.float64)) for count in seed_resamples(n_draws)]
    return Estimate(value, np.array(drawn), n_draws)


def consistency_table(samples: dict[str, np.ndarray]) -> pd.DataFrame:
    """Return how far seeds agree on the top training samples of a test sample.

    Args:
        samples: Samples (T, n_train, n_test), by method.

    Returns:
        A row for each method and k: `k`, `share` of the training samples, `jaccard` with its
        confidence limits `low` and `high` from resampled seeds, and `by_chance`.
    """
    rows = []
    for method, values in samples.items():
        n_train = values.shape[1]
        ks = numbers_of_top(n_train)
        for (k, share), of_seeds in zip(
            ks.items(), jaccard_of_seeds(values, method, [*ks]), strict=True
        ):
            estimate = mean_over_pairs(of_seeds)
            low, high = estimate.interval(0.0, 1.0)
            row = {"method": method, "k": k, "share": share, "jaccard": estimate.value}
            rows.append(
                row | {"low": low, "high": high, "by_chance": jaccard_by_chance(n_train, k)}
            )
    return pd.DataFrame(rows)
