"""The p-values of several experiments, and what each source of randomness contributes."""

from __future__ import annotations

from collections import Counter

import pandas as pd

from src.analysis.bootstrap import LEVEL, clearly_largest, pair_means
from src.analysis.significance import expected_under_noise
from src.analysis.stats import TESTS
from src.analysis.summary import pvalue_summary
from src.analysis.variance import variance_components_table
from src.experiments import Experiment
from src.plots.style import METHOD_LABELS
from src.reports.comparison.experiments import FORMATS, Load, at_common_seeds, stacked
from src.reports.comparison.families import Means, report_families
from src.reports.comparison.sources import report_sources
from src.reports.draws import DrawsReport
from src.reports.reading import counted, listed, words_of_intervals
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
    report_sources(report, load, experiments)
    report_families(report, means, summaries, n_draws)


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
