"""What all figures share, for a two-column paper: sizes, colours, labels and how they are saved."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from textwrap import wrap

import matplotlib

matplotlib.use("Agg")  # no screen on a cluster

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axis import Axis
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from src.experiments import METHODS
from src.storage.files import write_atomically

COLUMN, PAGE = 3.25, 6.75  # widths in inches
ACROSS = 5  # panels beside each other at most
_SUBJECT_SIZE = 6  # points

METHOD_LABELS = {name: method.label for name, method in METHODS.items()}
STATISTIC_LABELS = {"mean": "mean of τ", "std": "standard deviation of τ", "pvalue": "p-value"}
# The five of the paper have the first five colours; from the eleventh on colours come again, with
# other markers and dashes, so that colour is never the only key. IF and GD often lie on each other,
# hence the dashes of the latter.
_PALETTE = sns.color_palette("colorblind", 10)
COLOURS = {name: _PALETTE[k % 10] for k, name in enumerate(METHODS)}
# Points of stars, behind the letters of filled markers. These are no letters: matplotlib takes them
# as `marker` alone, and not in a format such as "o-".
_STARS = ((4, 1), (6, 1), (8, 1), (3, 1))
MARKERS = dict(zip(METHODS, (*"osD^vPX<>phd*H8", *_STARS), strict=False))
_DASHES = "-", "-.", ":", (0, (6, 1, 1, 1, 1, 1))
LINES = {name: "--" if name == "gd" else _DASHES[k // 5] for k, name in enumerate(METHODS)}


def apply() -> None:
    """Have all figures look the same, whatever a person's matplotlibrc says."""
    matplotlib.rcdefaults()
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


apply()


def save_figure(figure: Figure, folder: Path, name: str, subject: str = "") -> list[Path]:
    """Save a figure as `<name>.pdf` and `<name>.png` and close it.

    Args:
        figure: The figure.
        folder: Where the files go.
        name: Of the files, without suffix.
        subject: What the figure is about, written in a strip of its own below it.

    Returns:
        The two paths.
    """
    # Everything is placed once, by the letters of the PDF. While there is a layout engine, even one
    # that does nothing, matplotlib draws each file twice, the first time for the engine alone.
    figure.set_canvas(FigureCanvasPdf(figure))
    figure.get_layout_engine().execute(figure)
    paths = [folder / f"{name}.pdf", folder / f"{name}.png"]
    with plt.rc_context({"figure.constrained_layout.use": False}):
        figure.set_layout_engine(None)
        box = _with_subject(figure, subject)
        for path in paths:
            # No date in the PDF: the same numbers give the same file.
            metadata = {"CreationDate": None} if path.suffix == ".pdf" else None
            write_atomically(
                path,
                lambda file, m=metadata: figure.savefig(file, dpi=300, metadata=m, bbox_inches=box),
            )
    plt.close(figure)
    return paths


def subject_strip(width: float, subject: str) -> tuple[str, float]:
    """Return a subject, broken into lines for a figure's width, and their height, in inches."""
    # Letters are little more than half as wide as high, most of them.
    lines = wrap(subject, int(width * 72 / (0.6 * _SUBJECT_SIZE)), break_on_hyphens=False)
    return "\n".join(lines), _SUBJECT_SIZE / 72 * (1.2 * len(lines) + 0.6) if lines else 0.0


def _with_subject(figure: Figure, subject: str) -> Bbox:
    """Write what a figure is about below it; return the box, in inches, that holds both.

    Outside the figure's own box it can meet nothing that is drawn inside, whatever the layout.
    """
    width, height = figure.get_size_inches()
    text, strip = subject_strip(width, subject)
    figure.text(
        1 - 0.05 / width,
        -strip / 2 / height,
        text,
        ha="right",
        va="center",
        fontsize=_SUBJECT_SIZE,
        color="0.35",
        parse_math=False,
    )
    return Bbox([[0, -strip], [width, height]])


def scale_ticks(axis: Axis, limit: float, digits: int = 6) -> str:
    """Divide an axis's tick labels by a power of ten and return it for the axis's label."""
    exponent = int(np.floor(np.log10(limit)))
    if exponent in (-1, 0, 1):
        exponent = 0
    axis.set_major_formatter(
        lambda value, _: f"{value / 10.0**exponent:.{digits}g}".replace("-", "\N{MINUS SIGN}")
    )
    return f" ($10^{{{exponent}}}$)" if exponent else ""


def nice_tick(limit: float) -> float:
    """Return the largest of 1, 2, 5, 10, ... (and their tenths and so on) within a limit."""
    decade = 10 ** np.floor(np.log10(limit))
    return decade * max(step for step in (1, 2, 5) if step * decade <= limit)


def small_multiples(
    n_panels: int, height: float, n_rows: int = 1, **shared: object
) -> tuple[Figure, np.ndarray, list[int]]:
    """Return a figure of panels beside each other, which goes on below after ACROSS of them.

    Args:
        n_panels: Number of panels.
        height: Of a band of panels, in inches.
        n_rows: Axes below each other in a panel.
        **shared: sharex and sharey of `plt.subplots`.

    Returns:
        The figure, its axes (n_rows, n_panels), and which panels begin a band.
    """
    n_across = min(ACROSS, n_panels)
    n_bands = -(-n_panels // n_across)
    figure, axes = plt.subplots(
        n_bands * n_rows, n_across, figsize=(PAGE, height * n_bands), squeeze=False, **shared
    )
    panels = axes.reshape(n_bands, n_rows, n_across).transpose(1, 0, 2).reshape(n_rows, -1)
    for axis in panels[:, n_panels:].flat:
        axis.remove()
    for axis in panels[-1, :n_panels]:
        axis.tick_params(labelbottom=True)  # which shared axes have in the last band alone
    return figure, panels[:, :n_panels], list(range(0, n_panels, n_across))


def label_methods(axis: plt.Axes, methods: Iterable[str]) -> None:
    """Label the places 0, 1, ... of a horizontal axis with methods; many stand upright."""
    labels = [METHOD_LABELS[m] for m in methods]
    axis.set_xticks(range(len(labels)), labels, rotation=90 if len(labels) > ACROSS else 0)


def legend_above(figure: Figure, axis: plt.Axes) -> None:
    """Put the legend of an axis, whose looks all axes share, above all of them."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(
        handles, labels, frameon=False, loc="outside upper right", ncols=min(len(labels), 8)
    )


def error_bars(frame: pd.DataFrame, column: str) -> np.ndarray:
    """Return the lengths (2, n) of the error bars of a column from its `_low` and `_high`."""
    value = frame[column]
    return np.stack([value - frame[f"{column}_low"], frame[f"{column}_high"] - value])


def dot_opacity(n_dots: int) -> float:
    """Return how opaque dots are that may lie on each other, so that many show where they crowd."""
    return min(0.6, 6 / n_dots)


def pvalue_text(p: float) -> str:
    """Return a p-value for people, which is 0 or 1 only if it is."""
    if p in (0, 1):
        return f"{p:g}"
    if p < 1e-3:
        return f"{p:.1e}"
    return min(f"{p:.3f}", "0.999") if p < 1 else f"{p:.3f}"
