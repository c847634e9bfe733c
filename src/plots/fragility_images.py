"""Figures of how well influence functions predict retraining, for networks on images."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from src.analysis.stats import COEFFICIENTS
from src.plots.style import (
    PAGE,
    dot_opacity,
    error_bars,
    legend_above,
    scale_ticks,
    small_multiples,
)

_LIMITS = -1.05, 1.05  # of correlations
_COLOURS = sns.color_palette("colorblind", 10)

# Predicted changes, those of retraining, and the control's, by seed.
Pairs = dict[int, tuple[np.ndarray, np.ndarray, float]]


def changes(panels: dict[str, Pairs]) -> Figure:
    """Draw changes of a test loss by retraining against the predicted ones, a panel each.

    The control's change is subtracted. Where they are equal is a line.

    Args:
        panels: By their titles.
    """
    figure, axes, firsts = small_multiples(len(panels), 2.0)
    for k, (axis, (title, seeds)) in enumerate(zip(axes[0], panels.items(), strict=True)):
        for colour, (seed, (predicted, retrained, control)) in enumerate(seeds.items()):
            axis.plot(
                predicted,
                retrained - control,
                ".",
                color=_COLOURS[colour % 10],
                markersize=4,
                markeredgewidth=0,
                alpha=max(0.4, dot_opacity(len(predicted))),
                label=f"seed {seed}",
            )
        axis.axline((0, 0), slope=1, color="0.6", linewidth=0.8, zorder=0)
        across, up = (
            scale_ticks(side, max(map(abs, side.get_view_interval())), digits=2)
            for side in (axis.xaxis, axis.yaxis)
        )
        axis.xaxis.set_major_locator(MaxNLocator(3))
        axis.set(title=title, xlabel=f"predicted{across}")
        axis.set_ylabel(f"by retraining{up}" if k in firsts else up.strip())
    legend_above(figure, axes[0, 0])
    sns.despine(figure)
    return figure


def agreement_by_decay(rows: pd.DataFrame, table: pd.DataFrame) -> Figure:
    """Draw the correlations against the weight decay: means, intervals and single seeds.

    Args:
        rows: A row for each configuration and seed.
        table: A row for each configuration.
    """
    figure, axes = plt.subplots(1, 2, figsize=(PAGE, 2.2), sharey=True)
    decays = sorted(table["decay"])
    table, rows = table.sort_values("decay"), rows.sort_values("decay")
    for axis, name in zip(axes, COEFFICIENTS, strict=True):
        _means_and_seeds(axis, np.arange(len(decays)), table, name)
        axis.plot([decays.index(d) for d in rows["decay"]], rows[name], **_SINGLE)
        _published(axis, np.arange(len(decays)), table, name)
        axis.set_xticks(range(len(decays)), [f"{d:g}" if d else "none" for d in decays])
        axis.set(xlabel="weight decay", title=name.capitalize())
        axis.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    axes[0].set_ylabel("correlation of predicted\nand actual changes")
    axes[0].set_ylim(_LIMITS)
    legend_above(figure, axes[0])
    sns.despine(figure)
    return figure


def agreement_table(rows: pd.DataFrame, table: pd.DataFrame) -> Figure:
    """Draw the correlations of each configuration, one below the other.

    Args:
        rows: A row for each configuration and seed.
        table: A row for each configuration.
    """
    names = list(table["configuration"])
    height = 0.9 + 0.22 * len(names)
    figure, axes = plt.subplots(1, 2, figsize=(PAGE, height), sharex=True, sharey=True)
    at = np.arange(len(names))
    for axis, name in zip(axes, COEFFICIENTS, strict=True):
        _means_and_seeds(axis, at, table, name, across=True)
        axis.plot(rows[name], [names.index(c) for c in rows["configuration"]], **_SINGLE)
        _published(axis, at, table, name, across=True)
        axis.axvline(0, color="0.8", linewidth=0.8, zorder=0)
        axis.set(xlabel="correlation", title=name.capitalize())
    axes[0].set_yticks(at, names)
    axes[0].set(xlim=_LIMITS, ylim=(len(names) - 0.5, -0.5))
    legend_above(figure, axes[0])
    sns.despine(figure)
    return figure


_SINGLE = {
    "marker": ".",
    "linestyle": "",
    "color": "0.55",
    "markersize": 3,
    "zorder": 1,
    "label": "single seeds",
}


def _means_and_seeds(
    axis: plt.Axes, at: np.ndarray, table: pd.DataFrame, name: str, *, across: bool = False
) -> None:
    """Draw means with intervals, where they are known; `across`: values to the right."""
    values, bars = table[name].to_numpy(), error_bars(table, name)
    places = (
        {"x": values, "y": at, "xerr": bars} if across else {"x": at, "y": values, "yerr": bars}
    )
    axis.errorbar(
        **places,
        fmt="o",
        color=_COLOURS[0],
        markersize=4,
        capsize=2,
        linewidth=0.8,
        label="mean over seeds, 95 % interval",
    )


def _published(
    axis: plt.Axes, at: np.ndarray, table: pd.DataFrame, name: str, *, across: bool = False
) -> None:
    """Draw the published values, where there are some."""
    if f"{name}_published" not in table:
        return
    values = table[f"{name}_published"].to_numpy()
    places = (values, at) if across else (at, values)
    axis.plot(
        *places, "D", color=_COLOURS[3], fillstyle="none", markersize=5, label="published, one run"
    )
