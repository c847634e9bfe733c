"""A script's part of the page: tables and figures, written as they come."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from src.plots.style import save_figure, subject_strip
from src.reports.cells import (
    cell_text,
    is_number,
    latex,
    leading_labels,
    markdown,
    plain_table,
    setting_text,
)
from src.reports.page import render
from src.reports.parts import file_digest, load_parts, save_part
from src.reports.revision import library_versions
from src.storage.files import write_atomically

# A figure of a page's width is then as wide as the text, and narrower ones have letters as large.
_PIXELS_PER_INCH = 142

Item = dict[str, Any]  # a table, figure or file on a page, as it is saved beside it


class Report:
    """Tables and figures of one script, written as they come, and the page that shows them.

    Attributes:
        items: What is on the page of each of them, in their order.
    """

    def __init__(
        self,
        folder: Path,
        title: str,
        part: str,
        heading: str,
        settings: dict[str, object],
        source: str = "",
        script: str = "",
    ) -> None:
        """Begin a part of the page.

        Args:
            folder: Where everything is written: results/<experiment>.
            title: Title of the page, the same for all its parts, and of what its figures show.
            part: Key of this script's part, which can be a file's name.
            heading: Heading of the part.
            settings: Shown at the end of the page, by name.
            source: Digest of the scores that the part is made from. Parts made from others than the
                latest one say so on the page.
            script: What is run to write it again; empty: known by the part's key.
        """
        self._folder = folder
        self._title = title
        self._part = part
        self._content = {
            "title": title,
            "source": source,
            "script": script,
            "heading": heading,
            "settings": {name: setting_text(value) for name, value in settings.items()},
            "versions": library_versions(),
        }
        self.items: list[Item] = []

    def empty(self) -> Report:
        """Return a report for the same part of the page, with none of its tables and figures."""
        other = copy(self)
        other.items = []
        return other

    def table(
        self,
        name: str,
        frame: pd.DataFrame,
        title: str,
        reading: str,
        *,
        index: bool = True,
        digits: int = 3,
        formats: tuple[str, ...] = ("csv",),
    ) -> None:
        """Write a table and put it on the page.

        Args:
            name: Of its files, without suffix.
            frame: The numbers; rows and columns may have several levels.
            title: What the table holds.
            reading: One sentence on how to read it.
            index: Whether the row labels belong to the table; without them the columns before the
                first one that has fractions label a row.
            digits: After the point, everywhere but in the CSV, which has all there are.
            formats: Of "csv", "md" and "tex".

        Raises:
            UserError: A file cannot be written.
        """
        heads, rows = plain_table(frame, index)
        numbers = [is_number(column) for column in zip(*rows, strict=True)] or [False] * len(heads)
        texts = pd.DataFrame(
            [[cell_text(cell, digits) for cell in row] for row in rows], columns=heads
        )
        n_labels = len(heads) - frame.shape[1] if index else leading_labels(rows)
        writers = {
            "csv": lambda: frame.set_axis(heads[-frame.shape[1] :], axis="columns").to_csv(
                index=index
            ),
            "md": lambda: markdown(texts, numbers),
            "tex": lambda: latex(texts, numbers, frame.columns),
        }
        paths = [self._folder / f"{name}.{suffix}" for suffix in formats]
        for path, suffix in zip(paths, formats, strict=True):
            text = writers[suffix]()
            write_atomically(path, lambda file, t=text: file.write_text(t, encoding="utf-8"))
        table = {"heads": heads, "rows": rows, "numbers": numbers, "n_labels": n_labels}
        self._add("table", name, title, reading, paths, {**table, "digits": digits})

    def figure(
        self, name: str, figure: Figure, title: str, reading: str, *, remark: str = ""
    ) -> None:
        """Save a figure as figures/<name>.pdf and .png, close it, and put it on the page.

        Args:
            name: Of its files, without suffix.
            figure: The figure.
            title: What the figure shows.
            reading: One sentence on how to read it.
            remark: Written below the figure, behind what it is about.

        Raises:
            UserError: A file cannot be written.
        """
        subject = ", ".join(filter(None, [self._title, remark]))
        width, height = figure.get_size_inches()
        _, strip = subject_strip(width, subject)
        pixels = {
            "width": round(_PIXELS_PER_INCH * width),
            "height": round(_PIXELS_PER_INCH * (height + strip)),
        }
        paths = save_figure(figure, self._folder / "figures", name, subject)
        self._add("figure", name, title, reading, paths, pixels)

    def facts(self, name: str, facts: dict[str, object], title: str, reading: str = "") -> None:
        """Put names with their values on the page.

        Args:
            name: Of the place on the page.
            facts: The values, by name.
            title: What they say.
            reading: One sentence more; empty: none.
        """
        texts = {fact: setting_text(value) for fact, value in facts.items()}
        self._add("facts", name, title, reading, [], {"facts": texts})

    def file(self, file: str, write: Callable[[Path], Any], title: str, reading: str) -> None:
        """Write a file that is too large to be shown, and link it on the page.

        Args:
            file: Name of the file.
            write: Called with its path; writes it atomically.
            title: What the file holds.
            reading: What stands in it.

        Raises:
            UserError: The file cannot be written.
        """
        path = self._folder / file
        write(path)
        self._add("file", path.stem, title, reading, [path], {})

    def _add(
        self, kind: str, name: str, title: str, reading: str, paths: list[Path], own: dict[str, Any]
    ) -> None:
        files = [path.relative_to(self._folder).as_posix() for path in paths]
        item = {"kind": kind, "name": name, "title": title, "reading": reading, "files": files}
        self.items.append(item | own)

    def close(self) -> Path:
        """Save this part, write the page with all parts that are there, and return its path.

        What an earlier run of this part wrote and this one did not is removed.

        Raises:
            UserError: A file cannot be written.
        """
        self._content["items"] = self.items
        files = [file for item in self.items for file in item["files"]]
        self._content["files"] = {file: file_digest(self._folder / file) for file in files}
        self._remove_earlier()
        save_part(self._folder, self._part, self._content)
        page, written = self._folder / "index.html", None
        # Again if it came out differently by now: another script may have saved its part, and
        # written its page, between our reading and our writing.
        while (html := render(self._folder, self._title, self._content["source"])) != written:
            write_atomically(page, lambda file, h=html: file.write_text(h, encoding="utf-8"))
            written = html
        return page

    def _remove_earlier(self) -> None:
        """Remove the files that the record of this part lists and no present part does.

        A file whose bytes are no longer those that were written is somebody's own, and stays.
        """
        records = load_parts(self._folder)
        earlier = (records.pop(self._part, None) or {}).get("files", {})
        present = set(self._content["files"]).union(*(r["files"] for r in records.values() if r))
        for file in earlier.keys() - present:
            path = self._folder / file
            if earlier[file] is not None and file_digest(path) == earlier[file]:
                path.unlink(missing_ok=True)
