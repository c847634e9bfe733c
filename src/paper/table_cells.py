"""Cells of the tables of RESULTS.md."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from src.experiments import PAPER_METHODS
from src.paper.measured import Measured
from src.plots.style import METHOD_LABELS


def by_method(
    measured: list[Measured],
    cell: Callable[[Measured, str], str],
    first: dict[str, Callable[[Measured], object]],
) -> pd.DataFrame:
    """Return a row for each experiment: its name, `first`, and a cell for each of the five.

    A method that was not measured has a dash.
    """
    return pd.DataFrame(
        [
            {"experiment": f"`{one.name}`", **{k: of(one) for k, of in first.items()}}
            | {METHOD_LABELS[m]: cell(one, m) if m in one.methods else "–" for m in PAPER_METHODS}
            for one in measured
        ]
    )


def interval(
    low: float,
    high: float,
    text_of: Callable[[float], str] = "{:.3f}".format,
    between: str = "–",
) -> str:
    """Return confidence limits; nothing where there are none."""
    return "" if np.isnan(low) else f"({text_of(low)}{between}{text_of(high)})"


def percent(share: float) -> str:
    """Return a share in percents; 0.0 and 100.0 are none and all."""
    if np.isnan(share):
        return "–"
    text = f"{100 * share:.1f}"
    if text == "0.0" and share > 0:
        return "<0.1"
    return ">99.9" if text == "100.0" and share < 1 else text


def halves_of(one: Measured, method: str) -> str:
    """Return Spearman's coefficient of the means over one half of the seeds with the other's."""
    halves = one.table("stability").query("method == @method")["rank_correlation"]
    return "–" if np.isnan(halves.iloc[-1]) else f"{halves.iloc[-1]:.2f}"
