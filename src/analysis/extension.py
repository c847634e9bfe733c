"""Few draws held against many: which of the answers that few seeds give do more seeds confirm?

The T seeds are dealt, in their order, into T // n disjoint groups of n. Each group answers as if it
were all there is, and is held against the other T − n seeds, which it has nothing in common with.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from src.analysis.draws_needed import draws_for_power
from src.analysis.significance import false_discoveries_controlled
from src.analysis.stats import correlation, moments, pvalues

FEW = 10  # as in the paper


def few_of(n_draws: int) -> int:
    """Return how many of T seeds are few: ten, or half of them where they are less than twenty."""
    return min(FEW, n_draws // 2)


def compare_few_with_many(samples: np.ndarray, few: int, alpha: float) -> pd.DataFrame:
    """Return what each group of a few seeds says, beside what the others say.

    Args:
        samples: Samples (T, n_train, n_test).
        few: n, at least 2 and at most T / 2.
        alpha: Significance level of the t-test, and false discovery rate.

    Returns:
        A row for each group, counted from 1, and one `all`, of all T seeds. `draws`; `mean_pvalue`,
        `significant` and `discoveries` (Benjamini and Hochberg), means over pairs; `draws_needed`,
        the median over pairs of the seeds for 80 % power at the observed effect. Of groups alone:
        `rank_correlation`, Spearman's of the means over pairs with those of the other seeds;
        `sign_kept`, the share of the significant pairs whose mean has the sign of the other seeds'
        mean, `sign_kept_discoveries`, that of the discoveries, `sign_kept_rest`, that of the pairs
        that are not significant; `significant_again`, the share of the significant pairs that are
        so with as many other seeds, the next group's. NaN where there are no such pairs.

    Raises:
        ValueError: `few` is not in its limits.
    """
    n_draws = len(samples)
    if not 2 <= few <= n_draws // 2:
        raise ValueError(f"{few} of {n_draws} seeds are not from 2 to half of them")
    groups = np.arange(n_draws // few * few).reshape(-1, few)
    significant = [pvalues(samples[group]) < alpha for group in groups]
    rows: dict[object, dict[str, float]] = {}
    for k, group in enumerate(groups):
        of_group, others = samples[group], np.delete(samples, group, axis=0).mean(axis=0)
        kept = np.sign(of_group.mean(axis=0)) == np.sign(others)
        found = false_discoveries_controlled(pvalues(of_group), alpha)
        rows[k + 1] = _answers(of_group, alpha) | {
            "rank_correlation": correlation(of_group.mean(axis=0), others, "spearman"),
            "sign_kept": _share(kept, significant[k]),
            "sign_kept_discoveries": _share(kept, found),
            "sign_kept_rest": _share(kept, ~significant[k]),
            "significant_again": _share(significant[(k + 1) % len(groups)], significant[k]),
        }
    rows["all"] = _answers(samples, alpha)
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("group")


def _answers(samples: np.ndarray, alpha: float) -> dict[str, float]:
    """Return what some seeds say of all pairs together."""
    p, (mean, std) = pvalues(samples), moments(samples)
    with np.errstate(divide="ignore", invalid="ignore"):
        effects = np.nan_to_num(np.abs(mean) / std, nan=0.0, posinf=np.inf)
    return {
        "draws": len(samples),
        "mean_pvalue": p.mean(),
        "significant": (p < alpha).mean(),
        "discoveries": false_discoveries_controlled(p, alpha).mean(),
        "draws_needed": np.quantile(draws_for_power(effects, alpha), 0.5, method="inverted_cdf"),
    }


def _share(of: np.ndarray, among: np.ndarray) -> float:
    return of[among].mean() if among.any() else np.nan
