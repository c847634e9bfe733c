"""How far an estimator's scores agree with leave-one-out's, as distributions over seeds.

All scores are first brought to one sign, positive where the training sample helps, and to one
scale: divided by the method's root mean square over all pairs and seeds, so that 0 stays 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from src.analysis.stats import COEFFICIENTS, correlation, kappa, pvalues
from src.experiments import METHODS

ANSWERS = ("harmful", "not significant", "helpful")


def standardised(samples: np.ndarray, method: str) -> np.ndarray:
    """Return samples (T, ...) with the sign 'positive helps' and a root mean square of 1."""
    size = np.sqrt(np.mean(samples**2))
    return METHODS[method].helpful_sign * samples / (size if size > 0 else 1.0)


def wasserstein(a: np.ndarray, b: np.ndarray, order: int = 1) -> np.ndarray:
    """Return the Wasserstein distance (...) between the samples (T, ...) of every pair.

    It is that of the empirical distributions, between which sorted samples are the best plan.

    Args:
        a: Samples.
        b: Samples of the other.
        order: 1 or 2: of the distances that are moved, the mean or the root mean square.
    """
    moved = np.abs(np.sort(a, axis=0) - np.sort(b, axis=0))
    return (moved**order).mean(axis=0) ** (1 / order)


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return 1 − sup |F_a − F_b| (...) over the samples (T, ...) of every pair.

    F are the empirical distribution functions; the supremum is Kolmogorov and Smirnov's distance.
    For densities that cross once it is their common area: 1 for equal, 0 for disjoint samples.
    """
    n_draws = len(a)
    both = np.concatenate([a, b])
    order = np.argsort(both, axis=0, kind="stable")
    ranked = np.take_along_axis(both, order, axis=0)
    gap = np.abs(np.cumsum(np.where(order < n_draws, 1, -1), axis=0)) / n_draws
    # Between equal values neither distribution function has its value yet.
    gap[:-1][ranked[:-1] == ranked[1:]] = 0
    return 1 - gap.max(axis=0)


def answers(samples: np.ndarray, alpha: float) -> np.ndarray:
    """Return what each pair's test says, an index of ANSWERS, int64 (...).

    Args:
        samples: Samples (T, ...) in helpful sign.
        alpha: Significance level of the t-test.
    """
    significant = pvalues(samples) < alpha
    return 1 + np.where(significant, np.sign(samples.mean(axis=0)), 0).astype(np.int64)


@dataclass(frozen=True)
class Agreement:
    """Leave-one-out against one estimator, over the same T seeds.

    Attributes:
        wasserstein: Distance of every pair, (n_train, n_test), in units of the root mean square.
        wasserstein_same: The same after the pair's 2T samples were dealt out at random: what two
            methods with one common distribution would show.
        overlap: Overlap of every pair, (n_train, n_test).
        overlap_same: After dealing out at random.
        confusion: Fraction of pairs, (3, 3): rows are leave-one-out's ANSWERS, columns the
            estimator's.
        kappa: Cohen's kappa of the two answers, see `src.analysis.stats.kappa`.
        of_seeds: Correlation over pairs of single seeds, (T,), by coefficient.
        of_means: Correlation over pairs of the means over seeds, by coefficient.
    """

    wasserstein: np.ndarray
    wasserstein_same: np.ndarray
    overlap: np.ndarray
    overlap_same: np.ndarray
    confusion: np.ndarray
    kappa: float
    of_seeds: dict[str, np.ndarray]
    of_means: dict[str, float]


def agreement(loo: np.ndarray, estimator: np.ndarray, method: str, alpha: float) -> Agreement:
    """Compare an estimator with leave-one-out.

    Args:
        loo: Leave-one-out's samples (T, n_train, n_test).
        estimator: The estimator's, of the same seeds.
        method: The estimator.
        alpha: Significance level of the t-test.
    """
    a, b = standardised(loo, "loo"), standardised(estimator, method)
    dealt_a, dealt_b = dealt_out(a, b)
    said_a, said_b = answers(a, alpha), answers(b, alpha)
    # Counted first: thousands of equal fractions add up to a little more or less than 1.
    confusion = np.bincount((3 * said_a + said_b).ravel(), minlength=9).reshape(3, 3) / said_a.size
    return Agreement(
        wasserstein=wasserstein(a, b),
        wasserstein_same=wasserstein(dealt_a, dealt_b),
        overlap=overlap(a, b),
        overlap_same=overlap(dealt_a, dealt_b),
        confusion=confusion,
        kappa=kappa(said_a, said_b),
        of_seeds={
            c: np.array([correlation(x, y, c) for x, y in zip(a, b, strict=True)])
            for c in COEFFICIENTS
        },
        of_means={c: correlation(a.mean(axis=0), b.mean(axis=0), c) for c in COEFFICIENTS},
    )


def dealt_out(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the samples of both methods dealt out to two hands at random, pair by pair."""
    both = np.random.default_rng(0).permuted(np.concatenate([a, b]), axis=0)
    return both[: len(a)], both[len(a) :]


def agreements(samples: dict[str, np.ndarray], alpha: float) -> dict[str, Agreement]:
    """Compare every estimator with leave-one-out.

    Args:
        samples: Samples (T, n_train, n_test), by method, all of the same seeds.
        alpha: Significance level of the t-test.

    Returns:
        By estimator; empty without leave-one-out.
    """
    if "loo" not in samples:
        return {}
    return {
        method: agreement(samples["loo"], values, method, alpha)
        for method, values in samples.items()
        if method != "loo"
    }


def agreement_table(by_method: dict[str, Agreement]) -> pd.DataFrame:
    """Return the numbers of every estimator, a row for each."""
    rows = {}
    for method, a in by_method.items():
        both_significant = a.confusion[np.ix_([0, 2], [0, 2])]
        row = {
            "draws": len(a.of_seeds[COEFFICIENTS[0]]),
            "wasserstein": np.median(a.wasserstein),
            "wasserstein_same": np.median(a.wasserstein_same),
            "overlap": a.overlap.mean(),
            "overlap_same": a.overlap_same.mean(),
            "same_answer": np.trace(a.confusion),
            "kappa": a.kappa,
            "opposite_significant": both_significant[0, 1] + both_significant[1, 0],
        }
        for c in COEFFICIENTS:
            row[f"{c}_of_seeds"] = a.of_seeds[c].mean()
            row[f"{c}_of_means"] = a.of_means[c]
        rows[method] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def confusion_table(by_method: dict[str, Agreement]) -> pd.DataFrame:
    """Return the confusion tables of all estimators: three rows each, in fractions of pairs."""
    return pd.concat(
        {
            method: pd.DataFrame(
                a.confusion,
                pd.Index(ANSWERS, name="loo says"),
                pd.Index([f"estimator says {answer}" for answer in ANSWERS]),
            )
            for method, a in by_method.items()
        },
        names=["method"],
    )
