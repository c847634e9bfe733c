"""Figures of how well influence functions predict retraining: means, intervals, single seeds."""

from __future__ import annotations

from collections.abc import Iterable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from src.plots.style import PAGE, dot_opacity

_COLOURS = sns.color_palette("colorblind", 10)
DECAY_COLOURS = {True: _COLOURS[0], False: _COLOURS[1]}
DECAY_LABELS = {True: "with decay", False: "without"}
# In steps of the horizontal axis: of a series beside another, and of single seeds beside their bar.
_SHIFT, _BESIDE = 0.2, 0.06


def series(
    axis: plt.Axes,
    summary: pd.DataFrame,
    seeds: pd.DataFrame,
    column: str,
    *,
    label: str,
    colour: tuple,
    line: str = "-",
    shift: float = 0.0,
) -> None:
    """Draw mean, interval and single seeds of a number over positions of the horizontal axis.

    Args:
        axis: The axis.
        summary: `x` (from 0), `mean`, `low`, `high`, a row for each position.
        seeds: `x`, and the number in `column`, a row for each position and seed.
        column: Name of the number.
        label: What it is called.
        colour: Its colour.
        line: Style of the line through the means; empty: none.
        shift: How far it is drawn beside its positions.
    """
    axis.plot(
        seeds["x"] + shift - _BESIDE,
        seeds[column],
        linestyle="",
        marker="o",
        markersize=2,
        markeredgewidth=0,
        color=colour,
        alpha=0.6,
        zorder=1,
    )
    summary = summary.sort_values("x")
    lengths = np.stack([summary["mean"] - summary["low"], summary["high"] - summary["mean"]])
    axis.errorbar(
        summary["x"] + shift,
        summary["mean"],
        yerr=lengths,
        linestyle=line,
        linewidth=1,
        elinewidth=1,
        capsize=2,
        marker="o",
        markersize=3.5,
        color=colour,
        label=label,
        zorder=2,
    )


def by_shape(
    axis: plt.Axes,
    summary: pd.DataFrame,
    seeds: pd.DataFrame,
    column: str,
    along: str,
    *,
    published: bool = False,
) -> None:
    """Draw a number against depth or width, with and without decay.

    Args:
        axis: The axis.
        summary: The configuration's `depth`, `width`, `decay`, and `mean`, `low`, `high`.
        seeds: The same of each seed, with the number in `column`.
        column: Name of the number.
        along: "depth" or "width".
        published: Whether to mark `published` of the summary.
    """
    values = sorted(summary[along].unique())
    at = {value: x for x, value in enumerate(values)}
    for k, decays in enumerate((True, False)):
        some = summary[(summary["decay"] > 0) == decays]
        single = seeds[(seeds["decay"] > 0) == decays]
        if some.empty:
            continue
        shift = (k - 0.5) * _SHIFT
        colour = DECAY_COLOURS[decays]
        series(
            axis,
            some.assign(x=some[along].map(at)),
            single.assign(x=single[along].map(at)),
            column,
            label=DECAY_LABELS[decays],
            colour=colour,
            shift=shift,
        )
        told = some.dropna(subset="published") if published else some[:0]
        axis.plot(
            told[along].map(at) + 2 * shift,
            told["published"] if published else [],
            linestyle="",
            marker="*",
            markersize=7,
            markeredgecolor="black",
            markeredgewidth=0.5,
            color=colour,
            label=f"published, {DECAY_LABELS[decays]}" if len(told) else None,
            zorder=3,
        )
    label_positions(axis, [f"{value:g}" for value in values])
    axis.set_xlabel(along)


def label_positions(axis: plt.Axes, labels: Iterable[str]) -> None:
    """Label the positions 0, 1, ... of the horizontal axis."""
    labels = list(labels)
    axis.set_xticks(range(len(labels)), labels)
    axis.set_xlim(-0.5, max(len(labels), 1) - 0.5)


def spearman_axis(axis: plt.Axes) -> None:
    """Have the vertical axis be one of Spearman's coefficient, from 0 or below to 1."""
    axis.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    axis.set_ylim(min(axis.dataLim.y0, 0) - 0.05, 1.05)
    axis.set_ylabel("Spearman")


def norms_panel(axis: plt.Axes, points: pd.DataFrame) -> None:
    """Draw predicted norms of parameter changes against those of retraining, both logarithmic.

    Args:
        axis: The axis.
        points: `actual`, `predicted` and `seed` of each sample left out and seed.
    """
    seeds = points["seed"].unique()
    colours = sns.color_palette("viridis", len(seeds))
    for colour, (_, some) in zip(colours, points.groupby("seed", sort=False), strict=True):
        axis.plot(
            some["actual"],
            some["predicted"],
            linestyle="",
            marker="o",
            markersize=2.5,
            markeredgewidth=0,
            color=colour,
            alpha=max(0.4, dot_opacity(len(points))),
        )
    both = points[["actual", "predicted"]].to_numpy()
    limits = both[both > 0].min() / 1.5, both.max() * 1.5
    axis.set(xscale="log", yscale="log", xlim=limits, ylim=limits)
    axis.plot(limits, limits, color="0.5", linewidth=0.8, linestyle="--", zorder=0)
    for one in (axis.xaxis, axis.yaxis):
        one.set_minor_formatter(NullFormatter())
    axis.set(xlabel="‖Δθ‖ of retraining", ylabel="‖Δθ‖ of influence")


def panels(n: int, n_across: int, height: float = 2.1) -> tuple[Figure, list[plt.Axes]]:
    """Return a page-wide figure of n panels, and their axes."""
    n_down = -(-n // n_across)
    figure, axes = plt.subplots(n_down, n_across, figsize=(PAGE, height * n_down), squeeze=False)
    for axis in axes.flat[n:]:
        axis.remove()
    return figure, list(axes.flat[:n])
