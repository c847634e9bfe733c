"""What initialisation and batch order each contribute to the variance of the scores."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from src.analysis.variance import variance_by_source
from src.experiments import Experiment
from src.plots.variance import variance_ratio
from src.reports.comparison.experiments import FORMATS, Load, stacked
from src.reports.draws import DrawsReport
from src.reports.reading import listed, of_methods, percent, told, words_of_intervals


def report_sources(report: DrawsReport, load: Load, experiments: list[Experiment]) -> None:
    """Write the variance by source of randomness of every experiment that has a variant.

    Args:
        report: Takes the tables and figures.
        load: Loads the scores of an experiment.
        experiments: The experiments.
    """
    tables, n_train = {}, {}
    for experiment in experiments:
        variants = {
            other.randomness or "both": other
            for other in experiments
            if replace(other, randomness="") == replace(experiment, randomness="")
        }
        if experiment.randomness == "" and len(variants) > 1:
            table = variance_by_source(
                {source: load(other).samples() for source, other in variants.items()}
            )
            if len(table):
                tables[experiment], n_train[experiment] = table, load(experiment).n_train
    if not tables:
        return
    n_draws = int(next(iter(tables.values()))["draws"].iloc[0])
    report.table(
        "sources_of_randomness",
        stacked(tables).droplevel("randomness"),
        "Variance of the scores by source of randomness",
        "Averaged over pairs, in squared units of each method's score, and ratios. "
        f"{words_of_intervals(n_draws, of_all_pairs=True)}.",
        formats=FORMATS,
    )
    for experiment, table in tables.items():
        report.figure(
            f"sources_{experiment.name}",
            variance_ratio(table),
            f"Sources of randomness: {experiment.name}",
            _reading_of_sources(table, experiment, n_train[experiment]),
        )


def _reading_of_sources(table: pd.DataFrame, experiment: Experiment, n_train: int) -> str:
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
    if experiment.has_one_batch(n_train):
        reading += (
            " One batch holds all training samples: what a seed of the batch order changes is "
            "rounding, and what a training draws besides, as dropout."
        )
    return reading
