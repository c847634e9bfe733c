"""The scores of all pairs as one picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axis import Axis
from matplotlib.figure import Figure

from src.plots.style import METHOD_LABELS, PAGE, scale_ticks

# Of the sizes of all mean scores; a few pairs far beyond would leave the others one colour.
QUANTILE = 0.99


@dataclass(frozen=True)
class ScoreMatrix:
    """Mean scores in helpful sign, samples ordered by class.

    Attributes:
        scores: (n_train, n_test); within a class samples stand in stored order.
        train_labels: Class or value of each row, (n_train,), ascending.
        test_labels: Class or value of each column, (n_test,), ascending.
        limit: The size of a score at which colours end, a number of two digits.
        share_beyond: Share of pairs whose score is larger.
    """

    scores: np.ndarray
    train_labels: np.ndarray
    test_labels: np.ndarray
    limit: float
    share_beyond: float

    @classmethod
    def of(
        cls, helpful: np.ndarray, train_labels: np.ndarray, test_labels: np.ndarray
    ) -> ScoreMatrix:
        """Order mean scores (n_train, n_test), positive where a sample helps, by class."""
        rows, columns = (np.argsort(x, kind="stable") for x in (train_labels, test_labels))
        # Scores that are all 0 have no scale.
        limit = float(np.quantile(np.abs(helpful), QUANTILE)) or float(np.abs(helpful).max()) or 1.0
        # Down to two digits, which are all that is said of it.
        step = 10 ** (np.floor(np.log10(limit)) - 1)
        limit = float(np.floor(limit / step * (1 + 1e-9)) * step)
        return cls(
            helpful[np.ix_(rows, columns)],
            train_labels[rows],
            test_labels[columns],
            limit,
            float((np.abs(helpful) > limit).mean()),
        )


def score_matrix(matrix: ScoreMatrix, method: str, name_of: Callable[[int], str] | None) -> Figure:
    """Draw the mean score of every pair, train samples in rows and test samples in columns.

    Args:
        matrix: The scores.
        method: The method.
        name_of: Says what a class is called; None: labels are values.
    """
    n_train, n_test = matrix.scores.shape
    height = np.clip(5.2 * n_train / n_test, 1.5, 5.2)
    figure, axis = plt.subplots(figsize=(PAGE, height + 0.8))
    # One image, also in the PDF.
    image = axis.imshow(
        matrix.scores, "vlag_r", aspect="auto", vmin=-matrix.limit, vmax=matrix.limit
    )
    if name_of is None:
        axis.set(xticks=[], yticks=[])
    else:
        _mark_classes(axis.yaxis, matrix.train_labels, name_of)
        _mark_classes(axis.xaxis, matrix.test_labels, name_of)
    axis.tick_params(length=0)
    axis.set(
        xlabel=f"{n_test} test samples",
        ylabel=f"{n_train} train samples",
        title=f"{METHOD_LABELS[method]}: mean of τ over seeds, blue helps",
    )
    extend = "both" if matrix.share_beyond else "neither"
    bar = figure.colorbar(image, ax=axis, extend=extend, pad=0.02, aspect=25)
    bar.outline.set_linewidth(0)
    bar.set_ticks([-matrix.limit, -matrix.limit / 2, 0, matrix.limit / 2, matrix.limit])
    bar.set_label("mean of τ, + helps" + scale_ticks(bar.ax.yaxis, matrix.limit, digits=3))
    return figure


def _mark_classes(axis: Axis, labels: np.ndarray, name_of: Callable[[int], str]) -> None:
    """Name each class at its middle and draw a line where the next begins."""
    classes, starts, counts = np.unique(labels, return_index=True, return_counts=True)
    is_row = axis.axis_name == "y"
    line = axis.axes.axhline if is_row else axis.axes.axvline
    for start in starts[1:]:
        line(start - 0.5, color="0.2", linewidth=0.7)
    crowded = not is_row and len(classes) > 6
    axis.set_ticks(
        starts + (counts - 1) / 2,
        [name_of(label) for label in classes],
        fontsize=5.5 if crowded else 7,
    )
