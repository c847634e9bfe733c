"""Figures of the correlations between methods."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from src.plots.style import METHOD_LABELS, PAGE, STATISTIC_LABELS


def correlation_heatmaps(matrices: dict[tuple[str, str], pd.DataFrame]) -> Figure:
    """Draw the heat maps of correlations: a column for each statistic, a row per coefficient."""
    statistics = list(dict.fromkeys(s for s, _ in matrices))
    coefficients = list(dict.fromkeys(c for _, c in matrices))
    figure, axes = plt.subplots(
        len(coefficients), len(statistics), figsize=(PAGE, 4.4), squeeze=False
    )
    for (statistic, coefficient), matrix in matrices.items():
        axis = axes[coefficients.index(coefficient), statistics.index(statistic)]
        labels = [METHOD_LABELS[m] for m in matrix.columns]
        last = statistic == statistics[-1]
        sns.heatmap(
            matrix,
            vmin=-1,
            vmax=1,
            cmap="vlag",
            annot=True,
            fmt=".2f",
            annot_kws={"size": 7},
            square=True,
            linewidths=0.5,
            cbar=last,
            cbar_kws={"shrink": 0.8, "ticks": [-1, 0, 1]} if last else None,
            xticklabels=labels,
            yticklabels=labels,
            ax=axis,
        )
        axis.tick_params(length=0, rotation=0)
        axis.set_title(f"{STATISTIC_LABELS[statistic]}, {coefficient.capitalize()}")
    return figure
