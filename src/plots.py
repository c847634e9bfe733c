"""The figures, for a two-column paper: each drawn from arrays and frames, saved as PDF and PNG."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no screen on a cluster

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axis import Axis
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from scipy.stats import t as student_t

from src.experiments import METHODS
from src.stats import moments
from src.storage import write_atomically

COLUMN, PAGE = 3.25, 6.75  # widths in inches

METHOD_LABELS = {"loo": "LOO", "ats": "ATS", "if": "IF", "gd": "GD", "gc": "GC"}
STATISTIC_LABELS = {"mean": "mean of τ", "std": "standard deviation of τ", "pvalue": "p-value"}
_COLOURS = dict(zip(METHODS, sns.color_palette("colorblind", len(METHODS)), strict=True))
# So that colour is never the only key; IF and GD often lie on each other, hence the dashes.
_MARKERS = dict(zip(METHODS, "osD^v", strict=True))
_LINES = dict(zip(METHODS, ("-", "-", "-", "--", "-"), strict=True))

sns.set_theme(
    context="paper",
    style="ticks",
    rc={
        "font.size": 8,
        "axes.titlesize": 8,
        "axes.labelsize": 8,
        "xtick.labelsize": 7,
        "ytick.labelsize": 7,
        "legend.fontsize": 7,
        "pdf.fonttype": 42,  # editable text, as journals ask
        "figure.constrained_layout.use": True,
    },
)


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Save a figure as `<name>.pdf` and `<name>.png` and close it; return the two paths."""
    paths = [folder / f"{name}.pdf", folder / f"{name}.png"]
    for path in paths:
        # No date in the PDF: the same numbers give the same file.
        metadata = {"CreationDate": None} if path.suffix == ".pdf" else None
        write_atomically(path, lambda file, m=metadata: figure.savefig(file, dpi=300, metadata=m))
    plt.close(figure)
    return paths


def pvalue_histograms(p: dict[str, np.ndarray], alpha: float) -> Figure:
    """Draw a histogram of p-values for each method, with the significance level."""
    figure, axes = plt.subplots(
        1, len(p), figsize=(PAGE, 1.9), sharex=True, sharey=True, squeeze=False
    )
    for axis, (method, values) in zip(axes[0], p.items(), strict=True):
        sns.histplot(
            x=values.ravel(),
            bins=np.linspace(0, 1, 21),
            stat="percent",
            color=_COLOURS[method],
            edgecolor="white",
            linewidth=0.3,
            alpha=1,
            ax=axis,
        )
        axis.axvline(alpha, color="black", linestyle="--", linewidth=0.8)
        axis.set(
            title=f"{METHOD_LABELS[method]}\n{(values < alpha).mean():.1%} below {alpha:g}",
            xlabel="p-value",
            ylabel="% of pairs",
            xlim=(0, 1),
            xticks=[0, 0.5, 1],
            xticklabels=["0", "0.5", "1"],
        )
    sns.despine(figure)
    return figure


def mean_pvalue_by_checkpoints(means: pd.DataFrame) -> Figure:
    """Draw the mean p-value against the number of checkpoints, a line for each method."""
    figure, axis = plt.subplots(figsize=(COLUMN, 2.3))
    for method in means.columns:
        axis.plot(
            means.index,
            means[method],
            color=_COLOURS[method],
            marker=_MARKERS[method],
            linestyle=_LINES[method],
            markersize=4,
            linewidth=1.2,
            label=METHOD_LABELS[method],
        )
    axis.set(
        xlabel="number of checkpoints averaged",
        ylabel="mean p-value",
        xticks=means.index,
        ylim=(0, None),
    )
    axis.locator_params(axis="y", nbins=5)
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    sns.despine(figure)
    return figure


def mean_against_std(samples: dict[str, np.ndarray], alpha: float) -> Figure:
    """Draw mean against standard deviation of every pair's score, a panel for each method.

    Args:
        samples: Samples (T, n_train, n_test), by method.
        alpha: Pairs below the two lines are significant at this level by the t-test.
    """
    figure, axes = plt.subplots(1, len(samples), figsize=(PAGE, 1.9), squeeze=False)
    norm = LogNorm(1, 10 ** np.ceil(np.log10(next(iter(samples.values()))[0].size / 10)))
    for axis, (method, values) in zip(axes[0], samples.items(), strict=True):
        mean, std = (moment.ravel() for moment in moments(values))
        # The few largest of many pairs would leave the rest a dot in the corner.
        limit_x, limit_y = (np.quantile(np.abs(v), 0.995) or 1.0 for v in (mean, std))
        density = axis.hexbin(
            mean,
            std,
            gridsize=30,
            norm=norm,
            cmap="viridis_r",
            extent=(-limit_x, limit_x, 0, limit_y),
            linewidths=0.1,
            rasterized=True,
        )
        n_draws = len(values)
        slope = np.sqrt(n_draws) / student_t.ppf(1 - alpha / 2, n_draws - 1)
        axis.plot(
            [-limit_x, 0, limit_x],
            [slope * limit_x, 0, slope * limit_x],
            color="black",
            linestyle="--",
            linewidth=0.8,
        )
        # One tick on each side of zero, at the largest of 1, 2, 5, 10, ... that fits.
        decade = 10 ** np.floor(np.log10(limit_x))
        tick = decade * max(step for step in (1, 2, 5) if step * decade <= limit_x)
        axis.set_xticks([-tick, 0, tick])
        axis.locator_params(axis="y", nbins=3)
        axis.set(title=METHOD_LABELS[method], xlim=(-limit_x, limit_x), ylim=(0, limit_y))
        axis.set_xlabel("mean of τ" + _scale(axis.xaxis, limit_x))
        axis.set_ylabel(("std of τ" if axis is axes[0, 0] else "") + _scale(axis.yaxis, limit_y))
    figure.colorbar(density, ax=axes, label="pairs", aspect=30)
    sns.despine(figure)
    return figure


