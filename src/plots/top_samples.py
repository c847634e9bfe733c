"""Figure of how far seeds agree on the top training samples of a test sample."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from src.plots.style import (
    ACROSS,
    COLOURS,
    MARKERS,
    PAGE,
    label_methods,
    legend_above,
)


def consistency_of_top(table: pd.DataFrame) -> Figure:
    """Draw the mean Jaccard index by method, a panel for each k, and what chance gives.

    Args:
        table: What `src.analysis.top_samples.consistency_table` returns.
    """
    methods, ks = table["method"].unique(), table["k"].unique()
    many = len(methods) > ACROSS
    figure, axes = plt.subplots(
        1, len(ks), figsize=(PAGE, 2.9 if many else 2.3), sharey=True, squeeze=False
    )
    for axis, k in zip(axes[0], ks, strict=True):
        rows = table[table["k"] == k]
        for x, row in enumerate(rows.itertuples()):
            limits = np.nan_to_num([[row.jaccard - row.low], [row.high - row.jaccard]])
            axis.errorbar(
                x,
                row.jaccard,
                limits,
                marker=MARKERS[row.method],
                linestyle="none",
                color=COLOURS[row.method],
                markersize=4,
                elinewidth=0.8,
            )
        chance = rows["by_chance"].iloc[0]
        axis.axhline(chance, color="0.4", linestyle="--", linewidth=0.8, label="by chance")
        axis.set(title=f"top {k}", xlim=(-0.5, len(methods) - 0.5), ylim=(0, 1.03))
        label_methods(axis, methods)
    axes[0, 0].set_ylabel("mean Jaccard index\nof two seeds")
    legend_above(figure, axes[0, 0])
    sns.despine(figure)
    return figure
