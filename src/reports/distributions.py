"""The report of `run_pvalues.py` on leave-one-out's two distributions of losses."""

from __future__ import annotations

import numpy as np

from src.analysis.distributions import Distributions, both_tests, quantities_table
from src.analysis.scores import ExperimentScores
from src.plots.distributions import distributions_figure
from src.reports.draws import DrawsReport
from src.reports.reading import decimals, percent
from src.reports.report import Report


def report_distributions(
    report: Report, scores: ExperimentScores, distributions: Distributions, alpha: float
) -> None:
    """Write what tells the losses of trainings with and without a training sample apart.

    Args:
        report: Takes the tables and the figure.
        scores: The scores.
        distributions: Of leave-one-out.
        alpha: Significance level, and false discovery rate.
    """
    report = DrawsReport(report, scores.n_draws, [scores.rows])
    tests, table = both_tests(distributions, alpha), quantities_table(distributions)
    report.table(
        "distribution_tests",
        tests,
        "With and without a training sample: paired and unpaired tests",
        "Paired, seed by seed, the test asks what z_j did in these trainings; unpaired (Welch), "
        "what another training without z_j would give, where all that differs between seeds is "
        f"noise. With p < {alpha:g} are {percent(tests.loc['paired', 'significant'])} of pairs and "
        f"{percent(tests.loc['unpaired', 'significant'])}; with the false discovery rate held at "
        f"{alpha:g} remain {percent(tests.loc['paired', 'benjamini_hochberg'])} and "
        f"{percent(tests.loc['unpaired', 'benjamini_hochberg'])}. The unpaired test takes both "
        "samples for independent; they share their seeds, so it finds too little where a seed "
        f"makes both losses large or small.{_remark(distributions)}",
    )
    report.table(
        "distributions",
        table,
        "Distances between losses with and without a training sample",
        f"The median size of f-INE's μ is {_size(table.loc['mu', 'median_size'])}; after a "
        "pair's losses with and without z_j were dealt out at random (_same) "
        f"{_size(table.loc['mu', 'median_size_same'])}. μ is the difference of means (without "
        "minus with) over the mean of the two standard deviations: the Gaussian trade-off where "
        "both errors of a threshold test are equal. Variance changes (without minus with) and "
        "2-Wasserstein distances of the empirical distributions are d-TDA's.",
    )
    report.figure(
        "distributions",
        distributions_figure(distributions),
        "Losses of trainings with and without a training sample",
        "Of pure noise p-values of the paired test would follow the diagonal; the unpaired test's "
        "are larger where a seed makes both losses large or small. Grey: the same pairs after "
        "their losses were dealt out at random. Panels end at the 95% quantile of the size.",
    )


def _size(mu: float) -> str:
    return decimals(mu) if np.isfinite(mu) else "infinite (losses without any spread)"


def _remark(distributions: Distributions) -> str:
    if not distributions.continued:
        return ""
    return (
        " LOO continued the trainings, so that a model without z_j has had more epochs, too, and "
        "all of this is the effect of both."
    )
