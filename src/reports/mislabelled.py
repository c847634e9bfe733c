"""The report of `run_pvalues.py --mislabelled`: do the scores find flipped labels?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from src.analysis.mislabelled import detection_table, detections, ranking_table
from src.analysis.scores import ExperimentScores, shared
from src.data.noise import with_flips
from src.data.samples import load_tensors, to_samples
from src.errors import UserError
from src.experiments import Experiment, Paths
from src.plots.mislabelled import detection_by_method
from src.reports.draws import DrawsReport
from src.reports.overview import Page
from src.reports.reading import counted, decimals, of_methods
from src.reports.scores import load_scores
from src.tda.score_files import score_command

HEADING = "Finding mislabelled training samples"


def check_noisy(experiments: Sequence[Experiment]) -> None:
    """Raise UserError unless the labels of all experiments are flipped in part."""
    for experiment in experiments:
        if not experiment.label_noise:
            raise UserError(
                f"--mislabelled: no label of {experiment.name} is flipped: name an experiment with "
                "the suffix _noisy, for example cnn2_mnist3_10pc_noisy"
            )


def with_self_influence(
    paths: Paths, scores: ExperimentScores, seed_ids: Sequence[int], *, allow_missing: bool
) -> tuple[ExperimentScores, ExperimentScores]:
    """Return scores on test samples and those of the training samples on themselves.

    They are of the seeds that both have.

    Args:
        paths: Every path below the root.
        scores: The scores on test samples.
        seed_ids: Numbers of the seeds.
        allow_missing: Go on without missing files, with the methods that share two seeds at least.

    Raises:
        UserError: As `load_scores`, or the two are of other samples or checkpoints.
    """
    experiment, at = scores.experiment, Paths(paths.root, on_itself=True)
    methods = [*scores.scores]
    own = load_scores(at, experiment, seed_ids, allow_missing=allow_missing, methods=methods)
    seeds = shared([scores.common_seeds, own.common_seeds])
    differ = [
        *(["samples"] if own.train_idx.tolist() != scores.train_idx.tolist() else []),
        *(["samples"] if own.test_idx.tolist() != own.train_idx.tolist() else []),
        *("checkpoints" for s in seeds if own.checkpoints[s] != scores.checkpoints[s]),
        *([] if seeds else ["seeds"]),
    ]
    if differ:
        command = score_command(at, experiment, methods[0])
        raise UserError(
            f"{at.scores(experiment, methods[0], own.common_seeds[0])} and the files beside it are "
            f"of other {differ[0]} than the scores on test samples: make them again with: "
            f"{command} --overwrite, and so for {', '.join(methods)}"
        )
    return scores.at_seeds(seeds), own.at_seeds(seeds)


def write_mislabelled(
    page: Page, paths: Paths, scores: ExperimentScores, own: ExperimentScores
) -> tuple[pd.DataFrame, Path]:
    """Write how well each method finds the flipped labels.

    Args:
        page: The page.
        paths: Every path below the root.
        scores: The scores on test samples.
        own: Those of the training samples on themselves, of the same seeds.

    Returns:
        The table of areas under the curves, and the page's path.

    Raises:
        UserError: The training samples are missing, or a file cannot be written.
    """
    labels, true_labels = labels_of(paths, scores)
    found = detections(scores.samples(), own.samples(), labels != true_labels)
    table = detection_table(found)
    part = page.part("mislabelled", HEADING, {"on themselves": own.settings()})
    report = DrawsReport(part, scores.n_draws, [scores.rows])
    n_flipped = int((labels != true_labels).sum())
    of_self, of_test = (table.xs(by, level="by") for by in ("self", "test"))
    n_scored = counted(len(labels), "training sample")
    report.figure(
        "mislabelled",
        detection_by_method(found),
        "How well flipped labels are found",
        f"Flipped labels: {n_flipped} of {n_scored}. Area under the ROC curve by the score of "
        f"a sample on itself (helpful sign), one draw on average: "
        f"{of_methods(of_self['one_draw'], decimals)}; of the mean over draws: "
        f"{of_methods(of_self['mean_of_draws'], decimals)}.",
    )
    report.table(
        "mislabelled",
        table.reset_index(),
        "Area under the ROC curve",
        "By the score of a sample on itself (self), and by minus its mean score on the test "
        "samples (test), in helpful sign. One draw: mean, least and largest over draws; beside it "
        "that of the mean over draws. By harm to the test samples one draw gives on average "
        f"{of_methods(of_test['one_draw'], decimals)}, the mean over draws "
        f"{of_methods(of_test['mean_of_draws'], decimals)}. Chance gives 0.5.",
        index=False,
    )
    report.table(
        "mislabelled_ranks",
        ranking_table(found, scores.train_idx, labels, true_labels),
        "Where each training sample stands",
        "Rank by the mean over draws, 1 for the most suspicious; the flipped samples stand first.",
        index=False,
    )
    return table, page.close(part)


def labels_of(paths: Paths, scores: ExperimentScores) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels (n_scored,) that the scored samples were trained with, and the true ones.

    Raises:
        UserError: The training samples are missing.
    """
    task = scores.experiment.task
    tensors = load_tensors(paths, task, scores.experiment.splits["train"])
    trained_on = with_flips(tensors["labels"], task.classes)
    at = to_samples(tensors, scores.experiment).positions(torch.from_numpy(scores.train_idx))
    return trained_on[at].numpy(), tensors["labels"][at].numpy()
