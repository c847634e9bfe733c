"""Accuracy beside reliability: is what survives retraining also right?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from src.analysis.accuracy import REFERENCE, Accuracy
from src.analysis.bootstrap import LEAST_DRAWS, LEVEL, Estimate
from src.analysis.draws_bought import at_equal_cost
from src.analysis.lds import VERSIONS, Agreement
from src.analysis.scores import ExperimentScores
from src.analysis.stats import ranks
from src.analysis.subsets import SubsetLosses, load_truth
from src.ensemble.draws import numbers_of_seeds, seed_ids_of
from src.errors import UserError
from src.experiments import METHODS, PERMUTATIONS, TRUTH, Paths
from src.plots.accuracy import accuracy_beside_reliability, accuracy_by_cost
from src.plots.style import METHOD_LABELS
from src.reports.draws import DrawsReport
from src.reports.overview import Page
from src.reports.reading import counted, decimals, of_methods, told
from src.reports.report import Report
from src.subsets.files import subsets_command

ACCURACY = "Accuracy beside reliability"


def with_subsets(paths: Paths, scores: ExperimentScores) -> tuple[ExperimentScores, SubsetLosses]:
    """Load the losses of models trained on subsets, of the seeds that scores have.

    Args:
        paths: Every path below the root.
        scores: The scores.

    Returns:
        The scores of the seeds that have both, and the losses of the same seeds.

    Raises:
        UserError: Losses are missing or not sound, or of other samples than the scores, or not all
            training samples are scored.
    """
    experiment = scores.experiment
    if not scores.rows.are_all:
        raise UserError(
            f"{scores.rows.words} of {experiment.name} are scored: what a subset does is predicted "
            "by the scores of all its members, so score all, without --train_samples"
        )
    ids = numbers_of_seeds()
    losses = load_truth(paths, experiment, {seed: ids[seed] for seed in scores.common_seeds})
    for key in ("train_idx", "test_idx"):
        if not np.array_equal(getattr(losses, key), getattr(scores, key)):
            raise UserError(
                f"the losses of models trained on subsets of {experiment.name} have another {key} "
                "than its scores: make them again with: "
                + f"{subsets_command(paths, experiment, TRUTH)} --overwrite"
            )
    return scores.at_seeds(losses.seeds), losses


def write_accuracy(
    page: Page,
    scores: ExperimentScores,
    losses: SubsetLosses,
    seconds: dict[str, float],
    alpha: float,
) -> tuple[pd.DataFrame, Path]:
    """Write the part on accuracy.

    Args:
        page: The page.
        scores: The scores.
        losses: Losses of models trained on subsets, of the same seeds.
        seconds: What the attribution of a draw took, by method; NaN where it is not known.
        alpha: False discovery rate of the reliable pairs.

    Returns:
        Reliability and accuracy, a row for each method, and the page's path.

    Raises:
        UserError: A file cannot be written.
    """
    settings = {
        "alpha": alpha,
        "subsets": len(losses.masks),
        "seeds with losses of subsets": losses.seeds,
        **scores.settings(),
    }
    report = page.part("accuracy", ACCURACY, settings)
    summary = report_accuracy(report, scores, losses, seconds, alpha)
    return summary, page.close(report)


def report_accuracy(
    report: Report,
    scores: ExperimentScores,
    losses: SubsetLosses,
    seconds: dict[str, float],
    alpha: float,
) -> pd.DataFrame:
    """Write the tables and figures of accuracy.

    Args:
        report: Takes the tables and figures.
        scores: The scores.
        losses: Losses of models trained on subsets, of the same seeds.
        seconds: What the attribution of a draw took, by method; NaN where it is not known.
        alpha: False discovery rate of the reliable pairs.

    Returns:
        Reliability and linear datamodelling scores, a row for each method.
    """
    report = DrawsReport(report, scores.n_draws, [scores.rows])
    accuracy = Accuracy.of(scores, losses)
    summary, ceiling = accuracy.by_method(alpha), accuracy.ceiling
    n_averaged = scores.n_draws // 2
    report.figure(
        "accuracy_reliability",
        accuracy_beside_reliability(
            summary[["reliability", "draw_other", "mean_other"]],
            (ceiling.value, *ceiling.interval(-1.0, 1.0)),
            n_averaged,
            alpha,
        ),
        "Reliable, or also right?",
        _reading_of_figure(summary, ceiling, n_averaged, alpha),
    )
    report.table(
        "accuracy_by_method",
        summary,
        "Reliability and accuracy of the methods",
        _reading_of_summary(scores, losses, bool(accuracy.by_loo)),
    )
    report.table(
        "accuracy",
        accuracy.with_limits(),
        "Accuracy with confidence intervals",
        _words_of_intervals(scores.n_draws, bool(accuracy.by_loo)),
        index=False,
    )
    by_draws = accuracy.by_draws(scores.trainings(), seconds)
    report.figure(
        "accuracy_by_cost",
        accuracy_by_cost(by_draws),
        "How many draws buy how much accuracy",
        _reading_of_cost(by_draws, accuracy.by_subsets, scores.n_draws),
    )
    report.table(
        "accuracy_by_draws",
        by_draws.rename(columns={"draws": "draws_averaged"}),
        "Accuracy of mean scores by number of draws, and what these take",
        "`losses` says whose mean losses are predicted: those of `all` seeds, the averaged draws' "
        "among them, or, of draws of one half of the seeds, those of the `other` half. "
        "`trainings` counts the models' own, for unrolled each sample's derivative that is "
        "carried along one, and of permutations those of all prefixes, of which a truncation "
        "spares some; `seconds` is the attribution alone, of all methods that are computed "
        "together, and empty where it was not recorded.",
        index=False,
    )
    return summary


def _reading_of_figure(
    summary: pd.DataFrame, ceiling: Estimate, n_averaged: int, alpha: float
) -> str:
    said = [
        f"Reliability is the share of pairs that are significant with the false discovery rate "
        f"held at {alpha:g}; accuracy the linear datamodelling score against the mean losses of "
        "other seeds: whether the sum of a subset's scores ranks what models trained on it lose. "
        f"One draw has {of_methods(summary['draw_other'], decimals)}"
    ]
    if n_averaged > 1:
        said[0] += (
            f", the mean of {n_averaged} draws {of_methods(summary['mean_other'], decimals)}; an "
            "arrow leads from the one to the other unless it is too short to be seen"
        )
    said[0] += "."
    said.append(
        "The mean losses of one half of the seeds against those of the other, the dashed line, "
        f"have {decimals(ceiling.value)}."
        if np.isfinite(ceiling.value)
        else "No test sample's loss differs between subsets, so that there is nothing to predict."
    )
    column = "mean_other" if n_averaged > 1 else "draw_other"
    both = summary[["reliability", column]].dropna()
    if len(both) >= LEAST_DRAWS:
        value = _spearman(both)
        what = "no rank correlation" if np.isnan(value) else f"a rank correlation of {value:.2f}"
        said.append(f"Over the {len(both)} methods the two have {what}.")
    return " ".join(said)


def _spearman(both: pd.DataFrame) -> float:
    ranked = np.stack([ranks(values) for values in both.to_numpy().T])
    varies = (ranked != ranked[:, :1]).any(axis=1).all()
    return float(np.corrcoef(ranked)[0, 1]) if varies else np.nan


def _reading_of_summary(scores: ExperimentScores, losses: SubsetLosses, has_loo: bool) -> str:
    versions = "; ".join(f"`{name}`: {words}" for name, words in VERSIONS.items())
    half = counted(scores.n_draws // 2, "draw")
    said = [
        f"Linear datamodelling scores over {counted(len(losses.masks), 'subset')}, scores and "
        f"losses averaged over the last {counted(scores.n_checkpoints, 'checkpoint')}. {versions} "
        f"(of halves of the seeds: the mean is of {half}). In the first three, scores and losses "
        "share their seeds, which is a part of what they agree on. Equal sums share a rank; scores "
        "whose sums are all equal count as 0 and a test sample whose loss is the same for all "
        "subsets is left out."
    ]
    if has_loo:
        said.append(
            "`loo_of_other`: Spearman's correlation over training samples of the mean scores of "
            f"one half of the seeds with {METHOD_LABELS[REFERENCE]}'s of the other."
        )
    else:
        said.append(f"{METHOD_LABELS[REFERENCE]} is not there to be held against.")
    if scores.unused:
        left = sorted({s for own in scores.unused.values() for s in own} - {*losses.seeds})
        if left:
            said.append(
                f"Left out: seed_id {seed_ids_of(left)}, which not all have scores and losses of."
            )
    return " ".join(said)


def _words_of_intervals(n_draws: int, has_loo: bool) -> str:
    if n_draws < LEAST_DRAWS:
        return f"{counted(n_draws, 'seed')} are too few for confidence intervals."
    words = f"With {LEVEL:.0%} confidence intervals from resampled seeds and test samples"
    if n_draws // 2 < LEAST_DRAWS:
        words += "; halves of so few seeds have none"
    of_loo = f" `loo`: agreement with {METHOD_LABELS[REFERENCE]} of other seeds."
    return f"{words}.{of_loo if has_loo else ''}"


def _reading_of_cost(by_draws: pd.DataFrame, found: dict[str, Agreement], n_draws: int) -> str:
    if by_draws["method"].nunique() == 1:
        return "There is one method."
    bought = at_equal_cost(by_draws)
    if bought.empty:
        return "A draw of one method takes as many trainings as a draw of another."
    costliest, first, rest = bought.index[0], bought.iloc[0], bought.iloc[1:]
    at_most = "at most " if METHODS[costliest].needs == PERMUTATIONS else ""
    said = (
        f"One draw of {METHOD_LABELS[costliest]} takes {at_most}"
        f"{counted(int(first['trainings']), 'training')}; its accuracy: "
        f"{of_methods(bought['lds'].iloc[:1], decimals)}. Of the others, the mean of the most "
        f"draws in the table that take no more has {of_methods(rest['lds'], decimals)}."
    )
    words = {1: "is higher", -1: "is lower", 0: "cannot be told"}
    one = found[costliest].versions["draw_mean"]
    # Of the mean of all draws the interval is known.
    differences = {
        m: words[(found[m].versions["mean_mean"] - one).sign]
        for m in rest.index[rest["draws"] == n_draws]
    }
    if not differences:
        return said
    return f"{said} Which of them is higher or lower: {told(differences, n_draws)}."
