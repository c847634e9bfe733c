"""The reports on several experiments: one row each, and what changes from one to the next.

Experiments are compared over the seeds that all of them have, so that every number rests on as many
draws, and within a family by the methods that all of it have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from itertools import combinations, pairwise

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from src.analysis.agreement import agreement_table, agreements
from src.analysis.bootstrap import (
    LEVEL,
    Estimate,
    clearly_largest,
    difference_table,
    pair_means,
)
from src.analysis.significance import expected_under_noise
from src.analysis.stats import TESTS
from src.analysis.summary import identity, pvalue_summary
from src.analysis.variance import variance_by_source, variance_components_table
from src.errors import UserError
from src.experiments import METHODS, Experiment
from src.plots.comparison import by_model, by_size
from src.plots.correlations import correlations_by_experiment
from src.plots.style import METHOD_LABELS
from src.plots.variance import variance_ratio
from src.reports.correlations import correlations_of
from src.reports.draws import DrawsReport
from src.reports.page import Report
from src.reports.pvalues import VARIANCE_TITLE, reading_of_variance
from src.reports.reading import (
    counted,
    decimals,
    labels,
    listed,
    of_methods,
    percent,
    told,
    words_of_intervals,
)
from src.reports.scores import ExperimentScores

FORMATS = ("csv", "md", "tex")
_LEVELS = ["task", "model", "n_per_class", "randomness"]
Load = Callable[[Experiment], ExperimentScores]
# The means over pairs by name, by method, of each experiment.
Means = dict[Experiment, dict[str, dict[str, Estimate]]]


def stacked(frames: dict[Experiment, pd.DataFrame]) -> pd.DataFrame:
    """Return the frames of all experiments below each other, the parts of their names first."""
    keys = [tuple(identity(experiment).values()) for experiment in frames]
    return pd.concat(frames.values(), keys=keys, names=_LEVELS)


def at_common_seeds(load: Load, experiments: list[Experiment]) -> tuple[Load, int, str]:
    """Return what loads the scores of the seeds that all experiments have.

    Args:
        load: Loads the scores of an experiment.
        experiments: The experiments.

    Returns:
        The loader, the number of seeds, and what there is besides or is missing, for people.

    Raises:
        UserError: The experiments have fewer than two seeds in common.
    """
    have, missing = {}, []
    for experiment in experiments:
        scores = load(experiment)
        have[experiment] = scores.common_seeds
        if lacks := [m for m in METHODS if m not in scores.scores]:
            missing.append(f"{experiment.name} lacks {labels(lacks)}")
    first, *others = have.values()
    common = [seed for seed in first if all(seed in other for other in others)]
    if len(common) < 2:
        parts = "; ".join(f"{e.name}: {listed(map(str, own))}" for e, own in have.items())
        raise UserError(
            "experiments are compared by the seeds that all of them have, two at least; here are "
            f"{len(common)} ({parts}): make the scores of the same seeds"
        )
    remarks = []
    if more := [f"{e.name} {len(own)}" for e, own in have.items() if len(own) > len(common)]:
        remarks.append(f"Compared by the {len(common)} seeds that all have, of {listed(more)}.")
    if missing:
        remarks.append(f"{'; '.join(missing)}.")
    return lambda e: load(e).at_seeds(common), len(common), " ".join(remarks)


def report_pvalue_comparison(
    report: Report, load: Load, experiments: list[Experiment], alpha: float
) -> None:
    """Write the comparisons of p-values between experiments.

    Args:
        report: Takes the tables and figures.
        load: Loads the scores of an experiment; called again rather than keeping all in memory.
        experiments: The experiments.
        alpha: Significance level, and false discovery rate.

    Raises:
        UserError: The experiments have fewer than two seeds in common.
    """
    load, n_draws, remarks = at_common_seeds(load, experiments)
    report = DrawsReport(report, n_draws)
    means: Means = {}
    summaries, components = {}, {}
    for experiment in experiments:
        scores = load(experiment)
        samples = scores.samples()
        means[experiment] = {m: pair_means(values, TESTS) for m, values in samples.items()}
        summaries[experiment] = pvalue_summary(samples, means[experiment], alpha)
        components[experiment] = variance_components_table(scores.scores)
    summary = stacked(summaries)

    def by_test(quantity: str, tests: tuple[str, ...] = TESTS) -> pd.DataFrame:
        columns = summary[[f"{quantity}_{test}" for test in tests]]
        return columns.set_axis(tests, axis="columns").unstack("method", sort=False)

    report.table(
        "mean_pvalues",
        by_test("mean_pvalue"),
        "Mean p-value",
        f"{_reading_of_noisiest(means)} {remarks}".strip(),
        formats=FORMATS,
    )
    limits = summary[[f"mean_pvalue_{t}_{end}" for t in TESTS for end in ("low", "high")]]
    report.table(
        "mean_pvalue_intervals",
        limits.rename(columns=lambda column: column.removeprefix("mean_pvalue_")),
        f"Confidence intervals ({LEVEL:.0%}) of the mean p-values",
        f"{words_of_intervals(n_draws)}.",
        formats=FORMATS,
    )
    noise = listed(
        f"{100 * expected_under_noise(test, alpha, n_draws):.2g}% by {test}" for test in TESTS
    )
    report.table(
        "significant_fraction",
        by_test("below_alpha"),
        f"Fraction of pairs with p < {alpha:g}",
        f"Of pairs of pure noise {noise} would be below {alpha:g}.",
        formats=FORMATS,
    )
    report.table(
        "discoveries",
        by_test("discoveries", ("ttest",)),
        f"Fraction of pairs significant at a false discovery rate of {alpha:.2g}",
        "By Benjamini and Hochberg's procedure over all pairs of an experiment and method.",
        formats=FORMATS,
    )
    report.table(
        "variance_components",
        stacked(components),
        VARIANCE_TITLE,
        reading_of_variance(n_draws),
        formats=FORMATS,
    )
    _report_sources(report, load, experiments)
    for key, family in _families(experiments, "n_per_class"):
        members = sorted(family, key=lambda e: e.n_per_class)
        steps = _differences(means, members, ((more, less) for less, more in pairwise(members)))
        _report_family(
            report,
            f"size_{'_'.join(key)}",
            f"Training set size: {_family_name(key)}",
            partial(by_size, has_classes=not members[0].task.has_values),
            _rows(summaries, members, "n_per_class"),
            steps,
            _reading_of_size(steps, members, n_draws),
        )
    for key, members in _families(experiments, "model"):
        _report_family(
            report,
            f"complexity_{'_'.join(key)}",
            f"Models side by side: {_family_name(key)}",
            by_model,
            _rows(summaries, members, "model"),
            _differences(means, members, combinations(members, 2)),
            _reading_of_models(means, members, n_draws),
        )


def _reading_of_noisiest(means: Means) -> str:
    """Say which method has the largest mean p-value, in how many experiments."""
    compared = [own for own in means.values() if len(own) > 1]
    if not compared:
        return "No experiment has two methods to compare."
    found = Counter(
        clearly_largest({m: names["mean_pvalue_ttest"] for m, names in own.items()})
        for own in compared
    )
    unclear = found.pop(None, 0)
    parts = [f"it is {METHOD_LABELS[m]} in {n}" for m, n in found.most_common()]
    if unclear:
        parts.append(f"it cannot be told in {unclear}")
    return (
        "Which method has the largest mean p-value by the t-test, as far as the confidence "
        f"intervals of the differences tell: of {counted(len(compared), 'experiment')}, "
        f"{listed(parts)}."
    )


def _families(
    experiments: list[Experiment], varied: str
) -> list[tuple[tuple[str, ...], list[Experiment]]]:
    """Return the groups of experiments that differ in one part of the name alone.

    Returns:
        For each group of two at least, the other parts, and the experiments.
    """
    groups: dict[tuple[str, ...], list[Experiment]] = {}
    for experiment in experiments:
        key = tuple(
            f"{part}pc" if isinstance(part, int) else str(part)
            for name, part in identity(experiment).items()
            if name != varied
        )
        groups.setdefault(key, []).append(experiment)
    return [(key, members) for key, members in groups.items() if len(members) > 1]


def _rows(
    summaries: dict[Experiment, pd.DataFrame], members: list[Experiment], varied: str
) -> pd.DataFrame:
    """Return a family's rows (varied, method) of the summaries."""
    return pd.concat({identity(e)[varied]: summaries[e] for e in members}, names=[varied])


