"""The correlations of several experiments."""

from __future__ import annotations

import numpy as np
import pandas as pd

from src.analysis.agreement import agreement_table, agreements
from src.analysis.bootstrap import LEVEL
from src.experiments import Experiment
from src.plots.correlations import correlations_by_experiment
from src.plots.style import METHOD_LABELS
from src.reports.comparison.experiments import FORMATS, Load, at_common_seeds, stacked
from src.reports.correlations import correlations_of
from src.reports.draws import DrawsReport
from src.reports.reading import decimals, kappa_text, listed, words_of_intervals
from src.reports.report import Report


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
    spearman, tables, compared, rows = {}, {}, {}, []
    for experiment in experiments:
        scores = load(experiment)
        samples = scores.samples()
        rows.append(scores.rows)
        matrices, tables[experiment] = correlations_of(samples)
        spearman[experiment.name] = matrices["mean", "spearman"]
        if found := agreements(samples, alpha):
            compared[experiment] = agreement_table(found)
    report = DrawsReport(report, n_draws, rows)
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
        report.table(
            "agreement",
            stacked(compared),
            "Agreement with leave-one-out, as distributions over seeds",
            _reading_of_kappa({e.name: table["kappa"] for e, table in compared.items()}),
            formats=FORMATS,
        )


def _reading_of_kappa(kappas: dict[str, pd.Series]) -> str:
    """Say by which method and where the answers agree most with leave-one-out's."""
    kappa = pd.concat(kappas)  # by experiment and method
    if kappa.isna().all():
        return "Agreement beyond chance is not defined: each method always gives one answer."
    if not kappa.max() > 0:
        return "No method's answers agree with leave-one-out's more than by chance."
    where = listed(
        f"{METHOD_LABELS[method]} in {name}" for name, method in kappa.index[kappa == kappa.max()]
    )
    return (
        f"The largest agreement beyond chance, a kappa of {kappa_text(kappa.max())}, is that of "
        f"{where}."
    )


def _ends(numbers: list[float]) -> tuple[float, float]:
    return np.nanmin(numbers), np.nanmax(numbers)


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
        f"{which} by {' to '.join(dict.fromkeys(map(decimals, _ends(found))))}"
        for which, found in (("with each other", inside), ("with leave-one-out", outside))
        if np.isfinite(found).any()
    ]
    if not parts:
        return "No two methods have scores that vary over pairs."
    return f"The estimators correlate in size {listed(parts)}."
