"""Which pairs to look at: the most and least reliable ones, and what helped one test sample.

What can be told of one test sample are the training samples that Benjamini and Hochberg's procedure
over all pairs of a method keeps (`q` in the table of pairs).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import t as student_t

from src.analysis.stats import moments, pvalues, sign_agreement
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


def influences(
    samples: np.ndarray,
    method: str,
    n_each: int,
    alpha: float,
    among: np.ndarray | None = None,
) -> Influences:
    """Return the proponents and opponents of one test sample.

    Args:
        samples: Samples (T, n_train) of its scores.
        method: The method, which decides the sign.
        n_each: The most proponents, and the most opponents.
        alpha: One minus the level of the confidence intervals.
        among: Which training samples there are to choose from, bool (n_train,); None: all.
    """
    helpful = METHODS[method].helpful_sign * samples
    mean, std = moments(helpful)
    order = np.argsort(-mean, kind="stable")
    if among is not None:
        order = order[among[order]]
    proponents = order[mean[order] > 0][:n_each]
    opponents = order[mean[order] < 0][-n_each:]
    chosen = np.concatenate([proponents, opponents])
    n_draws = len(samples)
    reach = student_t.isf(alpha / 2, n_draws - 1) * std / np.sqrt(n_draws)
    return Influences(
        chosen, mean[chosen], reach[chosen], pvalues(helpful)[chosen], len(proponents)
    )


def told_of(
    samples: dict[str, np.ndarray],
    p: dict[str, np.ndarray],
    q: dict[str, np.ndarray],
    position: int,
    train_idx: np.ndarray,
    rate: float,
) -> pd.DataFrame:
    """Return the training samples whose score on a test sample is told from 0, by each method.

    Args:
        samples: Samples (T, n_train, n_test), by method.
        p: The t-test's p-values (n_train, n_test), by method.
        q: The least false discovery rates that keep each pair, (n_train, n_test), by method.
        position: Position of the test sample.
        train_idx: Index of each training sample, (n_train,).
        rate: False discovery rate, over all pairs of a method.

    Returns:
        A row for each method and training sample, from what helps most to what harms most:
        `method`, `train_index`, `effect` ("helps" or "harms"), `mean` and `std` in helpful sign,
        `p`, `q` and `sign`, as in the table of pairs.
    """
    frames = []
    for method, values in samples.items():
        own = METHODS[method].helpful_sign * values[:, :, position]
        mean, std = moments(own)
        chosen = np.flatnonzero(q[method][:, position] <= rate)
        chosen = chosen[np.argsort(-mean[chosen], kind="stable")]
        mean, std = mean[chosen], std[chosen]
        frames.append(
            pd.DataFrame(
                {
                    "method": method,
                    "train_index": train_idx[chosen],
                    "effect": np.where(mean > 0, "helps", "harms"),
                    "mean": mean,
                    "std": std,
                    "p": p[method][chosen, position],
                    "q": q[method][chosen, position],
                    "sign": sign_agreement(own[:, chosen]),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)
