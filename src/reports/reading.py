"""Words for numbers, which the readings of tables and figures share."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from src.plots.style import METHOD_LABELS


def listed(parts: Iterable[str]) -> str:
    """Return 'a', 'a and b' or 'a, b and c'."""
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


def of_methods(values: pd.Series, form: str) -> str:
    """Return 'LOO 0.12, ATS 0.03 and GC 0.01', of numbers by method."""
    return listed(f"{METHOD_LABELS[m]} {value:{form}}" for m, value in values.items())


def largest(values: pd.Series) -> str:
    """Return the label of the method with the largest number."""
    return METHOD_LABELS[values.idxmax()]
