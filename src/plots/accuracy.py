"""Figures of accuracy: beside reliability, and by what draws cost."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, PercentFormatter

from src.plots.labels import place_labels
from src.plots.style import COLOURS, LINES, MARKERS, METHOD_LABELS, PAGE, legend_above

_WIDTH = 3.9  # inches: on a phone, too, its letters can be read
_LETTERS = 7
_DRAWS = (1, 2, 5, 10, 20, 50, 100, 200, 500)  # that an axis of theirs names
_SHORTEST = 0.025  # arrow, as a share of the axis: what is shorter lies below the mark


def accuracy_beside_reliability(
    table: pd.DataFrame, ceiling: tuple[float, float, float], n_averaged: int, rate: float
) -> Figure:
    """Draw one point a method: how reliable its scores are, and how accurate.

    Args:
        table: A row for each method: `reliability`, the share of pairs that are significant, and
            the linear datamodelling scores of one draw, `draw_other`, and of a mean of draws,
            `mean_other`.
        ceiling: What the losses of other seeds predict, with confidence limits; NaN: not drawn.
        n_averaged: Number of draws of the mean.
        rate: False discovery rate.
    """
    figure, axis = plt.subplots(figsize=(_WIDTH, 4.1))
    table = table.dropna()
    value, low, high = ceiling
    handles = []
    if np.isfinite(value):
        if np.isfinite(low):
            axis.axhspan(low, high, color="0.5", alpha=0.15, linewidth=0)
        axis.axhline(value, color="0.4", linestyle="--", linewidth=0.9)
        handles.append(
            Line2D([], [], color="0.4", linestyle="--", label="ceiling: losses of other seeds")
        )
    axis.axhline(0, color="0.85", linewidth=0.6, zorder=0)
    has_means = n_averaged > 1
    bounds = [0, *table["draw_other"], *table["mean_other"], *np.nan_to_num([value, low, high])]
    height = max(bounds) - min(bounds) or 1.0
    for method, row in table.iterrows():
        x, one, mean = row["reliability"], row["draw_other"], row["mean_other"]
        colour = COLOURS[method]
        if has_means and abs(mean - one) > _SHORTEST * height:
            axis.annotate(
                "",
                (x, mean),
                (x, one),
                arrowprops={
                    "arrowstyle": "-|>,head_width=0.12,head_length=0.25",
                    "color": colour,
                    "linewidth": 1,
                    "shrinkA": 0,
                    "shrinkB": 2,
                },
            )
            axis.plot(x, one, "o", color=colour, markersize=2.5, markerfacecolor="white")
        look = {"marker": MARKERS[method], "color": colour, "markersize": 5}
        axis.plot(x, mean if has_means else one, linestyle="none", **look)
    marks = {"marker": "o", "color": "0.3", "linestyle": "none"}
    if has_means:
        one, mean = "one draw", f"mean of {n_averaged} draws"
        handles = [
            Line2D([], [], **marks, markersize=2.5, markerfacecolor="white", label=one),
            Line2D([], [], **marks, markersize=5, label=mean),
            *handles,
        ]
    else:
        handles = [Line2D([], [], **marks, markersize=5, label="one draw"), *handles]
    axis.set(
        xlabel=f"reliability: share of significant pairs (FDR {100 * rate:g}%)",
        ylabel="accuracy: linear datamodelling score",
        xlim=(-0.04, 1.04),
        ylim=(min(bounds) - 0.06 * height, max(bounds) + 0.06 * height),
    )
    axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    figure.legend(
        handles=handles,
        frameon=False,
        loc="outside upper right",
        ncols=len(handles),
        columnspacing=1.2,
        handletextpad=0.5,
        handlelength=1.6,
    )
    sns.despine(figure)
    column = "mean_other" if has_means else "draw_other"
    place_labels(
        axis,
        table[["reliability", column]].to_numpy(),
        [METHOD_LABELS[m] for m in table.index],
        [COLOURS[m] for m in table.index],
        table[["reliability", "draw_other"]].to_numpy(),
        _LETTERS,
        [0, value],
    )
    return figure


def accuracy_by_cost(by_draws: pd.DataFrame) -> Figure:
    """Draw the accuracy of mean scores by number of draws, and by the trainings these take.

    Args:
        by_draws: What `src.analysis.draws_bought.accuracy_by_draws` returns.
    """
    figure, axes = plt.subplots(1, 2, figsize=(PAGE, 3.0), sharey=True)
    rows = by_draws.query("losses == 'all'").dropna(subset="lds")
    for method, own in rows.groupby("method", sort=False):
        for axis, cost in zip(axes, ("draws", "trainings"), strict=True):
            axis.plot(
                own[cost],
                own["lds"],
                color=COLOURS[method],
                marker=MARKERS[method],
                linestyle=LINES[method],
                markersize=3,
                linewidth=1,
                label=METHOD_LABELS[method],
            )
    for axis, label in zip(axes, ("draws averaged", "trainings that they take"), strict=True):
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.xaxis.set_minor_formatter(lambda *_: "")
        axis.set_xlabel(label)
    axes[0].set_ylabel("linear datamodelling score")
    if len(rows):
        legend_above(figure, axes[0])
        most = rows["draws"].max()
        axes[0].set_xticks([*(n for n in _DRAWS if 1.2 * n < most), most])  # none upon another
        if rows["trainings"].max() < 100 * rows["trainings"].min():  # or 1 is all that stands
            axes[1].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    sns.despine(figure)
    return figure
