"""Figures that compare experiments: side by side, by training set size, and by model."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullFormatter, NullLocator

from src.analysis.bootstrap import LEVEL
from src.plots.style import (
    COLOURS,
    MARKERS,
    METHOD_LABELS,
    PAGE,
    error_bars,
    label_methods,
    legend_above,
    small_multiples,
)

# Of the columns of `pvalue_summary`.
_LABELS = {
    "mean_pvalue_ttest": "mean p-value",
    "mean_std": "mean of std(τ)",
    "mean_abs_mean": "mean of |mean τ|",
}
_BAND = f"{LEVEL:.0%} confidence interval"


def by_experiment(summaries: dict[str, pd.DataFrame], of_noise: float) -> Figure:
    """Draw the mean p-values of experiments, a row for each, all methods in it.

    Args:
        summaries: By the experiment's name: a row for each method, columns as `pvalue_summary`
            returns them. The marks are means over pairs, the bars their confidence intervals.
        of_noise: What scores of pure noise would have.
    """
    figure, axis = plt.subplots(figsize=(PAGE, 0.8 + 0.34 * len(summaries)))
    axis.axvline(of_noise, color="0.6", linewidth=0.8, linestyle="--", label="pure noise")
    methods = list(dict.fromkeys(m for table in summaries.values() for m in table.index))
    for k, method in enumerate(methods):
        rows = pd.DataFrame({n: t.loc[method] for n, t in summaries.items() if method in t.index}).T
        places = [list(summaries).index(name) for name in rows.index]
        axis.errorbar(
            rows["mean_pvalue_ttest"],
            np.array(places) + 0.13 * (k - (len(methods) - 1) / 2),
            xerr=error_bars(rows, "mean_pvalue_ttest"),
            marker=MARKERS[method],
            linestyle="none",
            color=COLOURS[method],
            markersize=3.5,
            linewidth=1,
            label=METHOD_LABELS[method],
            clip_on=False,  # a mark on the axis
        )
    for between in np.arange(1, len(summaries)) - 0.5:
        axis.axhline(between, color="0.9", linewidth=0.6, zorder=0)
    axis.set(
        xlabel=f"mean p-value (bars: {_BAND})",
        xlim=(0, max(1.02 * of_noise, axis.get_xlim()[1])),
        ylim=(len(summaries) - 0.5, -0.5),
        yticks=range(len(summaries)),
        yticklabels=list(summaries),
    )
    axis.tick_params(axis="y", length=0)
    legend_above(figure, axis)
    sns.despine(figure, left=True)
    return figure


def by_size(summary: pd.DataFrame, *, has_classes: bool = True) -> Figure:
    """Draw p-value, standard deviation and size of the mean against the training set's size.

    Args:
        summary: Rows (n_per_class, method), columns as `pvalue_summary` returns them. The lines are
            means over pairs, the bands their confidence intervals.
        has_classes: Whether sizes are samples per class, rather than training samples.
    """
    methods = list(summary.index.unique("method"))
    figure, axes, first = small_multiples(len(methods), 4.2, len(_LABELS), sharex=True)
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
    for column in axes.T[first]:
        for axis, label in zip(column, _LABELS.values(), strict=True):
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
        axis.set_ylabel(label)
        label_methods(axis, methods)
    legend_above(figure, axes[0])
    figure.legends[0].set_title(f"bars: {_BAND}", {"size": 7})
    sns.despine(figure)
    return figure
