"""Families: experiments whose names differ in one part, the size or the model.

A family is compared by the methods that all of it have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import combinations, pairwise

import pandas as pd
from matplotlib.figure import Figure

from src.analysis.bootstrap import Estimate, clearly_largest, difference_table
from src.analysis.summary import identity
from src.experiments import METHODS, Experiment
from src.plots.comparison import by_model, by_size
from src.reports.comparison.compared import Compared, Means
from src.reports.draws import DrawsReport
from src.reports.reading import labels, told


def report_sizes(report: DrawsReport, compared: Compared) -> None:
    """Write what training set size does to the mean p-values, of each family that varies in it.

    Args:
        report: Takes the tables and figures.
        compared: The experiments.
    """
    means = compared.means
    for key, family in _families(compared.experiments, "n_per_class"):
        members = sorted(family, key=lambda e: e.n_per_class)
        steps = _differences(means, members, ((more, less) for less, more in pairwise(members)))
        _report(
            report,
            f"size_{'_'.join(key)}",
            f"Training set size: {_name(key)}",
            partial(by_size, has_classes=not members[0].task.has_values),
            _rows(compared.summaries, members, "n_per_class"),
            steps,
            _reading_of_size(steps, members, compared.n_draws),
            compared.intervals,
        )


def report_models(report: DrawsReport, compared: Compared) -> None:
    """Write the mean p-values of different models on the same samples side by side.

    Args:
        report: Takes the tables and figures.
        compared: The experiments.
    """
    means = compared.means
    for key, members in _families(compared.experiments, "model"):
        _report(
            report,
            f"complexity_{'_'.join(key)}",
            f"Models side by side: {_name(key)}",
            by_model,
            _rows(compared.summaries, members, "model"),
            _differences(means, members, combinations(members, 2)),
            _reading_of_models(means, members, compared.n_draws),
            compared.intervals,
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
        if experiment.n_per_class is None and varied == "n_per_class":
            continue  # all that there are, which is no number per class
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


def _name(key: tuple[str, ...]) -> str:
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


def _report(
    report: DrawsReport,
    name: str,
    title: str,
    draw: Callable[[pd.DataFrame], Figure],
    rows: pd.DataFrame,
    differences: dict[tuple[str, str, str], Estimate],
    reading: str,
    intervals: str,
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
        intervals: Where the confidence intervals come from.
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
        f"{intervals}.",
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