def _family_name(key: tuple[str, ...]) -> str:
    return ", ".join(part for part in key if part != "both")


def _shared(means: Means, members: list[Experiment]) -> list[str]:
    """Return the methods that all of a family have."""
    return [m for m in METHODS if all(m in means[e] for e in members)]


def _differences(
    means: Means, members: list[Experiment], couples: Iterable[tuple[Experiment, Experiment]]
) -> dict[tuple[str, str, str], Estimate]:
    """Return the mean p-value of one experiment less that of another, by (method, one, other)."""
    name, couples = "mean_pvalue_ttest", list(couples)
    return {
        (method, one.name, other.name): means[one][method][name] - means[other][method][name]
        for method in _shared(means, members)
        for one, other in couples
    }


def _report_family(
    report: DrawsReport,
    name: str,
    title: str,
    draw: Callable[[pd.DataFrame], Figure],
    rows: pd.DataFrame,
    differences: dict[tuple[str, str, str], Estimate],
    reading: str,
) -> None:
    """Write the figure of a family of experiments, and the differences of their mean p-values.

    Args:
        report: Takes them.
        name: Of their files.
        title: Of both.
        draw: Draws the rows.
        rows: The summary of the family.
        differences: By (method, experiment, the one that it is compared with), of the methods that
            all of the family have; without any there is nothing to compare.
        reading: Of the figure.
    """
    if not differences:
        return
    methods = {method for method, *_ in differences}
    there = rows.index.get_level_values("method")
    if missing := [m for m in there.unique() if m not in methods]:
        reading += f" Not all of them have {labels(missing)}."
    report.figure(name, draw(rows[there.isin(list(methods))]), title, reading)
    report.table(
        name,
        difference_table(differences, ["method", "experiment", "less"]),
        f"{title}, differences of the mean p-value",
        f"{words_of_intervals(int(rows['draws'].iloc[0]))}.",
    )


