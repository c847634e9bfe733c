"""Figure of what few draws say beside what many do."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from src.plots.style import COLOURS, MARKERS, PAGE, label_methods

_PANELS = {
    "mean_pvalue": "mean p-value",
    "significant": "share of significant pairs",
    "sign_kept": "of these, sign kept",
}
_OF_ALL = ("mean_pvalue", "significant")  # what all seeds together say, too


def few_against_many(by_method: dict[str, pd.DataFrame]) -> Figure:
    """Draw what each group of a few seeds says, beside what all of them say.

    Args:
        by_method: Rows by group and `all`, as `compare_few_with_many` returns them.
    """
    figure, axes = plt.subplots(1, len(_PANELS), figsize=(PAGE, 2.3))
    first = next(iter(by_method.values()))
    few, many = int(first["draws"].iloc[0]), int(first["draws"].iloc[-1])
    for axis, (name, label) in zip(axes, _PANELS.items(), strict=True):
        for k, (method, rows) in enumerate(by_method.items()):
            groups = rows.drop(index="all")
            axis.plot(
                k + np.linspace(-0.22, 0.22, len(groups)),
                groups[name],
                linestyle="none",
                marker=MARKERS[method],
                color=COLOURS[method],
                markersize=3,
                clip_on=False,  # a mark on the axis
            )
            if name in _OF_ALL:
                axis.hlines(rows.loc["all", name], k - 0.32, k + 0.32, color="black")
        axis.set(
            ylabel=label,
            ylim=(0, None if name == "mean_pvalue" else 1),
            xlim=(-0.6, len(by_method) - 0.4),
        )
        label_methods(axis, by_method)
    axes[-1].axhline(0.5, color="0.6", linestyle="--", linewidth=0.8)
    figure.legend(
        handles=[
            Line2D([], [], linestyle="none", marker="o", color="0.4", markersize=3),
            Line2D([], [], color="black"),
            Line2D([], [], color="0.6", linestyle="--", linewidth=0.8),
        ],
        labels=[f"a group of {few} seeds", f"all {many}", "by chance"],
        frameon=False,
        loc="outside upper right",
        ncols=3,
    )
    sns.despine(figure)
    return figure
