"""Figures of the correlations between methods."""

from __future__ import annotations

import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import dendrogram

from src.plots.heat_map import heat_map, make_room
from src.plots.style import COLUMN, METHOD_LABELS, PAGE, STATISTIC_LABELS

_MOST_IN_A_THIRD = 7  # methods whose numbers can be read in a third of a page's width
_MOST_IN_FULL = 10  # of more, in half of it, numbers lose what can be known without: -.50, and 1
_LETTERS = 72  # points of their numbers together, across a map of so many


def correlation_heatmaps(matrices: dict[tuple[str, str], pd.DataFrame]) -> Figure:
    """Draw the heat maps of correlations: a column for each statistic, a row per coefficient.

    Of many methods it is the other way round, with wider maps.
    """
    statistics = list(dict.fromkeys(s for s, _ in matrices))
    coefficients = list(dict.fromkeys(c for _, c in matrices))
    n_methods = len(next(iter(matrices.values())))
    many = n_methods > _MOST_IN_A_THIRD
    letters = min(4.5, _LETTERS / n_methods) if many else 7
    shape = (len(coefficients), len(statistics))
    figure, axes = plt.subplots(
        *(shape[::-1] if many else shape), figsize=(PAGE, 10.2 if many else 4.4), squeeze=False
    )
    if many:
        axes = axes.T
    for (statistic, coefficient), matrix in matrices.items():
        axis = axes[coefficients.index(coefficient), statistics.index(statistic)]
        last = coefficient == coefficients[-1] if many else statistic == statistics[-1]
        _draw(axis, matrix, letters=letters, colour_bar=last)
        if many:
            axis.tick_params(axis="x", labelrotation=90)
        axis.set_title(f"{STATISTIC_LABELS[statistic]}, {coefficient.capitalize()}")
    make_room(figure)
    return figure


def correlations_by_experiment(matrices: dict[str, pd.DataFrame]) -> Figure:
    """Draw a heat map of the correlations between methods for each experiment.

    Args:
        matrices: Frames of method by method, by the experiment's name.
    """
    n_columns = min(4, len(matrices))
    n_rows = -(-len(matrices) // n_columns)
    figure, axes = plt.subplots(
        n_rows, n_columns, figsize=(PAGE * n_columns / 4, 1.85 * n_rows), squeeze=False
    )
    for axis in axes.flat[len(matrices) :]:
        axis.set_axis_off()
    for axis, (name, matrix) in zip(axes.flat, matrices.items(), strict=False):
        _draw(axis, matrix, letters=5.5, colour_bar=False)
        axis.tick_params(labelsize=6)
        axis.set_title(name, fontsize=7)
    make_room(figure)
    return figure


def method_tree(tree: np.ndarray, methods: list[str]) -> Figure:
    """Draw which methods a hierarchical clustering joins, and at what distance.

    Args:
        tree: The linkage, as `src.analysis.stats.method_linkage` returns it.
        methods: The methods, in its order.
    """
    figure, axis = plt.subplots(figsize=(COLUMN, 0.7 + 0.17 * len(methods)))
    dendrogram(
        tree,
        labels=[METHOD_LABELS[m] for m in methods],
        orientation="left",
        link_color_func=lambda _: "0.3",
        ax=axis,
    )
    axis.set(xlabel="1 − |Spearman| of the mean scores", xlim=(1.02, -0.02))
    axis.tick_params(axis="y", labelsize=7, length=0)
    sns.despine(figure, left=True)
    return figure


def _draw(axis: plt.Axes, matrix: pd.DataFrame, *, letters: float, colour_bar: bool) -> None:
    """Draw a matrix of correlations between methods, with letters of the given size in points."""
    labels = [METHOD_LABELS[m] for m in matrix.columns]
    mesh = heat_map(axis, matrix.to_numpy(), (-1, 1), "vlag", ".2f", letters, labels, labels)
    if len(labels) > _MOST_IN_FULL:
        for text in axis.texts:
            text.set_text(re.sub(r"^(-?)0(?=\.)|(?<=1)\.00$", r"\1", text.get_text()))
    if colour_bar:
        bar = axis.figure.colorbar(mesh, ax=axis, shrink=0.8, ticks=[-1, 0, 1])
        bar.outline.set_linewidth(0)
