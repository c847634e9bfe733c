"""Which pairs to look at: the most and least reliable ones, and what helped one test sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student_t

from src.analysis.stats import moments, pvalues
from src.experiments import METHODS


def distinct_pairs(order: np.ndarray, shape: tuple[int, ...], n_pairs: int) -> list[tuple]:
    """Return the first pairs of an order of flat positions that share no sample.

    Args:
        order: Flat positions in (n_train, n_test).
        shape: (n_train, n_test).
        n_pairs: The most pairs to return.
    """
    pairs: list[tuple[int, int]] = []
    trains, tests = set(), set()
    for i, j in zip(*np.unravel_index(order, shape), strict=True):
        if len(pairs) == n_pairs:
            break
        if i not in trains and j not in tests:
            pairs.append((int(i), int(j)))
            trains.add(i)
            tests.add(j)
    return pairs


@dataclass(frozen=True)
class Influences:
    """The train samples of the largest scores on one test sample, by one method.

    Scores have the sign 'positive helps'.

    Attributes:
        train: Positions of the train samples, proponents from the largest mean score down, then
            opponents up to the smallest, (k,).
        mean: Mean score over seeds, (k,).
        reach: Half the width of the mean's confidence interval (Student's t), (k,).
        pvalue: The t-test's p-value, (k,).
        n_proponents: How many of them have a positive mean; the rest is negative.
    """

    train: np.ndarray
    mean: np.ndarray
    reach: np.ndarray
    pvalue: np.ndarray
    n_proponents: int


def influences(samples: np.ndarray, method: str, n_each: int, alpha: float) -> Influences:
    """Return the proponents and opponents of one test sample.

    Args:
        samples: Samples (T, n_train) of its scores.
        method: The method, which decides the sign.
        n_each: The most proponents, and the most opponents.
        alpha: One minus the level of the confidence intervals.
    """
    helpful = METHODS[method].helpful_sign * samples
    mean, std = moments(helpful)
    order = np.argsort(-mean, kind="stable")
    proponents = order[mean[order] > 0][:n_each]
    opponents = order[mean[order] < 0][-n_each:]
    chosen = np.concatenate([proponents, opponents])
    n_draws = len(samples)
    reach = student_t.isf(alpha / 2, n_draws - 1) * std / np.sqrt(n_draws)
    return Influences(
        chosen, mean[chosen], reach[chosen], pvalues(helpful)[chosen], len(proponents)
    )
