"""How many seeds and training samples a table or figure rests on, said by each of them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from src.analysis.rows import Rows
from src.reports.reading import counted, words_of_rows
from src.reports.report import Report


class DrawsReport:
    """A report whose tables and figures all rest on the same T seeds, and say so.

    A table has T in a column `draws`, a figure below it, both in their titles. Where not all
    training samples are scored, titles and figures say how many are.
    """

    def __init__(self, report: Report, n_draws: int, rows: Collection[Rows] = ()) -> None:
        """Wrap a report.

        Args:
            report: Takes the tables and figures.
            n_draws: T.
            rows: The training samples that are scored, of each experiment.
        """
        self._report = report
        self._n_draws = n_draws
        self._words = ", ".join(filter(None, [counted(n_draws, "seed"), words_of_rows(rows)]))

    def table(
        self, name: str, frame: pd.DataFrame, title: str, reading: str, **options: Any
    ) -> None:
        """Write a table as `Report.table` does."""
        levels = frame.columns.nlevels
        label = "draws" if levels == 1 else ("draws", *[""] * (levels - 1))
        if label not in frame.columns:
            frame = frame.copy()
            frame.insert(0, label, self._n_draws)
        self._report.table(name, frame, f"{title} ({self._words})", reading, **options)

    def figure(self, name: str, figure: Figure, title: str, reading: str) -> None:
        """Save a figure as `Report.figure` does."""
        remark = f"T = {self._words}".replace(" ", "\N{NO-BREAK SPACE}")
        self._report.figure(name, figure, f"{title} ({self._words})", reading, remark=remark)

    def file(self, name: str, write: Callable[[Path], Any], title: str, reading: str) -> None:
        """Write a file as `Report.file` does."""
        self._report.file(name, write, f"{title} ({self._words})", reading)
