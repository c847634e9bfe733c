"""The page of an experiment's results: tables and figures of several scripts in one HTML file."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import platform
import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from src.errors import UserError
from src.plots.style import save_figure, subject_strip
from src.storage.files import digest, write_atomically

OVERVIEW = "overview"  # the part that stands before the contents
# What writes each part, in the order of the page; other parts come after these.
_SCRIPTS = {
    OVERVIEW: "run_pvalues.py or run_correlations.py",
    "pvalues": "run_pvalues.py",
    "pvalues_snr": "run_pvalues.py --test snr",
    "correlations": "run_correlations.py",
}
_PACKAGES = ("torch", "numpy", "pandas", "scipy")
_FORMAT = 2  # of the saved parts; parts of another format cannot be shown
_LONG = 15  # rows; longer tables are folded on the page
# A figure of a page's width is then as wide as the text, and narrower ones have letters as large.
_PIXELS_PER_INCH = 142
_MISSING = "–"

Cell = bool | int | float | str | None


class Report:
    """Tables and figures of one script, written as they come, and the page that shows them."""

    def __init__(
        self,
        folder: Path,
        title: str,
        part: str,
        heading: str,
        settings: dict[str, object],
        source: str = "",
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
        """
        self._folder = folder
        self._title = title
        self._part = part
        self._content = {
            "title": title,
            "source": source,
            "heading": heading,
            "settings": {name: _setting(value) for name, value in settings.items()},
            "versions": library_versions(),
            "items": [],
        }

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
        heads, rows = _plain_table(frame, index)
        numbers = [_is_number(column) for column in zip(*rows, strict=True)] or [False] * len(heads)
        texts = pd.DataFrame([[_text(cell, digits) for cell in row] for row in rows], columns=heads)
        n_labels = len(heads) - frame.shape[1] if index else _leading_labels(rows)
        writers = {
            "csv": lambda: frame.set_axis(heads[-frame.shape[1] :], axis="columns").to_csv(
                index=index
            ),
            "md": lambda: _markdown(texts, numbers),
            "tex": lambda: _latex(texts, numbers, frame.columns),
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
        texts = {fact: _setting(value) for fact, value in facts.items()}
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
        self._content["items"].append(item | own)

    def close(self) -> Path:
        """Save this part, write the page with all parts that are there, and return its path.

        What an earlier run of this part wrote and this one did not is removed.

        Raises:
            UserError: A file cannot be written.
        """
        files = [file for item in self._content["items"] for file in item["files"]]
        self._content["files"] = {file: _file_digest(self._folder / file) for file in files}
        self._remove_earlier()
        content = json.dumps({**self._content, "checksum": _checksum(self._content)}, indent=1)
        path = _parts_folder(self._folder) / f"{self._part}.json"
        write_atomically(path, lambda file: file.write_text(content, encoding="utf-8"))
        page, written = self._folder / "index.html", None
        # Again if it came out differently by now: another script may have saved its part, and
        # written its page, between our reading and our writing.
        while (html := _render(self._folder, self._title, self._content["source"])) != written:
            write_atomically(page, lambda file, h=html: file.write_text(h, encoding="utf-8"))
            written = html
        return page

    def _remove_earlier(self) -> None:
        """Remove the files that the record of this part lists and no present part does.

        A file whose bytes are no longer those that were written is somebody's own, and stays.
        """
        records = {
            part: _load_part(_parts_folder(self._folder) / f"{part}.json")
            for part in _saved_parts(self._folder)
        }
        earlier = (records.pop(self._part, None) or {}).get("files", {})
        present = set(self._content["files"]).union(*(r["files"] for r in records.values() if r))
        for file in earlier.keys() - present:
            path = self._folder / file
            if earlier[file] is not None and _file_digest(path) == earlier[file]:
                path.unlink(missing_ok=True)


def check_output(folder: Path, title: str) -> None:
    """Raise UserError unless a folder that was asked for can take a page of this title.

    It is new or empty, or holds that page: nobody's files are written over.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"--output {folder} is a file: name a folder")
    titles = {
        record["title"]
        for part in _saved_parts(folder)
        if (record := _load_part(_parts_folder(folder) / f"{part}.json")) is not None
    }
    if titles - {title}:
        raise UserError(
            f"--output {folder} holds the page of {', '.join(sorted(titles - {title}))}, not of "
            f"{title}: name another folder"
        )
    if not _parts_folder(folder).exists() and any(folder.iterdir()):
        raise UserError(f"--output {folder} holds other files: name a new or an empty folder")


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that make the numbers of a page."""
    return {"Python": platform.python_version()} | {p: version(p) for p in _PACKAGES}


def _setting(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_setting(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_setting, value))
    # All digits of a number, as it was given.
    return str(value) if isinstance(value, float) else _text(_plain(value), digits=0)


def _plain_table(frame: pd.DataFrame, index: bool) -> tuple[list[str], list[list[Cell]]]:
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


def _leading_labels(rows: list[list[Cell]]) -> int:
    """Return how many columns stand before the first one with fractions, and leave one at least."""
    columns = list(zip(*rows, strict=True))
    fractions = [any(isinstance(cell, float) for cell in column) for column in columns]
    return fractions.index(True) if any(fractions) else min(1, len(columns) - 1)


def _text(cell: Cell, digits: int) -> str:
    """Return a cell for people."""
    if cell is None:
        return _MISSING
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, float):
        # 0.000 would say that there is nothing, and 0.001 of 0.0006 is far off.
        return f"{cell:.1e}" if 0 < abs(cell) < 10**-digits else f"{cell:.{digits}f}"
    return str(cell)


