"""Figures of where a score's variance comes from."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from src.analysis.bootstrap import LEVEL
from src.plots.style import ACROSS, COLOURS, COLUMN, error_bars, label_methods


def share_between_seeds(components: pd.DataFrame) -> Figure:
    """Draw the share of a score's variance that lies between seeds, a bar for each method.

    Args:
        components: A row for each method, as `variance_components_table` returns them.
    """
    figure, axis = plt.subplots(figsize=(COLUMN, 1.9 if len(components) <= ACROSS else 2.5))
    positions = np.arange(len(components))
    axis.bar(
        positions,
        components["share_between"],
        yerr=error_bars(components, "share_between"),
        color=[COLOURS[m] for m in components.index],
        error_kw={"elinewidth": 0.8},
        capsize=2,
        width=0.6,
    )
    axis.set(
        ylabel=f"share between seeds\n({LEVEL:.0%} intervals)",
        ylim=(0, 1),
    )
    label_methods(axis, components.index)
    sns.despine(figure)
    return figure


def variance_ratio(sources: pd.DataFrame) -> Figure:
    """Draw the variance under one source of randomness over that under both, by method.

    Args:
        sources: A row for each method, as `variance_by_source` returns them.
    """
    figure, axis = plt.subplots(figsize=(COLUMN, 2.1 if len(sources) <= ACROSS else 2.7))
    names = {"init": "initialisation only", "batch": "batch order only"}
    present = [source for source in names if f"{source}_to_both" in sources]
    positions = np.arange(len(sources))
    for k, source in enumerate(present):
        column = f"{source}_to_both"
        axis.errorbar(
            positions + 0.16 * (k - (len(present) - 1) / 2),
            sources[column],
            yerr=error_bars(sources, column),
            fmt="os"[k],
            color=sns.color_palette("deep")[k],
            markersize=4,
            capsize=2,
            linewidth=0.8,
            label=names[source],
        )
    axis.axhline(1, color="0.6", linewidth=0.8, zorder=0)
    axis.set(
        ylabel=f"variance of τ, ratio to\nboth ({LEVEL:.0%} intervals)",
        yscale="log",
    )
    label_methods(axis, sources.index)
    axis.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    sns.despine(figure)
    return figure
