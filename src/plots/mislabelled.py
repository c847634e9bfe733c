"""Figure of how well scores find training samples whose labels were flipped."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from src.analysis.mislabelled import BY, Detection
from src.plots.style import (
    ACROSS,
    COLOURS,
    MARKERS,
    PAGE,
    dot_opacity,
    label_methods,
    legend_above,
)

_TITLES = {"self": "by the score of a sample on itself", "test": "by the mean harm to test samples"}


def detection_by_method(found: dict[tuple[str, str], Detection]) -> Figure:
    """Draw the area under the ROC curve by method: a dot a draw, a bar for the mean over draws.

    Args:
        found: What `src.analysis.mislabelled.detections` returns.
    """
    methods = list(dict.fromkeys(method for method, _ in found))
    many = len(methods) > ACROSS
    figure, axes = plt.subplots(1, len(BY), figsize=(PAGE, 2.9 if many else 2.3), sharey=True)
    rng = np.random.default_rng(0)
    for axis, by in zip(axes, BY, strict=True):
        for x, method in enumerate(methods):
            if (method, by) not in found:
                continue
            own = found[method, by]
            n_draws = len(own.of_draws)
            axis.plot(
                x + rng.uniform(-0.15, 0.15, n_draws),
                own.of_draws,
                marker=MARKERS[method],
                linestyle="none",
                color=COLOURS[method],
                markersize=4,
                alpha=dot_opacity(n_draws),
                markeredgewidth=0,
            )
            axis.plot([x - 0.3, x + 0.3], [own.of_mean] * 2, color="black", linewidth=1.2)
        axis.axhline(0.5, color="0.4", linestyle="--", linewidth=0.8, label="by chance")
        axis.set(title=_TITLES[by], xlim=(-0.5, len(methods) - 0.5), ylim=(-0.03, 1.03))
        label_methods(axis, methods)
    axes[0].plot([], [], color="black", linewidth=1.2, label="mean over draws")
    axes[0].plot([], [], "o", color="0.4", markersize=4, label="one draw")
    axes[0].set_ylabel("area under the ROC curve")
    legend_above(figure, axes[0])
    sns.despine(figure)
    return figure
