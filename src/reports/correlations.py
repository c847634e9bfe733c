"""The report of `run_correlations.py` on one experiment: how far the methods agree."""

from __future__ import annotations

from collections.abc import Collection
from itertools import combinations

import numpy as np
import pandas as pd

from src.analysis.agreement import (
    agreement_table,
    agreements,
    confusion_table,
)
from src.analysis.bootstrap import correlation_intervals
from src.analysis.scores import ExperimentScores
from src.analysis.stats import correlation_matrices, method_linkage, moments, pvalues
from src.experiments import METHODS
from src.plots.agreement import confusions, distances, seeds_against_means
from src.plots.correlations import correlation_heatmaps, method_tree
from src.plots.style import METHOD_LABELS
from src.reports.draws import DrawsReport
from src.reports.reading import (
    decimals,
    kappa_text,
    labels,
    listed,
    of_methods,
    percent,
    reading_of_left_out,
    words_of_intervals,
)
from src.reports.report import Report

SAME_HEIGHT = 1e-9  # of two joints of the tree, as rounding of correlations leaves it


def correlations_of(
    samples: dict[str, np.ndarray],
) -> tuple[dict[tuple[str, str], pd.DataFrame], pd.DataFrame]:
    """Return the correlations between methods over pairs.

    Args:
        samples: Samples (T, n_train, n_test), by method.

    Returns:
        The correlations, by (statistic, coefficient), and as a long table with confidence limits.
    """
    matrices = correlation_matrices(pair_statistics(samples))
    return matrices, correlation_table(matrices, correlation_intervals(samples, matrices))


