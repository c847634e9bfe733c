"""Figures of how many draws an answer takes."""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from src.plots.style import METHOD_LABELS, small_multiples


def stability_by_draws(stability: dict[str, pd.DataFrame]) -> Figure:
    """Draw mean p-value and rank correlation against the number of seeds, a column for each method.

    Args:
        stability: What `src.analysis.draws_needed.stability` returns, by method.
    """
    figure, axes, first = small_multiples(len(stability), 3.0, 2, sharex=True, sharey="row")
    for column, (method, frame) in zip(axes.T, stability.items(), strict=True):
        shades = sns.color_palette("viridis_r", frame["checkpoints"].nunique())
        for shade, (n_checkpoints, rows) in zip(shades, frame.groupby("checkpoints"), strict=True):
            for axis, name in zip(column, ("mean_pvalue", "rank_correlation"), strict=True):
                axis.plot(
                    rows["draws"],
                    rows[name],
                    color=shade,
                    linewidth=1,
                    marker="o",
                    markersize=2,
                    label=n_checkpoints,
                )
        column[0].set_title(METHOD_LABELS[method])
        column[1].set_xlabel("seeds")
        column[1].xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    for above, below in axes.T[first]:
        above.set(ylabel="mean p-value", ylim=(0, None))
        below.set(ylabel="rank correlation of\ntwo halves of the seeds", ylim=(None, 1))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        title="checkpoints",
        frameon=False,
        loc="outside right center",
        title_fontsize=7,
    )
    sns.despine(figure)
    return figure
