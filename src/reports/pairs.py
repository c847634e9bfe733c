"""Sheets of single pairs with what they hold, and of a test sample's proponents and opponents."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from src.analysis.pairs import Influences, distinct_pairs, influences, told_of
from src.analysis.scores import ExperimentScores
from src.errors import UserError
from src.plots.exhibits import Pictures
from src.plots.pairs import influence_sheet, pair_sheet
from src.plots.style import METHOD_LABELS, pvalue_text
from src.reports.draws import DrawsReport
from src.reports.reading import counted, of_methods
from src.reports.report import Report

# Computes predicted labels (T,) by sample's index, of "train" and of "test", given indices of both.
Predict = Callable[[set[int], set[int]], dict[str, dict[int, np.ndarray]]]

N_PAIRS = 5  # on each side of a sheet
N_INFLUENCES = 5  # proponents, and opponents
N_TOLD = 6  # the same of those that are told from noise


def report_pairs(
    report: Report,
    scores: ExperimentScores,
    p: dict[str, np.ndarray],
    images: dict[str, dict],
    predict: Predict,
    alpha: float,
    test_index: int | None,
    suffix: str,
) -> None:
    """Write sheets of single pairs with their images.

    Args:
        report: Takes the figures.
        scores: The scores.
        p: P-values (n_train, n_test), by method.
        images: Tensors of the samples, as `src.reports.scores.load_images` returns them.
        predict: Computes predictions.
        alpha: Significance level.
        test_index: Index, in its full split, of a test sample whose proponents and opponents are
            wanted.
        suffix: Of the sheets' names.
    """
    report = DrawsReport(report, scores.n_draws, [scores.rows])
    samples = scores.samples()
    sheets = {method: _sides(values) for method, values in p.items()}
    found: dict[str, Influences] = {}
    if test_index is not None:
        test_position = scores.test_position(test_index)
        found = {
            m: influences(values[:, :, test_position], m, N_INFLUENCES, alpha)
            for m, values in samples.items()
        }
        found = {m: chosen for m, chosen in found.items() if len(chosen.train)}
    shown = [pair for sides in sheets.values() for pairs in sides.values() for pair in pairs]
    pictures = _pictures(
        scores,
        images,
        predict,
        {train for train, _ in shown},
        {test for _, test in shown} | ({test_position} if found else set()),
    )
    if found:
        report.figure(
            f"influences_{test_index}",
            influence_sheet(found, pictures, test_position, alpha),
            f"Proponents and opponents of test sample {test_index}",
            " ".join([_reading_of_influences(found, scores, alpha), *pictures.readings()]),
        )
        _report_told(report, scores, pictures, test_index, alpha)
    for method, sides in sheets.items():
        report.figure(
            f"{method}_pairs{suffix}",
            pair_sheet(samples[method], p[method], sides, pictures, method),
            f"Most and least reliable pairs by {METHOD_LABELS[method]}",
            " ".join(
                [
                    _reading_of_sheet(samples[method], p[method], sides),
                    "No sample is shown twice on a side.",
                    *pictures.readings(),
                ]
            ),
        )


def words_of_told(scores: ExperimentScores, test_index: int, alpha: float) -> str:
    """Return which training samples' scores on a test sample are told from noise, for people.

    Args:
        scores: The scores.
        test_index: Index of the test sample in its full split.
        alpha: False discovery rate, over all pairs of a method.
    """
    position = scores.test_position(test_index)
    told = _told(scores, position, alpha)
    what = f"train samples whose score on test sample {test_index} is told from noise (q <= "
    if told.empty:
        return f"{what}{alpha:g}): none, by any method"
    lines = [f"{what}{alpha:g}), from what helps most to what harms most:"]
    for method in scores.scores:
        own = told[told["method"] == method]
        by_effect = own.groupby("effect")["train_index"].apply(lambda ids: " ".join(map(str, ids)))
        said = [
            f"{effect} {by_effect[effect]}" for effect in ("helps", "harms") if effect in by_effect
        ]
        lines.append(f"{method}: {'; '.join(said) or 'none'}")
    return "\n".join(lines)


def _told(scores: ExperimentScores, position: int, alpha: float) -> pd.DataFrame:
    return told_of(
        scores.samples(), scores.pvalues, scores.rates, position, scores.train_idx, alpha
    )


def _report_told(
    report: DrawsReport, scores: ExperimentScores, pictures: Pictures, test_index: int, alpha: float
) -> None:
    """Write which training samples' scores on a test sample are told from noise, if any are."""
    samples, position = scores.samples(), scores.test_position(test_index)
    told = _told(scores, position, alpha)
    if told.empty:
        return
    counts = told["method"].value_counts().reindex([*samples], fill_value=0)
    chosen = {
        m: influences(
            samples[m][:, :, position],
            m,
            N_TOLD,
            alpha,
            np.isin(scores.train_idx, told.loc[told["method"] == m, "train_index"]),
        )
        for m in counts.index[counts > 0]
    }
    title = f"Train samples whose score on test sample {test_index} survives retraining"
    n_more = counts.sum() - sum(len(own.train) for own in chosen.values())
    reading = " ".join(
        [
            f"With the false discovery rate over all pairs of a method held at {alpha:g}, these "
            f"are, of {len(scores.train_idx)}: {of_methods(counts, str)}.",
            *([f"In the table alone: {n_more} of these."] if n_more else []),
            "LOO is what a sample did; the others estimate it, and a score can survive retraining "
            "without being right.",
        ]
    )
    report.figure(
        f"told_{test_index}", influence_sheet(chosen, pictures, position, alpha), title, reading
    )
    report.table(
        f"told_{test_index}",
        told,
        f"{title}: all of them",
        "By method from what helps most to what harms most; scores are positive where the train "
        "sample helps. p is the t-test's, q the smallest false discovery rate at which the pair is "
        "kept, sign the share of seeds with the mean's sign.",
        index=False,
        digits=4,
    )


