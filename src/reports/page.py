"""The page of an experiment's results: the saved parts in one HTML file."""

from __future__ import annotations

import base64
import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from src.reports.cells import cell_text
from src.reports.parts import OVERVIEW, SCRIPTS, load_parts

_LONG = 15  # rows; longer tables are folded on the page


def render(folder: Path, title: str, source: str) -> str:
    """Return the page of all parts in a folder; of what is damaged, gone or stale it says so."""
    parts, damaged = [], []
    for part, content in load_parts(folder).items():
        script = SCRIPTS.get(part, f"the script of “{part}”")
        if content is None:
            damaged.append({"part": part, "script": script})
            continue
        for item in content["items"]:
            item["gone"] = [file for file in item["files"] if not (folder / file).exists()]
            if item["kind"] == "figure":
                item["image"] = _data_uri(folder / "figures" / f"{item['name']}.png")
        stale = content["source"] != source
        script = content["script"] or script
        parts.append({**content, "key": part, "script": script, "stale": stale})
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates"), encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"text": cell_text, "prose": _prose, "plain": _without_backticks}
    template = environment.get_template("report.html")
    return template.render(title=title, parts=parts, damaged=damaged, long=_LONG, overview=OVERVIEW)


def _prose(text: str) -> Markup:
    """Return a sentence in which names between backticks are set as code."""
    return Markup(_without_backticks(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text)))))


def _without_backticks(text: str) -> str:
    return text.replace("`", "")


def _data_uri(path: Path) -> str | None:
    """Return an image as part of a page; None if its file cannot be read."""
    try:
        image = path.read_bytes()
    except OSError:
        return None
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"
