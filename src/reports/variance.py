"""Where the variance of the scores comes from, and what more seeds and checkpoints do to it."""

from __future__ import annotations

import pandas as pd

from src.analysis.draws_needed import POWER, power_table, stability
from src.analysis.rows import MOST_PAIRS
from src.analysis.scores import ExperimentScores
from src.analysis.top_samples import consistency_table
from src.analysis.variance import variance_components_table
from src.plots.draws import stability_by_draws
from src.plots.top_samples import consistency_of_top
from src.plots.variance import share_between_seeds
from src.reports.draws import DrawsReport
from src.reports.reading import (
    counted,
    decimals,
    of_methods,
    percent,
    words_of_draws,
    words_of_intervals,
)
from src.reports.report import Report

VARIANCE_TITLE = "Variance between seeds, of the rest, and between epochs"


def reading_of_variance(n_draws: int) -> str:
    """Return how a table of variance components reads."""
    return (
        "Averaged over pairs, in squared units of each method's score. Between seeds (between) and "
        "within a training (residual) it is random; what an epoch does to all seeds alike (epoch) "
        "is not, and is no part of share_between. "
        f"{words_of_intervals(n_draws, of_all_pairs=True)}."
    )


def report_draws(report: Report, scores: ExperimentScores, alpha: float) -> None:
    """Write where the variance comes from and how many draws an answer takes (t-test).

    Args:
        report: Takes the tables and figures.
        scores: The scores.
        alpha: Significance level.
    """
    report = DrawsReport(report, scores.n_draws, [scores.rows])
    components = variance_components_table(scores.scores)
    report.table(
        "variance_components", components, VARIANCE_TITLE, reading_of_variance(scores.n_draws)
    )
    report.figure(
        "variance_components",
        share_between_seeds(components),
        "Share of the random variance that lies between seeds",
        f"{of_methods(components['share_between'], percent)}: the rest is scatter between the last "
        f"{scores.n_checkpoints} checkpoints of one training, less what an epoch does to all seeds "
        "alike."
        if scores.n_checkpoints > 1
        else "One checkpoint cannot tell the two apart.",
    )
    by_method = {m: stability(values, alpha) for m, values in scores.scores.items()}
    report.table(
        "stability",
        pd.concat(by_method, names=["method"]).reset_index(level=0).reset_index(drop=True),
        "Stability by number of seeds and checkpoints",
        f"Mean over random subsets of the seeds (of {MOST_PAIRS:,} random pairs where there are "
        "more); rank_correlation is Spearman's between the mean scores of two disjoint halves of "
        "the seeds (of an odd number, one half has one more).",
        index=False,
    )
    final = pd.Series({m: frame["rank_correlation"].iloc[-1] for m, frame in by_method.items()})
    report.figure(
        "stability",
        stability_by_draws(by_method),
        "What more seeds and checkpoints do",
        f"Ranks from two halves of all seeds correlate by {of_methods(final, decimals)}.",
    )
    needed = power_table({**scores.samples()}, alpha)
    report.table(
        "draws_needed",
        needed,
        f"Seeds for {POWER:.0%} power at the observed effect sizes",
        "For half of the pairs suffice "
        f"{of_methods(needed['draws_for_50%'].drop('noise'), words_of_draws)} seeds; pure noise "
        f"would seem to need {words_of_draws(needed.loc['noise', 'draws_for_50%'])}. Where the "
        "observed effect is noise, so is its number.",
    )


def report_top_samples(report: Report, scores: ExperimentScores) -> None:
    """Write how far seeds agree on the top training samples of a test sample.

    Args:
        report: Takes the table and the figure.
        scores: The scores.
    """
    report = DrawsReport(report, scores.n_draws, [scores.rows])
    table = consistency_table(scores.samples())
    last = table[table["k"] == table["k"].max()].set_index("method")
    most = last["k"].iloc[0]
    title = "Do two seeds name the same top training samples?"
    report.figure(
        "top_samples",
        consistency_of_top(table),
        title,
        f"Of a test sample's {counted(most, 'most helpful training sample')} by two seeds, the "
        f"common share (Jaccard index) is {of_methods(last['jaccard'], decimals)} on average; "
        f"chance gives {decimals(last['by_chance'].iloc[0])}.",
    )
    report.table(
        "top_samples",
        table,
        f"{title} By number of top samples",
        "Mean Jaccard index over all pairs of seeds and all test samples, for the k of "
        f"{len(scores.train_idx)} training samples with the largest scores in helpful sign; equal "
        "scores in random order. by_chance: expected of two random sets. "
        f"{words_of_intervals(scores.n_draws, of_all_pairs=True)}.",
        index=False,
    )
