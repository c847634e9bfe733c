"""Figures of single train-test pairs, with their images."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from src.plots.style import COLOURS, METHOD_LABELS, PAGE, scale_ticks


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
                values, np.zeros_like(values), "o", color=COLOURS[method], alpha=0.6, markersize=4
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
        axes[-1, 2].set_xlabel(
            f"τ by {METHOD_LABELS[method]}" + scale_ticks(axes[-1, 2].xaxis, reach)
        )
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
