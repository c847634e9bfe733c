"""What one experiment's scores come down to, for comparisons between experiments."""

from __future__ import annotations

import numpy as np
import pandas as pd

from src.analysis.bootstrap import Estimate
from src.analysis.significance import false_discoveries_controlled
from src.analysis.stats import TESTS, pvalues
from src.experiments import Experiment


def identity(experiment: Experiment) -> dict[str, object]:
    """Return the parts of an experiment's name, which are the row labels of comparisons."""
    return {
        "task": experiment.task.name + ("_noisy" if experiment.label_noise else ""),
        "model": experiment.model.name,
        "n_per_class": "all" if experiment.n_per_class is None else experiment.n_per_class,
        "randomness": experiment.randomness or "both",
    }


def pvalue_summary(
    samples: dict[str, np.ndarray], means: dict[str, dict[str, Estimate]], alpha: float
) -> pd.DataFrame:
    """Return the numbers of each method that comparisons of p-values take.

    Args:
        samples: Samples (T, n_train, n_test), by method.
        means: What `pair_means` returns for all tests, by method.
        alpha: Significance level, and false discovery rate.

    Returns:
        A row for each method: `draws`, T; the means with their confidence limits (`..._low`,
        `..._high`); by test `below_alpha_<test>`, the fraction of pairs; and
        `discoveries_ttest`, the fraction that Benjamini and Hochberg's procedure keeps.
    """
    rows = {}
    for method, values in samples.items():
        row: dict[str, float] = {"draws": len(values)}
        for name, estimate in means[method].items():
            low, high = estimate.interval(0.0, 1.0 if "pvalue" in name else np.inf)
            row |= {name: estimate.value, f"{name}_low": low, f"{name}_high": high}
        for test in TESTS:
            row[f"below_alpha_{test}"] = (pvalues(values, test) < alpha).mean()
        found = false_discoveries_controlled(pvalues(values), alpha)
        rows[method] = row | {"discoveries_ttest": found.mean()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")
