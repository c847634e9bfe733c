"""Figures that compare experiments by training set size and by model."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from src.analysis.summary import PAIR_NUMBERS
from src.plots.style import COLOURS, MARKERS, METHOD_LABELS, PAGE

# P-values are small for most pairs, and 0 for some: a linear axis would show a line at 0.
_SCALES = {
    "pvalue": {"value": "symlog", "linthresh": 1e-3},
    "std": {"value": "log"},
    "abs_mean": {"value": "log"},
}
_LABELS = {"pvalue": "p-value", "std": "std of τ", "abs_mean": "|mean of τ|"}


def by_size(summary: pd.DataFrame) -> Figure:
    """Draw p-value, standard deviation and size of the mean against the training set's size.

    Args:
        summary: Rows (n_per_class, method), columns as `pvalue_summary` returns them. The lines are
            medians over pairs, the bands reach from quartile to quartile.
    """
    methods = list(summary.index.unique("method"))
    figure, axes = plt.subplots(
        len(PAIR_NUMBERS), len(methods), figsize=(PAGE, 4.2), sharex=True, squeeze=False
    )
    for column, method in zip(axes.T, methods, strict=True):
        rows = summary.xs(method, level="method").sort_index()
        for axis, name in zip(column, PAIR_NUMBERS, strict=True):
            axis.fill_between(
                rows.index,
                rows[f"{name}_low"],
                rows[f"{name}_high"],
                color=COLOURS[method],
                alpha=0.2,
                linewidth=0,
            )
            axis.plot(
                rows.index,
                rows[f"{name}_middle"],
                color=COLOURS[method],
                marker=MARKERS[method],
                markersize=4,
                linewidth=1.2,
                clip_on=False,  # a mark on the axis
            )
            axis.set_yscale(**_SCALES[name])
        column[0].set_title(METHOD_LABELS[method])
        column[0].set_ylim(0, 1)
        column[-1].set_xlabel("n per class")
        column[-1].xaxis.set_major_locator(FixedLocator(list(rows.index)))
        column[-1].xaxis.set_minor_locator(NullLocator())
    for axis, name in zip(axes[:, 0], PAIR_NUMBERS, strict=True):
        axis.set_ylabel(_LABELS[name])
    sns.despine(figure)
    return figure


def by_model(summary: pd.DataFrame) -> Figure:
    """Draw p-value, standard deviation and size of the mean of several models side by side.

    Args:
        summary: Rows (model, method), columns as `pvalue_summary` returns them. The marks are
            medians over pairs, the bars reach from quartile to quartile.
    """
    methods, models = (list(summary.index.unique(level)) for level in ("method", "model"))
    figure, axes = plt.subplots(1, len(PAIR_NUMBERS), figsize=(PAGE, 2.2))
    shades = sns.color_palette("crest", len(models))
    for axis, name in zip(axes, PAIR_NUMBERS, strict=True):
        for k, model in enumerate(models):
            rows = summary.xs(model, level="model").reindex(methods)
            middle = rows[f"{name}_middle"]
            axis.errorbar(
                np.arange(len(methods)) + 0.2 * (k - (len(models) - 1) / 2),
                middle,
                yerr=np.stack([middle - rows[f"{name}_low"], rows[f"{name}_high"] - middle]),
                fmt="osD^v"[k],
                color=shades[k],
                markersize=4,
                linewidth=1,
                label=model,
                clip_on=False,
            )
        axis.set_yscale(**_SCALES[name])
        axis.set(
            ylabel=_LABELS[name],
            xticks=range(len(methods)),
            xticklabels=[METHOD_LABELS[m] for m in methods],
        )
    axes[0].set_ylim(0, 1)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside upper center", ncols=len(models))
    sns.despine(figure)
    return figure
