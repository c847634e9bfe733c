"""The report of `run_pvalues.py` on all pairs: one file with a row each, and pictures of them."""

from __future__ import annotations

import numpy as np

from src.analysis.distributions import Distributions
from src.analysis.pair_table import pair_table, write_pairs
from src.analysis.scores import ExperimentScores
from src.experiments import METHODS
from src.plots.score_matrix import ScoreMatrix, score_matrix
from src.plots.style import METHOD_LABELS
from src.reports.draws import DrawsReport
from src.reports.report import Report

_COLUMNS_OF_LOO = (
    " For LOO also p_unpaired (Welch), mu, variance_change and wasserstein2 of the losses with and "
    "without the train sample."
)


def report_all_pairs(
    report: Report,
    scores: ExperimentScores,
    images: dict[str, dict],
    distributions: Distributions | None = None,
) -> None:
    """Write `pairs.csv` and, for each method, the matrix of mean scores.

    Args:
        report: Takes the file and the figures.
        scores: The scores.
        images: Tensors of the samples, as `src.reports.scores.load_images` returns them.
        distributions: Of leave-one-out, where it is among the methods.
    """
    report = DrawsReport(report, scores.n_draws, [scores.rows])
    task = scores.experiment.task
    labels = tuple(_one_number_each(images[split]["labels"].numpy()) for split in images)
    called, order = ("value", "value") if task.has_values else ("label", "class, then as stored")
    # Of values of several dimensions the first one stands for all.
    which = "first " if images["train"]["labels"][0].numel() > 1 else ""
    n_pairs = len(scores.train_idx) * len(scores.test_idx)
    report.file(
        "pairs.csv",
        lambda path: write_pairs(path, pair_table(scores, labels, called, distributions)),
        "Every pair",
        f"{n_pairs:,} rows: indices in the full splits and {which}{called}s of both samples and, "
        f"for each method, over its seeds ({scores.draws}): mean, standard deviation (std), "
        "p-value of the t-test (p), the smallest false discovery rate at which Benjamini and "
        "Hochberg's procedure keeps the pair (q), and the share of seeds whose score has the "
        "mean's sign (sign). Scores are in each method's own sign."
        + (_COLUMNS_OF_LOO if distributions is not None else ""),
    )
    for method, samples in scores.samples().items():
        matrix = ScoreMatrix.of(METHODS[method].helpful_sign * samples.mean(axis=0), *labels)
        report.figure(
            f"{method}_matrix",
            score_matrix(matrix, method, None if task.has_values else task.name_of),
            f"Mean score of every pair by {METHOD_LABELS[method]}",
            f"Mean over {len(samples)} seeds, blue where the train sample helps and red where it "
            f"harms; ordered by {which}{order}. Colours end at "
            f"±{matrix.limit:.2g}; {_share(matrix.share_beyond)} of pairs lie beyond.",
        )


def _one_number_each(labels: np.ndarray) -> np.ndarray:
    """Return classes, or values, (n,); of values of several dimensions the first."""
    return labels.reshape(len(labels), -1)[:, 0]


def _share(share: float) -> str:
    if share == 0:
        return "none"
    return "<0.1%" if share < 5e-4 else f"{share:.1%}"
