"""What one experiment's scores come down to, for comparisons between experiments."""

from __future__ import annotations

import numpy as np
import pandas as pd

from src.analysis.bootstrap import interval, mean_pvalue_errors
from src.analysis.significance import false_discoveries_controlled
from src.experiments import Experiment
from src.stats import TESTS, moments, pvalues

# Of pairs: the p-value, the standard deviation and the size of the mean score.
PAIR_NUMBERS = ("pvalue", "std", "abs_mean")
QUARTILES = {"low": 0.25, "middle": 0.5, "high": 0.75}


def identity(experiment: Experiment) -> dict[str, object]:
    """Return the parts of an experiment's name, which are the row labels of comparisons."""
    return {
        "task": experiment.task.name,
        "model": experiment.model.name,
        "n_per_class": experiment.n_per_class,
        "randomness": experiment.randomness or "both",
    }


def pvalue_summary(samples: dict[str, np.ndarray], alpha: float) -> pd.DataFrame:
    """Return the numbers of each method that comparisons of p-values take.

    Args:
        samples: Samples (T, n_train, n_test), by method.
        alpha: Significance level, and false discovery rate.

    Returns:
        A row for each method. By test, `mean_pvalue_<test>` with its confidence limits (`..._low`,
        `..._high`), `significant_<test>`, and `discoveries_<test>`, the fraction that Benjamini
        and Hochberg's procedure keeps; and the quartiles over pairs (`..._low`, `..._middle`,
        `..._high`) of PAIR_NUMBERS, the p-value by the t-test.
    """
    rows = {}
    for method, values in samples.items():
        row: dict[str, float] = {"draws": len(values)}
        errors = mean_pvalue_errors(values, TESTS)
        for test in TESTS:
            p = pvalues(values, test)
            low, high = interval(p.mean(), errors[test], 0.0, 1.0)
            row |= {
                f"mean_pvalue_{test}": p.mean(),
                f"mean_pvalue_{test}_low": low,
                f"mean_pvalue_{test}_high": high,
                f"significant_{test}": (p < alpha).mean(),
                f"discoveries_{test}": false_discoveries_controlled(p, alpha).mean(),
            }
        mean, std = moments(values)
        for name, numbers in zip(PAIR_NUMBERS, (pvalues(values), std, np.abs(mean)), strict=True):
            for label, quantile in QUARTILES.items():
                row[f"{name}_{label}"] = np.quantile(numbers, quantile)
        rows[method] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")
