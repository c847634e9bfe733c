"""The page of a study in a notebook: the parts that the scripts write."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from src.analysis.fit import Fit, quantities
from src.analysis.scores import ExperimentScores
from src.analysis.subsets import SubsetLosses
from src.data.samples import Samples
from src.ensemble.members import State
from src.ensemble.predictions import predictions
from src.ensemble.setup import Setup
from src.reports.accuracy import write_accuracy
from src.reports.experiment import write_agreement, write_reliability
from src.reports.overview import Page


def write_study(
    folder: Path,
    setup: Setup,
    scores: ExperimentScores,
    last: dict[int, State],
    accuracy: tuple[SubsetLosses, dict[str, float]] | None,
    *,
    test: str,
    alpha: float,
    test_index: int | None,
) -> Path:
    """Write tables, figures and the page that shows them, and return the page's path.

    Args:
        folder: Where they go.
        setup: The study's.
        scores: The scores.
        last: The last checkpoint of each seed.
        accuracy: Losses of models trained on subsets, and the seconds that the scores of a seed
            took, by method; None: no part on accuracy.
        test: As for `write_reliability`.
        alpha: Significance level, and false discovery rate.
        test_index: As for `write_reliability`.

    Raises:
        UserError: A file cannot be written.
    """
    experiment = setup.experiment
    fit = Fit.known(
        {seed: setup.fit(params) for seed, params in last.items()}, quantities(experiment.task)
    )
    page = Page.of_experiment(folder, scores, fit)
    page = replace(page, title=experiment.task.name)
    write_reliability(
        page,
        scores,
        {"train": _shown(setup.scored_samples), "test": _shown(setup.test)},
        lambda train, test: predictions(setup, [*last.values()], train, test),
        test=test,
        alpha=alpha,
        test_index=test_index,
    )
    _, path = write_agreement(page, scores, alpha)
    if accuracy is not None:
        write_accuracy(page, scores, *accuracy, alpha)
    return path


def _shown(samples: Samples) -> dict:
    return {
        "inputs": samples.images.cpu(),
        "labels": samples.labels.cpu(),
        "indices": samples.indices,
    }
