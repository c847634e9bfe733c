"""The p-values of several experiments, and what each source of randomness contributes."""

from __future__ import annotations

from collections import Counter

import pandas as pd

from src.analysis.bootstrap import LEVEL, clearly_largest
from src.analysis.significance import expected_under_noise
from src.analysis.stats import TESTS, mean_under_noise
from src.experiments import Experiment
from src.plots.comparison import by_experiment
from src.plots.style import METHOD_LABELS
from src.reports.comparison.compared import Compared, Means
from src.reports.comparison.experiments import FORMATS, Load, stacked
from src.reports.comparison.families import report_models, report_sizes
from src.reports.comparison.sources import report_sources
from src.reports.draws import DrawsReport
from src.reports.reading import counted, listed
from src.reports.report import Report
from src.reports.variance import VARIANCE_TITLE, reading_of_variance


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
    compared = Compared.of(load, experiments, alpha)
    on_draws = compared.on(report)
    report_mean_pvalues(on_draws, compared)
    on_draws.table(
        "variance_components",
        stacked(compared.components),
        VARIANCE_TITLE,
        reading_of_variance(compared.n_draws),
        formats=FORMATS,
    )
    report_sources(on_draws, compared.load, experiments)
    report_sizes(on_draws, compared)
    report_models(on_draws, compared)


def report_mean_pvalues(report: DrawsReport, compared: Compared) -> None:
    """Write the mean p-values of experiments side by side, and how many pairs are significant.

    Args:
        report: Takes the tables and the figure.
        compared: The experiments.
    """
    alpha, n_draws = compared.alpha, compared.n_draws
    summary = stacked(compared.summaries)

    def by_test(quantity: str, tests: tuple[str, ...] = TESTS) -> pd.DataFrame:
        columns = summary[[f"{quantity}_{test}" for test in tests]]
        return columns.set_axis(tests, axis="columns").unstack("method", sort=False)

    report.figure(
        "mean_pvalues",
        by_experiment(
            {e.name: table for e, table in compared.summaries.items()},
            mean_under_noise("ttest", n_draws),
        ),
        "Mean p-values side by side",
        f"By the t-test; pure noise would give {mean_under_noise('ttest', n_draws):.2f} (line).",
    )
    report.table(
        "mean_pvalues",
        by_test("mean_pvalue"),
        "Mean p-value",
        f"{_reading_of_noisiest(compared.means)} {compared.remarks}".strip(),
        formats=FORMATS,
    )
    limits = summary[[f"mean_pvalue_{t}_{end}" for t in TESTS for end in ("low", "high")]]
    report.table(
        "mean_pvalue_intervals",
        limits.rename(columns=lambda column: column.removeprefix("mean_pvalue_")),
        f"Confidence intervals ({LEVEL:.0%}) of the mean p-values",
        f"{compared.intervals}.",
        formats=FORMATS,
    )
    noise = listed(
        f"{100 * expected_under_noise(test, alpha, n_draws):.3g}% by {test}" for test in TESTS
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
        f"Fraction of pairs significant at a false discovery rate of {alpha:g}",
        "By Benjamini and Hochberg's procedure over all pairs of an experiment and method.",
        formats=FORMATS,
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