def _reading_of_size(
    steps: dict[tuple[str, str, str], Estimate], members: list[Experiment], n_draws: int
) -> str:
    signs: dict[str, list[int]] = {}
    for (method, *_), step in steps.items():
        signs.setdefault(method, []).append(step.sign)
    words = {m: _way(own) for m, own in signs.items()}
    first, last = members[0].n_per_class, members[-1].n_per_class
    of_what = "training samples" if members[0].task.has_values else "samples per class"
    return f"The mean p-value from {first} to {last} {of_what}: {told(words, n_draws)}."


def _way(signs: list[int]) -> str:
    """Return which way steps of these signs go; a sign of 0 cannot be told."""
    each = " at each step" if len(signs) > 1 else ""
    if 1 in signs and -1 in signs:
        return "goes up and down"
    if 0 in signs:
        return f"cannot be told{each}"
    return f"{'rises' if signs[0] > 0 else 'falls'}{each}"


def _reading_of_models(means: Means, members: list[Experiment], n_draws: int) -> str:
    largest = {
        m: clearly_largest({e.model.name: means[e][m]["mean_pvalue_ttest"] for e in members})
        for m in _shared(means, members)
    }
    words = {m: model or "cannot be told" for m, model in largest.items()}
    return f"The model with the largest mean p-value: {told(words, n_draws)}."


def _report_sources(report: DrawsReport, load: Load, experiments: list[Experiment]) -> None:
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
            table = variance_by_source(
                {source: load(other).samples() for source, other in variants.items()}
            )
            if len(table):
                tables[experiment] = table
    if not tables:
        return
    n_draws = int(next(iter(tables.values()))["draws"].iloc[0])
    report.table(
        "sources_of_randomness",
        stacked(tables).droplevel("randomness"),
        "Variance of the scores by source of randomness",
        "Averaged over pairs, in squared units of each method's score, and ratios. "
        f"{words_of_intervals(n_draws)}.",
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
        f"{name} alone gives {of_methods(table[f'{source}_to_both'], percent)}"
        for source, name in names.items()
        if f"{source}_to_both" in table
    )
    reading = f"Of the variance under both sources, {parts}."
    if "init_to_batch" in table:
        words = {
            method: "initialisation"
            if row["init_to_batch_low"] > 1
            else "batch order"
            if row["init_to_batch_high"] < 1
            else "cannot be told"
            for method, row in table.iterrows()
        }
        reading += f" Which gives more: {told(words, int(table['draws'].iloc[0]))}."
    if experiment.has_one_batch:
        reading += " One batch holds all training samples, so their order changes rounding alone."
    return reading


def report_correlation_comparison(
    report: Report, load: Load, experiments: list[Experiment], alpha: float
) -> None:
    """Write the comparisons of correlations between experiments.

    Args:
        report: Takes the tables and figures.
        load: Loads the scores of an experiment; called again rather than keeping all in memory.
        experiments: The experiments.
        alpha: Significance level of the t-tests whose answers are compared.

    Raises:
        UserError: The experiments have fewer than two seeds in common.
    """
    load, n_draws, remarks = at_common_seeds(load, experiments)
    report = DrawsReport(report, n_draws)
    spearman, tables, compared = {}, {}, {}
    for experiment in experiments:
        samples = load(experiment).samples()
        matrices, tables[experiment] = correlations_of(samples)
        spearman[experiment.name] = matrices["mean", "spearman"]
        if found := agreements(samples, alpha):
            compared[experiment] = agreement_table(found)
    report.figure(
        "correlations",
        correlations_by_experiment(spearman),
        "Spearman correlations of the mean scores",
        f"{_reading_of_clusters(spearman)} {remarks}".strip(),
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
        f"{words_of_intervals(n_draws)}.",
        formats=FORMATS,
    )
    if compared:
        table = stacked(compared)
        report.table(
            "agreement",
            table,
            "Agreement with leave-one-out, as distributions over seeds",
            _reading_of_kappa(table["kappa"]),
            formats=FORMATS,
        )


def _reading_of_kappa(kappa: pd.Series) -> str:
    """Say by which method and where the answers agree most with leave-one-out's."""
    if kappa.isna().all():
        return "Agreement beyond chance is not defined: each method always gives one answer."
    where = listed(
        f"{METHOD_LABELS[method]} on {task}, {model}, {n} per class"
        + ("" if randomness == "both" else f", {randomness} alone")
        for task, model, n, randomness, method in kappa.index[kappa == kappa.max()]
    )
    return (
        f"The largest agreement beyond chance, a kappa of {decimals(kappa.max())}, is that of "
        f"{where}."
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
    parts = [
        f"{which} by {decimals(np.nanmin(found))} to {decimals(np.nanmax(found))}"
        for which, found in (("with each other", inside), ("with leave-one-out", outside))
        if np.isfinite(found).any()
    ]
    if not parts:
        return "No two methods have scores that vary over pairs."
    return f"The estimators correlate in size {listed(parts)}."
