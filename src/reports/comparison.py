"""The reports on several experiments: one row each, and what changes from one to the next."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from src.analysis.agreement import Agreement, agreement_table
from src.analysis.bootstrap import LEVEL
from src.analysis.summary import identity, pvalue_summary
from src.analysis.variance import variance_by_source, variance_components_table
from src.experiments import Experiment
from src.plots.comparison import by_model, by_size
from src.plots.correlations import correlations_by_experiment
from src.plots.style import METHOD_LABELS
from src.plots.variance import variance_ratio
from src.report import Report
from src.reports.reading import listed, of_methods
from src.results import ExperimentScores
from src.stats import TESTS

FORMATS = ("csv", "md", "tex")
_LEVELS = ["task", "model", "n_per_class", "randomness"]


def stacked(frames: dict[Experiment, pd.DataFrame]) -> pd.DataFrame:
    """Return the frames of all experiments below each other, the parts of their names first."""
    keys = [tuple(identity(experiment).values()) for experiment in frames]
    return pd.concat(frames.values(), keys=keys, names=_LEVELS)


def report_pvalue_comparison(
    report: Report,
    load: Callable[[Experiment], ExperimentScores],
    experiments: list[Experiment],
    alpha: float,
) -> None:
    """Write the comparisons of p-values between experiments.

    Args:
        report: Takes the tables and figures.
        load: Loads the scores of an experiment; called again rather than keeping all in memory.
        experiments: The experiments.
        alpha: Significance level, and false discovery rate.
    """
    summaries, components = {}, {}
    for experiment in experiments:
        scores = load(experiment)
        summaries[experiment] = pvalue_summary(scores.samples(), alpha)
        components[experiment] = variance_components_table(scores.scores)
    summary = stacked(summaries)
    by_test = {
        quantity: summary[[f"{quantity}_{test}" for test in TESTS]]
        .set_axis(TESTS, axis="columns")
        .unstack("method", sort=False)
        for quantity in ("mean_pvalue", "significant", "discoveries")
    }
    noisiest = by_test["mean_pvalue"]["ttest"].idxmax(axis="columns").map(METHOD_LABELS)
    report.table(
        "mean_pvalues",
        by_test["mean_pvalue"],
        "Mean p-value",
        f"{noisiest.mode()[0]} has the largest mean p-value by the t-test in "
        f"{(noisiest == noisiest.mode()[0]).sum()} of {len(noisiest)} experiments.",
        formats=FORMATS,
    )
    limits = summary[[f"mean_pvalue_{t}_{end}" for t in TESTS for end in ("low", "high")]]
    report.table(
        "mean_pvalue_intervals",
        limits.rename(columns=lambda column: column.removeprefix("mean_pvalue_")),
        f"Confidence intervals ({LEVEL:.0%}) of the mean p-values",
        "From resampled seeds.",
        formats=FORMATS,
    )
    report.table(
        "significant_fraction",
        by_test["significant"],
        f"Fraction of pairs with p < {alpha:g}",
        f"Under pure noise the t-test would call {alpha:.0%} significant.",
        formats=FORMATS,
    )
    report.table(
        "discoveries",
        by_test["discoveries"],
        f"Fraction of pairs significant at a false discovery rate of {alpha:.0%}",
        "By Benjamini and Hochberg's procedure over all pairs of an experiment and method.",
        formats=FORMATS,
    )
    report.table(
        "variance_components",
        stacked(components),
        "Variance between seeds and within a seed (between its checkpoints)",
        "Averaged over pairs, in squared units of each method's score, with "
        f"{LEVEL:.0%} confidence intervals from resampled seeds.",
        formats=FORMATS,
    )
    _report_sources(report, load, experiments)
    for key, rows in _families(summary, "n_per_class"):
        report.figure(
            f"size_{'_'.join(key)}",
            by_size(rows),
            f"Training set size: {_family_name(key)}",
            _reading_of_size(rows),
        )
    for key, rows in _families(summary, "model"):
        report.figure(
            f"complexity_{'_'.join(key)}",
            by_model(rows),
            f"Models side by side: {_family_name(key)}",
            _reading_of_models(rows),
        )


def _families(summary: pd.DataFrame, varied: str) -> list[tuple[tuple[str, ...], pd.DataFrame]]:
    """Return the groups of experiments that differ in one part of the name alone.

    Returns:
        For each group of two at least, the other parts, and the rows (varied, method).
    """
    fixed = [level for level in _LEVELS if level != varied]
    groups = summary.groupby(level=fixed, sort=False)
    return [
        (
            tuple(f"{part}pc" if isinstance(part, int) else part for part in key),
            rows.droplevel(fixed),
        )
        for key, rows in groups
        if rows.index.unique(varied).size > 1
    ]


def _family_name(key: tuple[str, ...]) -> str:
    return ", ".join(part for part in key if part != "both")


def _reading_of_size(rows: pd.DataFrame) -> str:
    means = rows["mean_pvalue_ttest"].unstack("method", sort=False).sort_index()
    change = means.diff().dropna(how="all")
    words = {
        "falls": list(means.columns[(change < 0).all()]),
        "rises": list(means.columns[(change > 0).all()]),
    }
    one_way = {method for methods in words.values() for method in methods}
    words["does neither all the way"] = [m for m in means.columns if m not in one_way]
    parts = [
        f"{word} for {listed(METHOD_LABELS[m] for m in methods)}"
        for word, methods in words.items()
        if methods
    ]
    return (
        f"From {means.index[0]} to {means.index[-1]} samples per class the mean p-value "
        f"{listed(parts)}."
    )


def _reading_of_models(rows: pd.DataFrame) -> str:
    means = rows["mean_pvalue_ttest"].unstack("model", sort=False)
    noisiest = means.idxmax(axis="columns")
    parts = [
        f"{model} for {listed(METHOD_LABELS[m] for m in noisiest.index[noisiest == model])}"
        for model in means.columns
        if (noisiest == model).any()
    ]
    return f"The model with the largest mean p-value is {listed(parts)}."


def _report_sources(
    report: Report,
    load: Callable[[Experiment], ExperimentScores],
    experiments: list[Experiment],
) -> None:
    """Write the variance by source of randomness of every experiment that has a variant."""
    tables = {}
    for experiment in experiments:
        variants = {
            other.randomness or "both": other
            for other in experiments
            if (other.model, other.task, other.n_per_class)
            == (experiment.model, experiment.task, experiment.n_per_class)
        }
        if experiment.randomness == "" and len(variants) > 1:
            tables[experiment] = variance_by_source(
                {source: load(other).samples() for source, other in variants.items()}
            )
    if not tables:
        return
    report.table(
        "sources_of_randomness",
        stacked(tables).droplevel("randomness"),
        "Variance of the scores by source of randomness",
        "Averaged over pairs, in squared units of each method's score; the ratios with "
        f"{LEVEL:.0%} confidence intervals from resampled seeds.",
        formats=FORMATS,
    )
    for experiment, table in tables.items():
        report.figure(
            f"sources_{experiment.name}",
            variance_ratio(table),
            f"Sources of randomness: {experiment.name}",
            _reading_of_sources(table, experiment),
        )


def _reading_of_sources(table: pd.DataFrame, experiment: Experiment) -> str:
    names = {"init": "initialisation", "batch": "batch order"}
    parts = listed(
        f"{name} alone gives {of_methods(table[f'{source}_to_both'], '.0%')}"
        for source, name in names.items()
        if f"{source}_to_both" in table
    )
    reading = f"Of the variance under both sources, {parts}."
    if experiment.has_one_batch:
        reading += " One batch holds all training samples, so their order changes rounding alone."
    return reading


def report_correlation_comparison(
    report: Report,
    matrices: dict[Experiment, dict[tuple[str, str], pd.DataFrame]],
    tables: dict[Experiment, pd.DataFrame],
    agreements: dict[Experiment, dict[str, Agreement]],
) -> None:
    """Write the comparisons of correlations between experiments.

    Args:
        report: Takes the tables and figures.
        matrices: Correlations by (statistic, coefficient), of each experiment.
        tables: The same as long tables with confidence limits.
        agreements: Agreement of the estimators with leave-one-out, of each experiment.
    """
    spearman = {e.name: found["mean", "spearman"] for e, found in matrices.items()}
    report.figure(
        "correlations",
        correlations_by_experiment(spearman),
        "Spearman correlations of the mean scores",
        _reading_of_clusters(spearman),
    )
    long = stacked({e: t.set_index(["method_a", "method_b"]) for e, t in tables.items()})
    wide = long.set_index(["statistic", "coefficient"], append=True)["value"]
    report.table(
        "correlations",
        wide.unstack(["statistic", "coefficient"], sort=False),
        "Correlations between methods over pairs",
        "Of the means, the standard deviations and the p-values of all pairs.",
        digits=2,
        formats=FORMATS,
    )
    report.table(
        "correlation_intervals",
        long,
        f"Confidence intervals ({LEVEL:.0%}) of the correlations",
        "From resampled seeds.",
        formats=FORMATS,
    )
    compared = {e: agreement_table(found) for e, found in agreements.items() if found}
    if compared:
        table = stacked(compared)
        best = table["same_answer"].idxmax()
        report.table(
            "agreement",
            table,
            "Agreement with leave-one-out, as distributions over seeds",
            f"The same answer is given most often ({table['same_answer'].max():.0%} of pairs) by "
            f"{METHOD_LABELS[best[-1]]} on {best[1]}, {best[0]}, {best[2]} per class.",
            formats=FORMATS,
        )


def _reading_of_clusters(matrices: dict[str, pd.DataFrame]) -> str:
    """Say how the estimators correlate among themselves and with leave-one-out."""
    inside, outside = [], []
    for matrix in matrices.values():
        size = matrix.abs()
        estimators = [m for m in matrix.columns if m != "loo"]
        block = size.loc[estimators, estimators].to_numpy()
        inside += list(block[np.triu_indices(len(estimators), 1)])
        if "loo" in matrix.columns:
            outside += list(size.loc["loo", estimators])
    if not inside or not outside:
        return "Between leave-one-out and the estimators there is nothing to compare."
    return (
        f"The estimators correlate with each other by {np.nanmin(inside):.2f} to "
        f"{np.nanmax(inside):.2f} in size, with leave-one-out by {np.nanmin(outside):.2f} to "
        f"{np.nanmax(outside):.2f}."
    )
