"""How many draws an answer takes: stability by the number of seeds and checkpoints, and power."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import chain

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import chdtr, ncfdtr
from scipy.stats import t as student_t

from src.analysis.rows import some_pairs
from src.analysis.stats import correlation, draw_samples, moments, pvalues, ranks

POWER = 0.8
MOST_DRAWS = 10_000  # a pair that needs more is counted as one that needs these
MOST_ROTATIONS = 10
_STEPS = (1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)  # from one power of ten to the next


def numbers_of_draws(most: int) -> list[int]:
    """Return the numbers of seeds that tables and curves go through, from 2 to the most.

    All up to ten, and ten round ones from each power of ten to the next.
    """
    powers = (10**k for k in range(1, len(str(most))))
    steps = [int(step * power) for power in powers for step in _STEPS]
    return [n for n in (*range(2, 11), *steps) if n < most] + [most]


def rotations(n_draws: int, most: int = MOST_ROTATIONS) -> tuple[np.ndarray, list[int]]:
    """Return one random order of T seeds, and how far it is rotated for each group of seeds.

    Of the first seeds of each rotation; up to `most` seeds every seed counts alike.
    """
    n_rotations = min(n_draws, most)
    shifts = [k * n_draws // n_rotations for k in range(n_rotations)]
    return np.random.default_rng(0).permutation(n_draws), shifts


def stability(scores: np.ndarray, alpha: float) -> pd.DataFrame:
    """Return how p-values and ranks of pairs depend on the number of seeds and checkpoints.

    Args:
        scores: Scores (T, C, n_train, n_test) of one method.
        alpha: Significance level.

    Returns:
        A row for each of `numbers_of_draws` and of last checkpoints from 1 to C, with
        `mean_pvalue` and `significant`, the fraction of pairs below alpha, by the t-test, and
        `rank_correlation`: Spearman's, over pairs, between the mean scores of two disjoint halves
        of the seeds (of an odd number, one half has one more). Each is the mean over the first
        seeds of the rotations of one random order, ten at most. Up to ten seeds these are all, and
        every seed counts alike. Pairs are MOST_PAIRS random ones where there are more.
    """
    scores = some_pairs(scores, 2)
    n_draws, n_checkpoints = scores.shape[:2]
    order, shifts = rotations(n_draws)

    def with_last(k: int) -> list[dict[str, float]]:
        samples = draw_samples(scores, k)
        # The ranks of the mean scores over seeds that follow each other in the order, by the first
        # one's position and their number: a half of several numbers of seeds.
        ranked: dict[tuple[int, int], np.ndarray] = {}

        def ranked_mean(shift: int, size: int) -> np.ndarray:
            key = shift % n_draws, size
            if key not in ranked:
                seeds = np.roll(order, -shift)[:size]
                ranked[key] = ranks(samples[seeds].mean(axis=0).ravel())
            return ranked[key]

        rows = []
        for n in numbers_of_draws(n_draws):
            subsets = shifts if n < n_draws else shifts[:1]
            p = [pvalues(samples[np.roll(order, -shift)[:n]]) for shift in subsets]
            half = n // 2
            for key in [key for key in ranked if key[1] < half]:
                del ranked[key]  # of many seeds, all of them would fill the memory
            halves = [
                correlation(
                    ranked_mean(shift, half), ranked_mean(shift + half, n - half), "pearson"
                )
                for shift in shifts
            ]
            rows.append(
                {
                    "draws": n,
                    "checkpoints": k,
                    "mean_pvalue": np.mean([values.mean() for values in p]),
                    "significant": np.mean([(values < alpha).mean() for values in p]),
                    "rank_correlation": np.mean(halves),
                }
            )
        return rows

    with ThreadPoolExecutor() as pool:  # numpy and scipy let other threads run
        rows = [*chain(*pool.map(with_last, range(1, n_checkpoints + 1)))]
    return pd.DataFrame(rows)


def power(effect: float, n_draws: int, alpha: float) -> float:
    """Return the power of the two-sided one-sample t-test.

    Args:
        effect: |mean| / standard deviation of the scores.
        n_draws: T, the number of samples.
        alpha: Significance level.
    """
    critical = _critical_value(n_draws, alpha)
    if n_draws * effect**2 > 1e8:  # the mean is certain, only the standard deviation is not
        return float(chdtr(n_draws - 1, (n_draws - 1) * n_draws * (effect / critical) ** 2))
    # The square of a noncentral t is a noncentral F, whose distribution scipy computes more safely.
    return float(1 - ncfdtr(1, n_draws - 1, n_draws * effect**2, critical**2))


@cache
def _critical_value(n_draws: int, alpha: float) -> float:
    """Return the |t| from which the test finds a pair; far slower than all the rest of `power`."""
    return float(student_t.isf(alpha / 2, n_draws - 1))


def draws_for_power(effects: np.ndarray, alpha: float) -> np.ndarray:
    """Return the number of seeds with which the t-test finds each pair with a chance of POWER.

    Args:
        effects: Effect sizes |mean| / std of pairs, (...).
        alpha: Significance level.

    Returns:
        Numbers of seeds, int64 (...): the least up to 50; beyond, the least of a ladder whose steps
        are about 5 %; at most MOST_DRAWS.
    """
    ladder = [*range(2, 51)]
    while ladder[-1] < MOST_DRAWS:
        ladder.append(min(MOST_DRAWS, int(ladder[-1] * 1.05) + 1))
    least_effects = [_least_effect(n, alpha) for n in ladder[:-1]]  # fall as n grows
    position = np.searchsorted(-np.array(least_effects), -effects.ravel(), side="left")
    return np.array(ladder)[position].reshape(effects.shape)


@cache  # asked for again by each method
def _least_effect(n_draws: int, alpha: float) -> float:
    """Return the effect size that T seeds find with a chance of POWER; 0 if they find noise so."""
    if alpha >= POWER:
        return 0.0
    enough = 1 / np.sqrt(n_draws)
    while power(enough, n_draws, alpha) < POWER:
        enough *= 2
    return brentq(lambda effect: power(effect, n_draws, alpha) - POWER, 0, enough)


def power_table(samples: dict[str, np.ndarray], alpha: float) -> pd.DataFrame:
    """Return how many seeds the t-test needs, at the effect sizes that were observed.

    An observed effect size is too large on average, most so where there is none: the last row says
    what pure noise would show.

    Args:
        samples: Samples (T, n_train, n_test), by method.
        alpha: Significance level.

    Returns:
        A row for each method, and one for noise with as many samples as the first method has: the
        median effect size, the quartiles of the number of seeds over pairs, and the share of pairs
        that 10 and 50 seeds suffice for.
    """
    first = next(iter(samples.values()))
    noise = np.random.default_rng(0).normal(size=(len(first), 10_000))
    rows = {}
    for method, values in {**samples, "noise": noise}.items():
        mean, std = moments(values)
        with np.errstate(divide="ignore", invalid="ignore"):
            effects = np.nan_to_num(np.abs(mean) / std, nan=0.0, posinf=np.inf)
        needed = draws_for_power(effects, alpha)
        # Numbers that suffice for some pair: between two there is none that a quarter needs.
        low, middle, high = np.quantile(needed, [0.25, 0.5, 0.75], method="inverted_cdf")
        rows[method] = {
            "median_effect": np.median(effects),
            "draws_for_25%": int(low),
            "draws_for_50%": int(middle),
            "draws_for_75%": int(high),
            "found_by_10": (needed <= 10).mean(),
            "found_by_50": (needed <= 50).mean(),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")
