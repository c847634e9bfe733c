"""The parts of a page as they are saved beside it: what each script wrote, and its files."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from src.errors import UserError
from src.storage.files import digest, write_atomically

OVERVIEW = "overview"  # the part that stands before the contents
# What writes each part, in the order of the page; other parts come after these.
SCRIPTS = {
    OVERVIEW: "run_pvalues.py, run_correlations.py or run_accuracy.py",
    "pvalues": "run_pvalues.py",
    "pvalues_snr": "run_pvalues.py --test snr",
    "correlations": "run_correlations.py",
    "accuracy": "run_accuracy.py",
    "mislabelled": "run_pvalues.py --mislabelled",
}
_FORMAT = 3  # of the saved parts; parts of another format cannot be shown


def load_parts(folder: Path) -> dict[str, dict[str, Any] | None]:
    """Return all parts of the page in a folder by key, in its order; None for a damaged one."""
    # A name that begins with a point is a temporary file's.
    found = [p for p in _parts_folder(folder).glob("*.json") if not p.name.startswith(".")]
    order = list(SCRIPTS)
    found.sort(key=lambda p: (order.index(p.stem) if p.stem in order else math.inf, p.stem))
    return {path.stem: _load_part(path) for path in found}


def save_part(folder: Path, key: str, content: dict[str, Any]) -> None:
    """Save a part of the page in a folder.

    Raises:
        UserError: It cannot be written.
    """
    text = json.dumps({**content, "checksum": _checksum(content)}, indent=1)
    path = _parts_folder(folder) / f"{key}.json"
    write_atomically(path, lambda file: file.write_text(text, encoding="utf-8"))


def check_output(folder: Path, title: str) -> None:
    """Raise UserError unless a folder that was asked for can take a page of this title.

    It is new or empty, or holds that page: nobody's files are written over.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder} is a file: name a folder for the page")
    others = {record["title"] for record in load_parts(folder).values() if record} - {title}
    if others:
        raise UserError(
            f"{folder} holds the page of {', '.join(sorted(others))}, not of {title}: "
            "name another folder"
        )
    if not _parts_folder(folder).exists() and any(folder.iterdir()):
        raise UserError(f"{folder} holds other files: name a new or an empty folder for the page")


def file_digest(path: Path) -> str | None:
    """Return the SHA-256 of a file; None if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _load_part(path: Path) -> dict[str, Any] | None:
    """Return a part as it was saved; None if it is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        checksum = content.pop("checksum")
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return None
    return content if checksum == _checksum(content) else None


def _parts_folder(folder: Path) -> Path:
    return folder / ".report"


def _checksum(content: dict[str, Any]) -> str:
    return digest([_FORMAT, content])
