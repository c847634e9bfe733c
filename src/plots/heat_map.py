"""Heat maps of small matrices, with their numbers written in."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from seaborn.utils import relative_luminance


def heat_map(
    axis: plt.Axes,
    matrix: np.ndarray,
    limits: tuple[float, float],
    colours: str,
    form: str,
    letters: float,
    row_labels: list[str],
    column_labels: list[str],
) -> QuadMesh:
    """Draw a matrix as `seaborn.heatmap` does, which draws the whole figure once for each of them.

    Args:
        axis: Where to draw.
        matrix: The numbers, (n_rows, n_columns); NaN leaves a hole with a dash in it.
        limits: The numbers of the first and of the last colour.
        colours: Name of a colour map.
        form: How a number is written, for example ".2f".
        letters: Size of the numbers, in points.
        row_labels: Labels of the rows; none, or one each.
        column_labels: Labels of the columns, one each.

    Returns:
        What a colour bar can be made for.
    """
    sns.despine(ax=axis, left=True, bottom=True)
    low, high = limits
    mesh = axis.pcolormesh(
        np.ma.masked_invalid(matrix),
        cmap=colours,
        vmin=low,
        vmax=high,
        linewidths=0.5,
        edgecolor="white",
    )
    axis.invert_yaxis()
    axis.set_aspect("equal")
    axis.set_xticks(np.arange(len(column_labels)) + 0.5, column_labels)
    axis.set_yticks(np.arange(len(row_labels)) + 0.5, row_labels, va="center")
    axis.tick_params(length=0)
    mesh.update_scalarmappable()  # its colours are known only from here on
    for (row, column), number, colour in zip(
        np.ndindex(matrix.shape), matrix.flat, mesh.get_facecolors(), strict=True
    ):
        axis.text(
            column + 0.5,
            row + 0.5,
            "–" if np.isnan(number) else f"{number:z{form}}",  # z: no minus before a 0.00
            color=_letter_colour(colour),
            ha="center",
            va="center",
            fontsize=letters,
        )
    return mesh


def _letter_colour(colour: np.ndarray) -> str:
    """Return which of black and white stands out more from a colour (RGBA) on white paper.

    The better of the two has a contrast of sqrt(21) = 4.58 at least, by the definition of WCAG 2;
    with a dark grey in place of black it would fall below the 4.5 that WCAG asks for.
    """
    *rgb, alpha = colour
    luminance = relative_luminance([alpha * channel + 1 - alpha for channel in rgb])
    return "black" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "white"


def make_room(figure: Figure) -> None:
    """Lay a figure of heat maps out, so that the layout it is saved in leaves room for titles.

    The layout engine measures how far titles and labels reach over each axis's slot. Before the
    first layout the squares are smaller than their slots, and nothing reaches over.
    """
    figure.get_layout_engine().execute(figure)
