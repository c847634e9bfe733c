"""The report of `run_correlations.py` on one experiment: how far the methods agree."""

from __future__ import annotations

import pandas as pd

from src.analysis.agreement import (
    Agreement,
    agreement_table,
    confusion_table,
)
from src.analysis.bootstrap import LEVEL, correlation_intervals
from src.plots.agreement import confusions, distances, seeds_against_means
from src.plots.correlations import correlation_heatmaps
from src.plots.style import METHOD_LABELS
from src.report import Report
from src.reports.reading import of_methods
from src.results import ExperimentScores, correlation_table, pair_statistics
from src.stats import correlation_matrices


def correlate(
    scores: ExperimentScores,
) -> tuple[dict[tuple[str, str], pd.DataFrame], pd.DataFrame]:
    """Return the correlations between methods, and as a long table with confidence limits.

    The first are frames of method by method, by (statistic, coefficient).
    """
    samples = scores.samples()
    matrices = correlation_matrices(pair_statistics(samples))
    return matrices, correlation_table(matrices, correlation_intervals(samples, matrices))


def report_correlations(
    report: Report, matrices: dict[tuple[str, str], pd.DataFrame], table: pd.DataFrame
) -> None:
    """Write the correlations between methods.

    Args:
        report: Takes the tables and figures.
        matrices: The correlations, by (statistic, coefficient).
        table: The same as a long table with confidence limits.
    """
    report.figure(
        "correlations",
        correlation_heatmaps(matrices),
        "Which methods agree",
        _reading_of_correlations(table),
    )
    report.table(
        "correlations",
        table,
        "Correlations between methods over pairs",
        f"With {LEVEL:.0%} confidence intervals from resampled seeds; `loo`, `gd` and `gc` are "
        "positive where a train sample helps, `ats` and `if` negative.",
        index=False,
    )


def _reading_of_correlations(table: pd.DataFrame) -> str:
    means = table.query("statistic == 'mean' and coefficient == 'spearman'").dropna()
    if means.empty:
        return "No two methods have scores that vary over pairs."
    order = means["value"].abs()
    most, least = means.loc[order.idxmax()], means.loc[order.idxmin()]
    return (
        f"Which pairs have large mean scores is ranked most alike by {_pair(most)} "
        f"({most.value:.2f}, Spearman) and least alike by {_pair(least)} ({least.value:.2f})."
    )


def _pair(row: pd.Series) -> str:
    return f"{METHOD_LABELS[row.method_a]} and {METHOD_LABELS[row.method_b]}"


def report_agreement(report: Report, by_method: dict[str, Agreement]) -> None:
    """Write how far the estimators agree with leave-one-out as distributions over seeds.

    Args:
        report: Takes the tables and figures.
        by_method: The agreements, by estimator; none without leave-one-out.
    """
    if not by_method:
        return
    table = agreement_table(by_method)
    closer = table["wasserstein"] < table["wasserstein_same"]
    report.table(
        "agreement",
        table,
        "Agreement with leave-one-out, as distributions over seeds",
        "Scores in helpful sign and standard scale. `..._same` is what two samples of one "
        "distribution would show; "
        + (
            "no estimator comes as near."
            if not closer.any()
            else f"as near come {of_methods(table['wasserstein'][closer], '.2f')}."
        ),
    )
    report.figure(
        "agreement_distances",
        distances(by_method),
        "Distance and overlap between the draws of a pair",
        f"The samples of a pair overlap by {of_methods(table['overlap'], '.2f')} on average, where "
        f"equal distributions would by {table['overlap_same'].mean():.2f} (grey).",
    )
    report.figure(
        "agreement_confusions",
        confusions(by_method),
        "Do both call a pair significant, and in the same direction?",
        f"The same answer for {of_methods(table['same_answer'], '.0%')} of pairs; both significant "
        f"in opposite directions for {of_methods(table['opposite_significant'], '.0%')}.",
    )
    report.table(
        "agreement_confusions",
        confusion_table(by_method),
        "Answers of leave-one-out and of each estimator",
        "Fractions of pairs; 'helpful' and 'harmful' are significant.",
    )
    report.figure(
        "agreement_of_seeds",
        seeds_against_means(by_method),
        "Correlation with leave-one-out, single seeds against means",
        "Means over seeds correlate by "
        f"{of_methods(table['spearman_of_means'], '.2f')} (Spearman), single seeds on average by "
        f"{of_methods(table['spearman_of_seeds'], '.2f')}.",
    )
