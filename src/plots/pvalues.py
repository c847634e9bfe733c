"""Figures of p-values, and of mean against standard deviation."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from scipy.stats import t as student_t

from src.analysis.bootstrap import LEVEL
from src.analysis.stats import moments
from src.plots.style import (
    ACROSS,
    COLOURS,
    COLUMN,
    LINES,
    MARKERS,
    METHOD_LABELS,
    PAGE,
    legend_above,
    nice_tick,
    scale_ticks,
    small_multiples,
)


def pvalue_histograms(p: dict[str, np.ndarray], alpha: float) -> Figure:
    """Draw a histogram of p-values for each method, with the significance level."""
    figure, axes, first = small_multiples(len(p), 2.2, sharex=True, sharey=True)
    for k, (axis, (method, values)) in enumerate(zip(axes[0], p.items(), strict=True)):
        sns.histplot(
            x=values.ravel(),
            bins=np.linspace(0, 1, 21),
            stat="percent",
            color=COLOURS[method],
            edgecolor="white",
            linewidth=0.3,
            alpha=1,
            ax=axis,
        )
        axis.axvline(alpha, color="black", linestyle="--", linewidth=0.8, label=f"p = {alpha:g}")
        axis.set(
            title=f"{METHOD_LABELS[method]}\n{(values < alpha).mean():.1%} below {alpha:g}",
            xlabel="p-value",
            ylabel="% of pairs" if k in first else "",
            xlim=(0, 1),
            xticks=[0, 0.5, 1],
            xticklabels=["0", "0.5", "1"],
        )
    legend_above(figure, axes[0, 0])
    sns.despine(figure)
    return figure


def mean_pvalue_by_checkpoints(means: pd.DataFrame, intervals: pd.DataFrame) -> Figure:
    """Draw the mean p-value against the number of checkpoints, a line for each method.

    Args:
        means: A row for each number of checkpoints, a column for each method.
        intervals: Confidence limits, columns (method, "low" or "high").
    """
    many = len(means.columns) > ACROSS
    figure, axis = plt.subplots(figsize=(PAGE, 3.4) if many else (COLUMN, 2.3))
    for method in means.columns:
        axis.fill_between(
            means.index,
            intervals[method, "low"],
            intervals[method, "high"],
            color=COLOURS[method],
            alpha=0.15,
            linewidth=0,
        )
        axis.plot(
            means.index,
            means[method],
            color=COLOURS[method],
            marker=MARKERS[method],
            linestyle=LINES[method],
            markersize=4,
            linewidth=1.2,
            label=METHOD_LABELS[method],
        )
    axis.set(
        xlabel="number of checkpoints averaged",
        ylabel="mean p-value",
        xticks=means.index,
        ylim=(0, None),
    )
    axis.locator_params(axis="y", nbins=5)
    axis.legend(
        title=f"band: {LEVEL:.0%}\nconfidence\ninterval",
        title_fontsize=7,
        frameon=False,
        loc="center left",
        bbox_to_anchor=(1, 0.5),
    )
    sns.despine(figure)
    return figure


def mean_against_std(samples: dict[str, np.ndarray], alpha: float) -> Figure:
    """Draw mean against standard deviation of every pair's score, a panel for each method.

    Args:
        samples: Samples (T, n_train, n_test), by method.
        alpha: Pairs below the two lines are significant at this level by the t-test.

    A panel ends at quantiles of its pairs; its title says how many are outside.
    """
    figure, axes, first = small_multiples(len(samples), 2.2)
    n_pairs = next(iter(samples.values()))[0].size
    norm = LogNorm(1, max(10.0, 10 ** np.ceil(np.log10(n_pairs / 10))))
    for k, (axis, (method, values)) in enumerate(zip(axes[0], samples.items(), strict=True)):
        mean, std = (moment.ravel() for moment in moments(values))
        # The few largest of many pairs would leave the rest a dot in the corner.
        limit_x, limit_y = (np.quantile(np.abs(v), 0.995) or 1.0 for v in (mean, std))
        density = axis.hexbin(
            mean,
            std,
            gridsize=30,
            norm=norm,
            cmap="viridis_r",
            extent=(-limit_x, limit_x, 0, limit_y),
            linewidths=0.1,
            rasterized=True,
        )
        n_draws = len(values)
        slope = np.sqrt(n_draws) / student_t.ppf(1 - alpha / 2, n_draws - 1)
        axis.plot(
            [-limit_x, 0, limit_x],
            [slope * limit_x, 0, slope * limit_x],
            color="black",
            linestyle="--",
            linewidth=0.8,
            label=f"p = {alpha:g} (t-test)",
        )
        outside = ((np.abs(mean) > limit_x) | (std > limit_y)).mean()
        tick = nice_tick(limit_x)
        axis.set_xticks([-tick, 0, tick])
        axis.locator_params(axis="y", nbins=3)
        axis.set(
            title=f"{METHOD_LABELS[method]}\n{outside:.1%} outside",
            xlim=(-limit_x, limit_x),
            ylim=(0, limit_y),
        )
        axis.set_xlabel("mean of τ" + scale_ticks(axis.xaxis, limit_x))
        axis.set_ylabel(("std of τ" if k in first else "") + scale_ticks(axis.yaxis, limit_y))
    figure.colorbar(density, ax=axes, label="pairs", aspect=30)
    legend_above(figure, axes[0, 0])
    sns.despine(figure)
    return figure