def _sides(p: np.ndarray) -> dict[str, list[tuple[int, int]]]:
    """Return the pairs of lowest and of highest p-value."""
    order = np.argsort(p, axis=None, kind="stable")
    return {
        title: distinct_pairs(own, p.shape, N_PAIRS)
        # The other way round also among equal ones, which would be the same pairs on both sides.
        for title, own in (("lowest p-values", order), ("highest p-values", order[::-1]))
    }


def _reading_of_sheet(
    samples: np.ndarray, p: np.ndarray, sides: dict[str, list[tuple[int, int]]]
) -> str:
    parts = []
    for name, pairs in zip(("Left", "Right"), sides.values(), strict=True):
        shown = np.array([samples[:, i, j] for i, j in pairs])
        either = int(((shown > 0).any(axis=1) & (shown < 0).any(axis=1)).sum())
        low, high = (pvalue_text(bound([p[pair] for pair in pairs])) for bound in (min, max))
        reach = f"p = {low}" if low == high else f"p from {low} to {high}"
        parts.append(
            f"{name}, {counted(len(pairs), 'pair')} with {reach}, {either} of them with scores of "
            "either sign."
        )
    if p.min() == p.max():
        parts.insert(0, "All pairs have the same p-value, so that none is more reliable.")
    parts.append("Each row is in units of its largest |τ|, which stands below it.")
    return " ".join(parts)


def _reading_of_influences(
    found: dict[str, Influences], scores: ExperimentScores, alpha: float
) -> str:
    first = pd.Series(
        {m: scores.train_idx[c.train[0]] for m, c in found.items() if c.n_proponents > 0}
    )
    strongest = f"strongest {of_methods(first, str)}" if len(first) else "none"
    marked = sum(int((chosen.pvalue < alpha).sum()) for chosen in found.values())
    n_shown = sum(len(chosen.train) for chosen in found.values())
    return (
        f"Train samples whose bar goes to the right helped ({strongest}). Of the scores shown "
        f"{marked} of {n_shown} are significant by the t-test (star); the lines are "
        f"{100 * (1 - alpha):g}% confidence intervals."
    )


def _pictures(
    scores: ExperimentScores,
    images: dict[str, dict],
    predict: Predict,
    train: set[int],
    test: set[int],
) -> Pictures:
    """Return the images and, where the checkpoints are there, the predictions."""
    try:
        predictions = predict(
            {int(scores.train_idx[position]) for position in train},
            {int(scores.test_idx[position]) for position in test},
        )
    except UserError as error:
        # Scores may have come here without the checkpoints that they were computed from.
        print(f"pairs are shown without predictions: {error}")
        predictions = None
    return Pictures(images, scores.experiment.task, predictions)
