"""What writes each exhibit into a part of the page, by the functions that other pages use."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from src.analysis.extension import compare_few_with_many, few_of
from src.errors import UserError
from src.paper.drawing import Drawing
from src.reports.comparison.compared import Compared
from src.reports.comparison.families import report_models, report_sizes
from src.reports.comparison.pvalues import report_mean_pvalues
from src.reports.comparison.sources import report_sources
from src.reports.correlations import report_correlations
from src.reports.draws import DrawsReport
from src.reports.extension import report_few_and_many
from src.reports.pairs import report_pairs
from src.reports.pvalues import report_checkpoints
from src.reports.report import Report


class _Named:
    """A report whose tables and figures are all of one experiment, and say so."""

    def __init__(self, report: Report, experiment: str) -> None:
        self._report = report
        self._experiment = experiment

    def table(
        self, name: str, frame: pd.DataFrame, title: str, reading: str, **options: Any
    ) -> None:
        self._report.table(self._of(name), frame, self._titled(title), reading, **options)

    def figure(
        self, name: str, figure: Figure, title: str, reading: str, *, remark: str = ""
    ) -> None:
        remark = ", ".join(filter(None, [self._experiment, remark]))
        self._report.figure(self._of(name), figure, self._titled(title), reading, remark=remark)

    def _of(self, name: str) -> str:
        return f"{name}_{self._experiment}"

    def _titled(self, title: str) -> str:
        return f"{self._experiment}: {title[0].lower()}{title[1:]}"


def write_reliability(report: Report, drawing: Drawing) -> None:
    """Write the mean p-values of all experiments side by side."""
    compared = Compared.of(drawing.load, drawing.experiments, drawing.alpha)
    report_mean_pvalues(compared.on(report), compared)


def write_checkpoints(report: Report, drawing: Drawing) -> None:
    """Write the mean p-value by number of checkpoints, experiment by experiment."""
    for experiment in drawing.experiments:
        scores = drawing.load(experiment)
        named = _Named(report, experiment.name)
        report_checkpoints(DrawsReport(named, scores.n_draws, [scores.rows]), scores)


def write_sources(report: Report, drawing: Drawing) -> None:
    """Write what initialisation and batch order each contribute to the variance."""
    compared = Compared.of(drawing.load, drawing.experiments, drawing.alpha)
    report_sources(compared.on(report), compared.load, drawing.experiments)


def write_complexity(report: Report, drawing: Drawing) -> None:
    """Write the mean p-values of the models side by side."""
    compared = Compared.of(drawing.load, drawing.experiments, drawing.alpha)
    report_models(compared.on(report), compared)


def write_size(report: Report, drawing: Drawing) -> None:
    """Write the mean p-values against the number of training samples."""
    compared = Compared.of(drawing.load, drawing.experiments, drawing.alpha)
    report_sizes(compared.on(report), compared)


def write_correlations(report: Report, drawing: Drawing) -> None:
    """Write the heat maps of the correlations between methods, experiment by experiment."""
    for experiment in drawing.experiments:
        report_correlations(_Named(report, experiment.name), drawing.load(experiment))


def write_pairs(report: Report, drawing: Drawing) -> None:
    """Write the sheets of the most and least reliable pairs, experiment by experiment."""
    for experiment in drawing.experiments:
        scores = drawing.load(experiment)
        report_pairs(
            _Named(report, experiment.name),
            scores,
            scores.pvalues,
            drawing.images(scores),
            drawing.predict(scores),
            drawing.alpha,
            None,
            "",
        )


def write_full(report: Report, drawing: Drawing) -> None:
    """Write the p-values, correlations and pairs of models of which few samples are scored."""
    for experiment in drawing.experiments:
        compared = Compared.of(drawing.load, [experiment], drawing.alpha)
        report_mean_pvalues(compared.on(_Named(report, experiment.name)), compared)
    write_correlations(report, drawing)
    write_pairs(report, drawing)


def write_draws(report: Report, drawing: Drawing) -> None:
    """Write what many draws say of the answers that few of them give.

    Raises:
        UserError: There are too few for two groups.
    """
    for experiment in drawing.experiments:
        scores = drawing.load(experiment)
        few = few_of(scores.n_draws)
        if few < 2:
            raise UserError(
                f"what more draws show takes four seeds at least, two groups of two: "
                f"{experiment.name} has {scores.n_draws}"
            )
        by_method = {
            method: compare_few_with_many(samples, few, drawing.alpha)
            for method, samples in scores.samples().items()
        }
        report_few_and_many(
            DrawsReport(_Named(report, experiment.name), scores.n_draws, [scores.rows]),
            by_method,
            few,
        )
