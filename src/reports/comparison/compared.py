"""What the scores of several experiments come down to, at the seeds that all of them have."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from src.analysis.bootstrap import Estimate, pair_means
from src.analysis.rows import Rows
from src.analysis.stats import TESTS
from src.analysis.summary import pvalue_summary
from src.analysis.variance import variance_components_table
from src.experiments import Experiment
from src.reports.comparison.experiments import Load, at_common_seeds
from src.reports.draws import DrawsReport
from src.reports.reading import words_of_intervals
from src.reports.report import Report

# The means over pairs by name, by method, of each experiment.
Means = dict[Experiment, dict[str, dict[str, Estimate]]]


@dataclass(frozen=True)
class Compared:
    """Experiments at their common seeds.

    Attributes:
        load: Loads the scores of an experiment, of these seeds alone.
        alpha: Significance level, and false discovery rate.
        n_draws: Number of the seeds.
        remarks: What there is besides or is missing, for people.
        means: The means over pairs of each experiment.
        summaries: Their p-values in a few numbers, a row for each method, by experiment.
        components: Their variance components, a row for each method, by experiment.
        rows: The training samples that are scored, of each experiment.
    """

    load: Load
    alpha: float
    n_draws: int
    remarks: str
    means: Means
    summaries: dict[Experiment, pd.DataFrame]
    components: dict[Experiment, pd.DataFrame]
    rows: list[Rows]

    @classmethod
    def of(cls, load: Load, experiments: list[Experiment], alpha: float) -> Compared:
        """Load the scores of one experiment after another, and keep what they come down to.

        Args:
            load: Loads the scores of an experiment; called again rather than keeping all in memory.
            experiments: The experiments.
            alpha: Significance level, and false discovery rate.

        Raises:
            UserError: The experiments have fewer than two seeds in common.
        """
        load, n_draws, remarks = at_common_seeds(load, experiments)
        found = cls(load, alpha, n_draws, remarks, {}, {}, {}, [])
        for experiment in experiments:
            scores = load(experiment)
            samples = scores.samples()
            means = {m: pair_means(values, TESTS, scores.rows) for m, values in samples.items()}
            found.rows.append(scores.rows)
            found.means[experiment] = means
            found.summaries[experiment] = pvalue_summary(samples, means, alpha)
            found.components[experiment] = variance_components_table(scores.scores)
        return found

    @property
    def experiments(self) -> list[Experiment]:
        """The experiments."""
        return list(self.means)

    @property
    def intervals(self) -> str:
        """Where the confidence intervals come from, for people."""
        return words_of_intervals(self.n_draws, self.rows)

    def on(self, report: Report) -> DrawsReport:
        """Return the report for tables and figures that rest on these seeds, and say so."""
        return DrawsReport(report, self.n_draws, self.rows)