def pair_statistics(samples: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Return mean, standard deviation and the t-test's p-value of every pair, by method."""
    statistics = {}
    for method, values in samples.items():
        mean, std = moments(values)
        statistics[method] = {"mean": mean, "std": std, "pvalue": pvalues(values)}
    return statistics


def correlation_table(
    matrices: dict[tuple[str, str], pd.DataFrame],
    intervals: dict[tuple[str, str], tuple[pd.DataFrame, pd.DataFrame]],
) -> pd.DataFrame:
    """Return the correlations and their confidence limits as a long table, each pair once.

    Args:
        matrices: Frames of method by method, by (statistic, coefficient).
        intervals: Frames of lower and of upper limits, by the same.
    """
    return pd.DataFrame(
        [
            (*key, a, b, *(frame.loc[a, b] for frame in (matrix, *intervals[key])))
            for key, matrix in matrices.items()
            for a, b in combinations(matrix.columns, 2)
        ],
        columns=["statistic", "coefficient", "method_a", "method_b", "value", "low", "high"],
    )


def report_correlations(
    report: Report, scores: ExperimentScores
) -> dict[tuple[str, str], pd.DataFrame]:
    """Write the correlations between methods.

    Args:
        report: Takes the tables and figures.
        scores: The scores.

    Returns:
        The correlations, by (statistic, coefficient).
    """
    report = DrawsReport(report, scores.n_draws, [scores.rows])
    matrices, table = correlations_of(scores.samples())
    report.figure(
        "correlations",
        correlation_heatmaps(matrices),
        "Which methods agree",
        _reading_of_correlations(table),
    )
    _report_clusters(report, matrices["mean", "spearman"])
    report.table(
        "correlations",
        table,
        "Correlations between methods over pairs",
        f"{words_of_intervals(scores.n_draws)}. {_words_of_signs(scores.scores)} "
        f"{reading_of_left_out(scores)}".strip(),
        index=False,
    )
    return matrices


def _words_of_signs(methods: Collection[str]) -> str:
    signs = {"positive": 1, "negative": -1}
    groups = {w: [m for m in methods if METHODS[m].helpful_sign == s] for w, s in signs.items()}
    parts = [f"scores of {labels(own)} are {word}" for word, own in groups.items() if own]
    return f"Where a train sample helps, {listed(parts)}."


def _report_clusters(report: DrawsReport, spearman: pd.DataFrame) -> None:
    """Write which methods are alike, of three at least whose scores vary over pairs.

    Args:
        report: Takes the figure.
        spearman: Correlations of the mean scores, method by method.
    """
    varies = [m for m in spearman.columns if np.isfinite(spearman.loc[m, m])]
    if len(varies) < 3:
        return
    tree, (one, other) = method_linkage(spearman.loc[varies, varies])
    heights = tree[:, 2]
    if heights[-1] - heights[-2] > SAME_HEIGHT:
        reading = f"Joined last are {labels(one)}, and {labels(other)}"
    else:
        reading = "Which are joined last cannot be told: several are as far apart"
    report.figure(
        "clusters",
        method_tree(tree, varies),
        "Clusters of methods",
        f"{reading} (average linkage; the distance of two methods is 1 − |Spearman| of their mean "
        "scores over pairs).",
    )


def _reading_of_correlations(table: pd.DataFrame) -> str:
    means = table.query("statistic == 'mean' and coefficient == 'spearman'")
    means = means.dropna(subset="value")
    if means.empty:
        return "No two methods have scores that vary over pairs."
    helpful = {name: method.helpful_sign for name, method in METHODS.items()}
    signs = means["method_a"].map(helpful) * means["method_b"].map(helpful)
    alike = means["value"] * signs
    pairs = pd.Series(
        [
            f"{METHOD_LABELS[a]} with {METHOD_LABELS[b]}"
            for a, b in means[["method_a", "method_b"]].to_numpy()
        ],
        means.index,
    )
    most, least = (
        f"{listed(pairs[alike == bound])} ({decimals(bound)})"
        for bound in (alike.max(), alike.min())
    )
    reading = f"By mean scores, with the sign that is positive where a sample helps, {most} rank "
    if alike.min() == alike.max():
        return reading + "pairs as alike as this Spearman correlation says."
    return reading + f"pairs most alike (Spearman), {least} least alike."


def report_agreement(report: Report, scores: ExperimentScores, alpha: float) -> None:
    """Write how far the estimators agree with leave-one-out as distributions over seeds.

    Args:
        report: Takes the tables and figures.
        scores: The scores.
        alpha: Significance level of the t-test.
    """
    report = DrawsReport(report, scores.n_draws, [scores.rows])
    by_method = agreements(scores.samples(), alpha)
    if not by_method:
        return
    table = agreement_table(by_method)
    closer = table["wasserstein"] <= table["wasserstein_same"]
    report.table(
        "agreement",
        table,
        "Agreement with leave-one-out, as distributions over seeds",
        "Scores in helpful sign and standard scale. Columns that end in _same say what two sets of "
        "seeds of one distribution would show; by the Wasserstein distance "
        + (
            f"as near come {of_methods(table['wasserstein'][closer], decimals)}."
            if closer.any()
            else "no estimator comes as near."
        ),
    )
    report.figure(
        "agreement_distances",
        distances(by_method),
        "Distance and overlap between the draws of a pair",
        f"A pair's scores by LOO and by an estimator, one of each seed, overlap by "
        f"{of_methods(table['overlap'], decimals)} on average; those of one distribution (grey) by "
        f"{of_methods(table['overlap_same'], decimals)}.",
    )
    report.figure(
        "agreement_confusions",
        confusions(by_method),
        "Do both call a pair significant, and in the same direction?",
        "Beyond chance the answers agree by a kappa of "
        f"{of_methods(table['kappa'], kappa_text)} (1: all the same, 0: as "
        "chance would have it; not defined where both always give one and the same). Both are "
        "significant in opposite directions for "
        f"{of_methods(table['opposite_significant'], percent)} of pairs.",
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
        f"{of_methods(table['spearman_of_means'], decimals)} (Spearman), single seeds on average "
        f"by {of_methods(table['spearman_of_seeds'], decimals)}.",
    )
