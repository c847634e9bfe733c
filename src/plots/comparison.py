"""Figures that compare experiments by training set size and by model."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullFormatter, NullLocator

from src.analysis.bootstrap import LEVEL
from src.plots.style import COLOURS, MARKERS, METHOD_LABELS, PAGE, error_bars, legend_above

# Of the columns of `pvalue_summary`.
_LABELS = {
    "mean_pvalue_ttest": "mean p-value",
    "mean_std": "mean of std(τ)",
    "mean_abs_mean": "mean of |mean τ|",
}
_BAND = f"{LEVEL:.0%} confidence interval"


def by_size(summary: pd.DataFrame, *, has_classes: bool = True) -> Figure:
    """Draw p-value, standard deviation and size of the mean against the training set's size.

    Args:
        summary: Rows (n_per_class, method), columns as `pvalue_summary` returns them. The lines are
            means over pairs, the bands their confidence intervals.
        has_classes: Whether sizes are samples per class, rather than training samples.
    """
    methods = list(summary.index.unique("method"))
    figure, axes = plt.subplots(
        len(_LABELS), len(methods), figsize=(PAGE, 4.2), sharex=True, squeeze=False
    )
    for column, method in zip(axes.T, methods, strict=True):
        rows = summary.xs(method, level="method").sort_index()
        for axis, name in zip(column, _LABELS, strict=True):
            axis.fill_between(
                rows.index,
                rows[f"{name}_low"],
                rows[f"{name}_high"],
                color=COLOURS[method],
                alpha=0.2,
                linewidth=0,
                label=f"band: {_BAND}",
            )
            axis.plot(
                rows.index,
                rows[name],
                color=COLOURS[method],
                marker=MARKERS[method],
                markersize=4,
                linewidth=1.2,
                clip_on=False,  # a mark on the axis
            )
            _scale(axis, name, rows)
        column[0].set_title(METHOD_LABELS[method])
        column[-1].set_xlabel("n per class" if has_classes else "n")
        column[-1].xaxis.set_major_locator(FixedLocator(list(rows.index)))
        column[-1].xaxis.set_minor_locator(NullLocator())
    for axis, label in zip(axes[:, 0], _LABELS.values(), strict=True):
        axis.set_ylabel(label)
    legend_above(figure, axes[0, 0])
    sns.despine(figure)
    return figure


def _scale(axis: plt.Axes, name: str, rows: pd.DataFrame) -> None:
    """Set the scale of an axis that shows a column of the rows.

    Mean p-values reach from 1e-4 to 0.5, and may be 0, as the other numbers are of scores that do
    not vary.
    """
    if name == "mean_pvalue_ttest":
        axis.set_yscale("symlog", linthresh=1e-3)
        axis.set_ylim(0, 1)
    elif (rows[name] > 0).all():  # an interval down to 0 is cut at the axis
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.yaxis.set_minor_formatter(NullFormatter())  # whose letters would meet


def by_model(summary: pd.DataFrame) -> Figure:
    """Draw p-value, standard deviation and size of the mean of several models side by side.

    Args:
        summary: Rows (model, method), columns as `pvalue_summary` returns them. The marks are
            means over pairs, the bars their confidence intervals.
    """
    methods, models = (list(summary.index.unique(level)) for level in ("method", "model"))
    figure, axes = plt.subplots(1, len(_LABELS), figsize=(PAGE, 2.2))
    shades = sns.color_palette("crest", len(models))
    for axis, (name, label) in zip(axes, _LABELS.items(), strict=True):
        for k, model in enumerate(models):
            rows = summary.xs(model, level="model").reindex(methods)
            marks, *_ = axis.errorbar(
                np.arange(len(methods)) + 0.2 * (k - (len(models) - 1) / 2),
                rows[name],
                yerr=error_bars(rows, name),
                fmt="osD^v"[k],
                color=shades[k],
                markersize=4,
                linewidth=1,
                label=model,
            )
            marks.set_clip_on(False)  # a mark on the axis; a bar down to 0 ends there
        _scale(axis, name, summary)
        axis.set(
            ylabel=label,
            xticks=range(len(methods)),
            xticklabels=[METHOD_LABELS[m] for m in methods],
        )
    legend_above(figure, axes[0])
    figure.legends[0].set_title(f"bars: {_BAND}", {"size": 7})
    sns.despine(figure)
    return figure