def _scale(axis: Axis, limit: float) -> str:
    """Divide an axis's tick labels by a power of ten and return it for the axis's label."""
    exponent = int(np.floor(np.log10(limit)))
    if exponent in (-1, 0, 1):
        exponent = 0
    axis.set_major_formatter(
        lambda value, _: f"{value / 10.0**exponent:g}".replace("-", "\N{MINUS SIGN}")
    )
    return f" ($10^{{{exponent}}}$)" if exponent else ""


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


def pair_sheet(
    samples: np.ndarray,
    p: np.ndarray,
    train: dict,
    test: dict,
    *,
    method: str,
    class_names: tuple[str, ...],
    n_pairs: int = 5,
) -> Figure:
    """Draw the pairs of lowest and highest p-value: both images, labels, and every draw's score.

    Args:
        samples: Samples (T, n_train, n_test).
        p: P-values (n_train, n_test).
        train: Tensors of the train split: images uint8 (n_train, C, H, W), labels, indices.
        test: Tensors of the test split.
        method: The method, for the axis label.
        class_names: What each label is called.
        n_pairs: Pairs on each side; no training and no test sample is shown twice on a side.
    """
    figure = plt.figure(figsize=(PAGE, 0.72 * n_pairs + 0.6))
    sides = figure.subfigures(1, 2, wspace=0.03)
    for side, order, title in (
        (
            sides[0],
            np.argsort(p, axis=None, kind="stable"),
            "lowest p-values (bar: mean over draws)",
        ),
        (
            sides[1],
            np.argsort(-p, axis=None, kind="stable"),
            "highest p-values (bar: mean over draws)",
        ),
    ):
        pairs = _distinct_pairs(order, p.shape, n_pairs)
        axes = side.subplots(len(pairs), 3, width_ratios=(1, 1, 3), sharex="col", squeeze=False)
        side.suptitle(title, fontsize=8)
        reach = 1.1 * max(np.abs(samples[:, i, j]).max() for i, j in pairs) or 1.0
        for row, (i, j) in zip(axes, pairs, strict=True):
            _show(row[0], train, i, class_names)
            _show(row[1], test, j, class_names)
            values = samples[:, i, j]
            row[2].axvline(0, color="0.6", linewidth=0.8)
            row[2].plot(
                values, np.zeros_like(values), "o", color=_COLOURS[method], alpha=0.6, markersize=4
            )
            row[2].plot(values.mean(), 0, "|", color="black", markersize=14, markeredgewidth=1.2)
            number = f"{p[i, j]:.1e}" if p[i, j] < 1e-3 else f"{p[i, j]:.2g}"
            row[2].text(
                0.02, 0.95, f"p = {number}", transform=row[2].transAxes, va="top", fontsize=7
            )
            row[2].set(yticks=[], xlim=(-reach, reach))
            sns.despine(ax=row[2], left=True)
        axes[0, 0].set_title("train")
        axes[0, 1].set_title("test")
        axes[-1, 2].locator_params(axis="x", nbins=4)
        axes[-1, 2].set_xlabel(f"τ by {METHOD_LABELS[method]}" + _scale(axes[-1, 2].xaxis, reach))
    return figure


def _distinct_pairs(
    order: np.ndarray, shape: tuple[int, ...], n_pairs: int
) -> list[tuple[int, int]]:
    """Return the first pairs of an order of flat positions that share no sample."""
    pairs: list[tuple[int, int]] = []
    trains, tests = set(), set()
    for i, j in zip(*np.unravel_index(order, shape), strict=True):
        if i not in trains and j not in tests:
            pairs.append((int(i), int(j)))
            trains.add(i)
            tests.add(j)
        if len(pairs) == n_pairs:
            break
    return pairs


def _show(axis: plt.Axes, tensors: dict, position: int, class_names: tuple[str, ...]) -> None:
    image = tensors["images"][position].permute(1, 2, 0).numpy()
    axis.imshow(image.squeeze(), cmap="gray_r", interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    axis.set_ylabel(
        f"{tensors['indices'][position]}\n{class_names[tensors['labels'][position]]}",
        rotation=0,
        ha="right",
        va="center",
        fontsize=7,
    )
