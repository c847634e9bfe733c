"""Figures of how far estimators agree with leave-one-out, as distributions over seeds."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from src.analysis.agreement import ANSWERS, Agreement
from src.analysis.stats import COEFFICIENTS
from src.plots.heat_map import heat_map, make_room
from src.plots.style import (
    ACROSS,
    COLOURS,
    COLUMN,
    MARKERS,
    METHOD_LABELS,
    PAGE,
    dot_opacity,
    label_methods,
    legend_above,
    small_multiples,
)


def distances(by_method: dict[str, Agreement]) -> Figure:
    """Draw the distributions over pairs of Wasserstein distance and of overlap with LOO.

    In grey what the same pairs show after the scores of both methods were dealt out at random.
    """
    figure, axes, first = small_multiples(len(by_method), 3.2, 2, sharex="row", sharey="row")
    reach = max(np.quantile(a.wasserstein, 0.98) for a in by_method.values()) or 1.0
    n_draws = len(next(iter(by_method.values())).of_seeds[COEFFICIENTS[0]])
    # Overlap takes the values 0, 1/T, ..., 1: one bin for each.
    steps = (np.arange(n_draws + 2) - 0.5) / n_draws
    for column, (method, a) in zip(axes.T, by_method.items(), strict=True):
        for axis, own, same, bins in (
            (column[0], a.wasserstein, a.wasserstein_same, np.linspace(0, reach, 41)),
            (column[1], a.overlap, a.overlap_same, steps),
        ):
            for values, look in (
                (
                    same,
                    {"color": "0.8", "histtype": "stepfilled", "label": "as of one distribution"},
                ),
                (own, {"color": COLOURS[method], "histtype": "step", "linewidth": 1.2}),
            ):
                weights = np.full(values.size, 100 / values.size)
                axis.hist(values.ravel(), bins=bins, weights=weights, **look)
        column[0].set(title=f"LOO and {METHOD_LABELS[method]}", xlabel="Wasserstein distance")
        column[1].set(xlabel="overlap", xticks=[0, 0.5, 1], xticklabels=["0", "0.5", "1"])
    for axis in axes[:, first].flat:
        axis.set_ylabel("% of pairs")
    legend_above(figure, axes[0, 0])
    sns.despine(figure)
    return figure


def confusions(by_method: dict[str, Agreement]) -> Figure:
    """Draw what the tests of both methods say, as percentages of pairs."""
    figure, axes, first = small_multiples(len(by_method), 2.05)
    labels = [answer.replace(" ", "\n") for answer in ANSWERS]
    for k, (axis, (method, a)) in enumerate(zip(axes[0], by_method.items(), strict=True)):
        rows = labels if k in first else []
        heat_map(axis, 100 * a.confusion, (0, 60), "Blues", ".0f", 7, rows, labels)
        axis.tick_params(labelsize=6)
        axis.set_title("% of pairs" + ("" if np.isnan(a.kappa) else f"\n(kappa {a.kappa:.2f})"))
        axis.set_xlabel(f"by {METHOD_LABELS[method]}")
    for axis in axes[0, first]:
        axis.set_ylabel("by LOO")
    make_room(figure)
    return figure


def seeds_against_means(by_method: dict[str, Agreement]) -> Figure:
    """Draw LOO's correlation with each estimator: one dot a seed, and that of the means."""
    many = len(by_method) > ACROSS
    figure, axes = plt.subplots(1, 2, figsize=(PAGE, 2.7) if many else (COLUMN, 2.1), sharey=True)
    rng = np.random.default_rng(0)
    for axis, coefficient in zip(axes, COEFFICIENTS, strict=True):
        for k, (method, a) in enumerate(by_method.items()):
            values = a.of_seeds[coefficient]
            axis.plot(
                k + rng.uniform(-0.15, 0.15, len(values)),
                values,
                marker=MARKERS[method],
                linestyle="none",
                color=COLOURS[method],
                markersize=3,
                alpha=dot_opacity(len(values)),
                markeredgewidth=0,
            )
            axis.plot(
                [k - 0.3, k + 0.3], [a.of_means[coefficient]] * 2, color="black", linewidth=1.2
            )
        axis.axhline(0, color="0.6", linewidth=0.8, zorder=0)
        axis.set(
            title=coefficient.capitalize(),
            xlim=(-0.5, len(by_method) - 0.5),
        )
        label_methods(axis, by_method)
    axes[0].set_ylabel("correlation with LOO\n(dot: of a seed, bar: of the means)")
    sns.despine(figure)
    return figure