def _is_number(cells: tuple[Cell, ...]) -> bool:
    """Say whether a column holds numbers, and at least one."""
    there = [cell for cell in cells if cell is not None]
    return bool(there) and all(type(cell) in (int, float) for cell in there)


def _markdown(texts: pd.DataFrame, numbers: list[bool]) -> str:
    escaped = texts.map(_in_pipes).rename(columns=_in_pipes)
    alignment = ["right" if number else "left" for number in numbers]
    # Texts that look like numbers stay as they are.
    return escaped.to_markdown(index=False, disable_numparse=True, colalign=alignment) + "\n"


def _in_pipes(text: str) -> str:
    return re.sub(r"\s+", " ", text.replace("|", r"\|"))


def _latex(texts: pd.DataFrame, numbers: list[bool], columns: pd.Index) -> str:
    """Return a tabular that needs the package booktabs; `columns` may have several levels."""
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


def _parts_folder(folder: Path) -> Path:
    return folder / ".report"


def _checksum(content: dict[str, Any]) -> str:
    return digest([_FORMAT, content])


def _file_digest(path: Path) -> str | None:
    """Return the SHA-256 of a file; None if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _render(folder: Path, title: str, source: str) -> str:
    """Return the page of all parts in a folder; of what is damaged, gone or stale it says so."""
    parts, damaged = [], []
    for part in _saved_parts(folder):
        script = _SCRIPTS.get(part, f"the script of “{part}”")
        content = _load_part(_parts_folder(folder) / f"{part}.json")
        if content is None:
            damaged.append({"part": part, "script": script})
            continue
        for item in content["items"]:
            item["gone"] = [file for file in item["files"] if not (folder / file).exists()]
            if item["kind"] == "figure":
                item["image"] = _data_uri(folder / "figures" / f"{item['name']}.png")
        stale = content["source"] != source
        parts.append({**content, "key": part, "script": script, "stale": stale})
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates"), encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"text": _text, "prose": _prose, "plain": _without_backticks}
    template = environment.get_template("report.html")
    return template.render(title=title, parts=parts, damaged=damaged, long=_LONG, overview=OVERVIEW)


def _prose(text: str) -> Markup:
    """Return a sentence in which names between backticks are set as code."""
    return Markup(_without_backticks(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text)))))


def _without_backticks(text: str) -> str:
    return text.replace("`", "")


def _saved_parts(folder: Path) -> list[str]:
    """Return the keys of all parts in the order of the page."""
    # A name that begins with a point is a temporary file's.
    keys = [p.stem for p in _parts_folder(folder).glob("*.json") if not p.name.startswith(".")]
    order = list(_SCRIPTS)
    return sorted(keys, key=lambda key: (order.index(key) if key in order else math.inf, key))


def _load_part(path: Path) -> dict[str, Any] | None:
    """Return a part as it was saved; None if it is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        checksum = content.pop("checksum")
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return None
    return content if checksum == _checksum(content) else None


def _data_uri(path: Path) -> str | None:
    """Return an image as part of a page; None if its file cannot be read."""
    try:
        image = path.read_bytes()
    except OSError:
        return None
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"
