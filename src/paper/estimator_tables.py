"""The tables of RESULTS.md on how estimators agree."""

from __future__ import annotations

import numpy as np
import pandas as pd

from src.analysis.stats import COEFFICIENTS
from src.paper.measured import Measured
from src.paper.table_cells import halves_of, interval, percent
from src.plots.style import METHOD_LABELS
from src.reports.reading import words_of_draws


def estimators(measured: list[Measured]) -> pd.DataFrame:
    """Return, for every method of one experiment or several, how reliable and like LOO it is."""
    rows = []
    for one in measured:
        components = one.table("variance").set_index("method")
        needed = one.table("draws_needed").set_index("method")
        agreement = one.table("agreement").set_index("method")
        for method, row in one.pvalues.loc[one.n_draws].iterrows():
            low, high = row["mean_pvalue_ttest_low"], row["mean_pvalue_ttest_high"]
            with_loo = [""] * 2
            if method in agreement.index:
                names = "spearman_of_seeds", "spearman_of_means"
                with_loo = [f"{agreement.loc[method, name]:.2f}" for name in names]
            rows.append(
                {
                    "experiment": f"`{one.name}`",
                    "T": one.n_draws,
                    "method": METHOD_LABELS[method],
                    "mean p-value": f"{row['mean_pvalue_ttest']:.3f} {interval(low, high)}",
                    "p < 0.05 → FDR 5 %": f"{percent(row['below_alpha_ttest'])} → "
                    f"{percent(row['discoveries_ttest'])} %",
                    "between seeds, %": percent(components.loc[method, "share_between"]),
                    "seeds for 80 % power": words_of_draws(needed.loc[method, "draws_for_50%"]),
                    "two halves": halves_of(one, method),
                    "with LOO of the same seed": with_loo[0],
                    "of the means": with_loo[1],
                }
            )
    return pd.DataFrame(rows)


def with_loo(measured: list[Measured]) -> pd.DataFrame:
    """Return how each method correlates with leave-one-out, the closest of the same training first.

    Scores are means over checkpoints, turned so that above 0 helps. Those of one training are
    correlated with leave-one-out of the same seed, and coefficients averaged over seeds; beside
    them stand the coefficients of the means over seeds.
    """
    rows = []
    for one in measured:
        table = one.table("agreement")
        table = table.sort_values("spearman_of_seeds", ascending=False, kind="stable")
        for row in table.itertuples():
            rows.append(
                {
                    "experiment": f"`{one.name}`",
                    "T": row.draws,
                    "method": METHOD_LABELS[row.method],
                    "Pearson, same training": f"{row.pearson_of_seeds:.2f}",
                    "Spearman, same training": f"{row.spearman_of_seeds:.2f}",
                    "Pearson of the means": f"{row.pearson_of_means:.2f}",
                    "Spearman of the means": f"{row.spearman_of_means:.2f}",
                }
            )
    return pd.DataFrame(rows)


def clusters(measured: list[Measured]) -> pd.DataFrame:
    """Return how the mean scores correlate (Spearman, in size), and LOO with itself."""
    rows = []
    for one in measured:
        pairs = _of_means(one, "spearman")

        def between(group: tuple[str, ...], other: tuple[str, ...], found: dict = pairs) -> str:
            values = [abs(found[frozenset((a, b))]) for a in group for b in other if a != b]
            low, high = f"{np.nanmin(values):.2f}", f"{np.nanmax(values):.2f}"
            return low if low == high else f"{low} to {high}"

        rows.append(
            {
                "experiment": f"`{one.name}`",
                "T": one.n_draws,
                "GD with IF": between(("gd",), ("if",)),
                "GC with GD, IF": between(("gc",), ("gd", "if")),
                "ATS with IF, GD, GC": between(("ats",), ("if", "gd", "gc")),
                "LOO with the others": between(("loo",), ("ats", "if", "gd", "gc")),
                "two halves of LOO's seeds": halves_of(one, "loo"),
            }
        )
    return pd.DataFrame(rows)


def influence(measured: list[Measured]) -> pd.DataFrame:
    """Return how influence functions' mean scores correlate with grad-dot's and leave-one-out's."""
    rows = []
    for one in measured:
        cells = {
            f"{METHOD_LABELS[a]} and {METHOD_LABELS[b]}: {coefficient.capitalize()}": (
                f"{_of_means(one, coefficient)[frozenset((a, b))]:.{digits}f}"
            )
            for a, b, digits in (("if", "gd", 5), ("loo", "if", 2))
            for coefficient in COEFFICIENTS
        }
        rows.append({"experiment": f"`{one.name}`", "T": one.n_draws, **cells})
    return pd.DataFrame(rows)


def _of_means(one: Measured, coefficient: str) -> dict[frozenset[str], float]:
    """Return the correlations of the mean scores, by pair of methods."""
    table = one.table("correlations").query("statistic == 'mean' and coefficient == @coefficient")
    return {frozenset((row.method_a, row.method_b)): row.value for row in table.itertuples()}
