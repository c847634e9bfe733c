"""Tables as people read them: the text of a cell, Markdown and LaTeX."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

_MISSING = "–"

Cell = bool | int | float | str | None


def plain_table(frame: pd.DataFrame, index: bool) -> tuple[list[str], list[list[Cell]]]:
    """Return the heads and rows of a frame, row labels first, levels of columns joined."""
    heads = [_head(column) for column in frame.columns]
    rows = [[_plain(value) for value in row] for row in frame.itertuples(index=False, name=None)]
    if index:
        heads = [_head(name) for name in frame.index.names] + heads
        labels = [label if isinstance(label, tuple) else (label,) for label in frame.index]
        rows = [[*map(_plain, label), *row] for label, row in zip(labels, rows, strict=True)]
    return heads, rows


def _head(label: object) -> str:
    levels = label if isinstance(label, tuple) else (label,)
    return ", ".join(str(level) for level in levels if level not in (None, ""))


def _plain(value: object) -> Cell:
    """Return a value as JSON knows it; None if it is missing."""
    if pd.isna(value) is True:  # of a list it is an array
        return None
    if isinstance(value, np.generic):
        value = value.item()
    return value if isinstance(value, bool | int | float | str) else str(value)


def leading_labels(rows: list[list[Cell]]) -> int:
    """Return how many columns stand before the first one with fractions, and leave one at least."""
    columns = list(zip(*rows, strict=True))
    fractions = [any(isinstance(cell, float) for cell in column) for column in columns]
    return fractions.index(True) if any(fractions) else min(1, len(columns) - 1)


def cell_text(cell: Cell, digits: int) -> str:
    """Return a cell for people."""
    if cell is None:
        return _MISSING
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, float):
        # 0.000 would say that there is nothing, and 0.001 of 0.0006 is far off.
        return f"{cell:.1e}" if 0 < abs(cell) < 10**-digits else f"{cell:.{digits}f}"
    return str(cell)


def setting_text(value: object) -> str:
    """Return a setting for people: a value, a list of them, or names with their values."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {setting_text(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(setting_text, value))
    # All digits of a number, as it was given.
    return str(value) if isinstance(value, float) else cell_text(_plain(value), digits=0)


def is_number(cells: tuple[Cell, ...]) -> bool:
    """Say whether a column holds numbers, and at least one."""
    there = [cell for cell in cells if cell is not None]
    return bool(there) and all(type(cell) in (int, float) for cell in there)


def markdown(texts: pd.DataFrame, numbers: list[bool]) -> str:
    """Return a table of texts in Markdown; columns of `numbers` are set to the right."""
    escaped = texts.map(_in_pipes).rename(columns=_in_pipes)
    alignment = ["right" if number else "left" for number in numbers]
    # Texts that look like numbers stay as they are.
    return escaped.to_markdown(index=False, disable_numparse=True, colalign=alignment) + "\n"


def _in_pipes(text: str) -> str:
    return re.sub(r"\s+", " ", text.replace("|", r"\|"))


def latex(texts: pd.DataFrame, numbers: list[bool], columns: pd.Index) -> str:
    """Return a tabular that needs the package booktabs.

    Args:
        texts: The cells.
        numbers: Whether each column holds numbers, which are set to the right.
        columns: Heads of the last columns, which may have several levels.
    """
    if columns.nlevels > 1:
        above = ("",) * (columns.nlevels - 1)
        labels = [(*above, head) for head in texts.columns[: texts.shape[1] - len(columns)]]
        own = [tuple(map(str, column)) for column in columns]
        texts = texts.set_axis(pd.MultiIndex.from_tuples([*labels, *own]), axis="columns")
    alignment = "".join("r" if number else "l" for number in numbers)
    latex = texts.to_latex(
        index=False, escape=True, column_format=alignment, multicolumn_format="c"
    )
    # A minus sign, where a number begins with one, instead of a hyphen.
    return re.sub(r"(?<![^\s{])-(?=\d)", "$-$", latex)
