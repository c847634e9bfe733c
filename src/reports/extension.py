"""What many draws say of the answers that few of them give."""

from __future__ import annotations

import pandas as pd

from src.plots.extension import few_against_many
from src.reports.draws import DrawsReport
from src.reports.reading import decimals, of_methods, percent


def report_few_and_many(report: DrawsReport, by_method: dict[str, pd.DataFrame], few: int) -> None:
    """Write how answers of a few seeds hold against the other seeds.

    Args:
        report: Takes the table and the figure.
        by_method: What `compare_few_with_many` returns of each method.
        few: How many seeds are a few.
    """
    means = pd.DataFrame(
        {m: rows.drop(index="all").mean(numeric_only=True) for m, rows in by_method.items()}
    ).T
    whole = pd.DataFrame({m: rows.loc["all"] for m, rows in by_method.items()}).T
    n_groups, n_draws = len(next(iter(by_method.values()))) - 1, int(whole["draws"].iloc[0])
    report.figure(
        "few_against_many",
        few_against_many(by_method),
        f"What groups of {few} seeds say, and all {n_draws}",
        f"On average over {n_groups} groups of {few} seeds, of the pairs that they call "
        f"significant {of_methods(means['sign_kept'], percent)} have the sign that the mean over "
        f"the other {n_draws - few} seeds has; of those that they do not, "
        f"{of_methods(means['sign_kept_rest'], percent)}.",
    )
    report.table(
        "few_against_many",
        pd.concat(by_method, names=["method"]).rename(columns={"draws": "seeds"}),
        f"Answers of groups of {few} seeds, and of all",
        f"Significant pairs: {of_methods(means['significant'], percent)} by {few} seeds, "
        f"{of_methods(whole['significant'], percent)} by all {n_draws}. Ranks of the means over a "
        f"group and over the other seeds correlate by "
        f"{of_methods(means['rank_correlation'], decimals)}. `draws_needed` is the median over "
        "pairs of the seeds for 80% power at the effect that these seeds show.",
    )
