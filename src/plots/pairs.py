"""Figures of single train-test pairs, with their images, texts or numbers."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from src.analysis.pairs import Influences
from src.plots.exhibits import Pictures
from src.plots.style import (
    ACROSS,
    COLOURS,
    METHOD_LABELS,
    PAGE,
    dot_opacity,
    nice_tick,
    pvalue_text,
    scale_ticks,
)


def pair_sheet(
    samples: np.ndarray,
    p: np.ndarray,
    sides: dict[str, list[tuple[int, int]]],
    pictures: Pictures,
    method: str,
) -> Figure:
    """Draw pairs: both images, their labels and predictions, and every draw's score.

    Args:
        samples: Samples (T, n_train, n_test).
        p: P-values (n_train, n_test).
        sides: Positions (train, test) of the pairs of each side, by its title.
        pictures: Images, labels and predictions.
        method: The method, for the axis label.
    """
    n_rows = max(len(pairs) for pairs in sides.values())
    figure = plt.figure(figsize=(PAGE, 0.72 * n_rows + 0.6))
    for side, (title, pairs) in zip(
        figure.subfigures(1, len(sides), wspace=0.03), sides.items(), strict=True
    ):
        widths = (pictures.width, pictures.width, 2.6)
        axes = side.subplots(len(pairs), 3, width_ratios=widths, sharex="col", squeeze=False)
        side.suptitle(f"{title} (dot: a seed, bar: mean)", fontsize=8)
        reach = 1.1 * max(np.abs(samples[:, i, j]).max() for i, j in pairs) or 1.0
        for row, (i, j) in zip(axes, pairs, strict=True):
            pictures.show(row[0], "train", i)
            pictures.show(row[1], "test", j)
            values = samples[:, i, j]
            row[2].axvline(0, color="0.6", linewidth=0.8)
            row[2].plot(
                values,
                np.zeros_like(values),
                "o",
                color=COLOURS[method],
                alpha=dot_opacity(len(values)),
                markersize=4,
            )
            row[2].plot(values.mean(), 0, "|", color="black", markersize=14, markeredgewidth=1.2)
            number = f"p = {pvalue_text(p[i, j])}"
            row[2].text(
                0.02,
                0.95,
                number,
                transform=row[2].transAxes,
                va="top",
                fontsize=7,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},  # over the line at 0
            )
            row[2].set(yticks=[], xlim=(-reach, reach))
            sns.despine(ax=row[2], left=True)
        axes[0, 0].set_title("train")
        axes[0, 1].set_title("test")
        axes[-1, 2].locator_params(axis="x", nbins=4)
        axes[-1, 2].set_xlabel(
            f"τ by {METHOD_LABELS[method]}" + scale_ticks(axes[-1, 2].xaxis, reach)
        )
    return figure


def influence_sheet(
    by_method: dict[str, Influences], pictures: Pictures, test_position: int, alpha: float
) -> Figure:
    """Draw the proponents and opponents of one test sample, a column for each method.

    Args:
        by_method: Its largest scores, by method; each has at least one.
        pictures: Images, labels and predictions.
        test_position: Position of the test sample.
        alpha: A star marks p-values below it; the error bars have level 1 − alpha.
    """
    n_rows = max(len(found.train) for found in by_method.values())
    n_across = min(ACROSS, len(by_method))
    n_bands = -(-len(by_method) // n_across)
    heights = 0.65, n_bands * (0.42 * n_rows + 0.5)
    figure = plt.figure(figsize=(PAGE, sum(heights)))
    top, bottom = figure.subfigures(2, 1, height_ratios=heights)
    pictures.show(top.subplots(), "test", test_position)
    key = f"*: p < {alpha:g}\nlines: {100 * (1 - alpha):g}% confidence intervals"
    top.text(0.995, 0.98, key, ha="right", va="top", fontsize=7)
    columns = bottom.subfigures(n_bands, n_across, squeeze=False).flat
    for column, (method, found) in zip(columns, by_method.items(), strict=False):
        axes = column.subplots(
            n_rows, 2, width_ratios=(pictures.width, 1.7), sharex="col", squeeze=False
        )
        reach = 1.05 * (np.abs(found.mean) + found.reach).max()
        for k, (image, bar) in enumerate(axes):
            sns.despine(ax=bar, left=True, bottom=k < n_rows - 1)
            bar.set(yticks=[], xlim=(-reach, reach))
            bar.tick_params(bottom=k == n_rows - 1)
            if k >= len(found.train):
                image.set_axis_off()
                continue
            pictures.show(image, "train", found.train[k], named=False)
            bar.barh(
                0,
                found.mean[k],
                xerr=found.reach[k],
                color=COLOURS[method],
                error_kw={"elinewidth": 0.8},
                capsize=1.5,
                height=0.5,
            )
            bar.axvline(0, color="0.6", linewidth=0.8)
            bar.set_ylim(-0.8, 0.8)
            if found.pvalue[k] < alpha:
                left = found.mean[k] > 0  # the side that the bar leaves free
                bar.text(
                    0.1 if left else 0.9,
                    0.5,
                    "*",
                    transform=bar.transAxes,
                    ha="center",
                    va="center",
                )
        column.suptitle(METHOD_LABELS[method], fontsize=8)
        axes[-1, 1].set_xticks([0, nice_tick(reach)])
        axes[-1, 1].set_xlabel("τ, + helps" + scale_ticks(axes[-1, 1].xaxis, reach))
    return figure
