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

_OF_SCORES, _OF_BARS = 2.6, 1.7  # widths of axes, in images


def pair_sheet(
    samples: np.ndarray,
    p: np.ndarray,
    sides: dict[str, list[tuple[int, int]]],
    pictures: Pictures,
    method: str,
) -> Figure:
    """Draw pairs: both images, their labels and predictions, and every draw's score.

    Each row has a scale of its own: of scores that reach over decades small ones would all be 0.

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
        train, test, scores = side.subplots(
            1, 3, width_ratios=(pictures.width, pictures.width, _OF_SCORES), sharey=True
        )
        scores.set(yticks=[], ylim=(n_rows - 0.5, -0.5))
        side.suptitle(f"{title} (dot: a seed, bar: mean)", fontsize=8)
        for axis, split, positions in zip(
            (train, test), ("train", "test"), zip(*pairs, strict=True), strict=True
        ):
            axis.set_title(split)
            width = PAGE / len(sides) * pictures.width / (2 * pictures.width + _OF_SCORES)
            pictures.show(axis, split, positions, size=26, width=width)
        values = np.array([samples[:, i, j] for i, j in pairs])  # (n_pairs, T)
        heights = np.arange(len(pairs))
        largest = np.abs(values).max(axis=1)
        values = values / np.where(largest > 0, largest, 1)[:, None]
        scores.axvline(0, color="0.6", linewidth=0.8)
        scores.plot(
            values.ravel(),
            heights.repeat(values.shape[1]),
            "o",
            color=COLOURS[method],
            alpha=dot_opacity(values.shape[1]),
            markersize=4,
        )
        scores.plot(
            values.mean(axis=1), heights, "|", color="black", markersize=14, markeredgewidth=1.2
        )
        for height, pair, size in zip(heights, pairs, largest, strict=True):
            for above, text in (
                (-0.33, f"p = {pvalue_text(p[pair])}"),
                (0.33, f"max |τ| {size:.2g}"),
            ):
                scores.text(
                    0.02,
                    height + above,
                    text,
                    transform=scores.get_yaxis_transform(),
                    va="center",
                    fontsize=7,
                    # Over the line at 0.
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
                )
        sns.despine(ax=scores, left=True)
        scores.set(xlim=(-1.1, 1.1), xticks=(-1, 0, 1))
        # Centred, a long one would end beyond the sheet.
        scores.set_xlabel(f"τ by {METHOD_LABELS[method]} / max |τ|", loc="right")
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
    axis = top.subplots(subplot_kw={"ylim": (-1, 1)})
    pictures.show(axis, "test", [test_position], size=32, width=PAGE / 2)
    key = f"*: p < {alpha:g}\nlines: {100 * (1 - alpha):g}% confidence intervals"
    top.text(0.995, 0.98, key, ha="right", va="top", fontsize=7)
    columns = bottom.subfigures(n_bands, n_across, squeeze=False).flat
    for column, (method, found) in zip(columns, by_method.items(), strict=False):
        images, bars = column.subplots(1, 2, width_ratios=(pictures.width, _OF_BARS), sharey=True)
        width = PAGE / n_across * pictures.width / (pictures.width + _OF_BARS)
        pictures.show(images, "train", found.train, size=24, width=width, named=False)
        heights = np.arange(len(found.train))
        reach = 1.05 * (np.abs(found.mean) + found.reach).max()
        bars.barh(
            heights,
            found.mean,
            xerr=found.reach,
            color=COLOURS[method],
            error_kw={"elinewidth": 0.8},
            capsize=1.5,
            height=0.3,
        )
        bars.axvline(0, color="0.6", linewidth=0.8)
        for height in heights[found.pvalue < alpha]:
            left = found.mean[height] > 0  # the side that the bar leaves free
            bars.text(
                0.1 if left else 0.9,
                height,
                "*",
                transform=bars.get_yaxis_transform(),
                ha="center",
                va="center",
            )
        sns.despine(ax=bars, left=True)
        bars.set(yticks=[], ylim=(n_rows - 0.5, -0.5), xlim=(-reach, reach))
        column.suptitle(METHOD_LABELS[method], fontsize=8)
        bars.set_xticks([0, nice_tick(reach)])
        bars.set_xlabel("τ, + helps" + scale_ticks(bars.xaxis, reach), loc="right")
    return figure
