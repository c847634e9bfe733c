"""The tables of RESULTS.md, written from the numbers that docs/measured keeps.

A table stands between two comments, of which the first says what it holds:

    <!-- table: mean_pvalues cnn2_mnist3_10pc cnn2_mnist3_20pc -->
    ...
    <!-- end of table -->
"""

from __future__ import annotations

import re
from pathlib import Path

from src.errors import UserError
from src.experiments import REPOSITORY
from src.paper.measured import FOLDER, Measured
from src.paper.tables import TABLES
from src.storage.files import write_atomically

RESULTS = REPOSITORY / "RESULTS.md"
_TABLE = re.compile(
    r"(?P<first><!-- table: (?P<what>[^>]*?) -->\n)(?P<body>.*?)(?P<last><!-- end of table -->)",
    re.DOTALL,
)


def write_results(path: Path = RESULTS, folder: Path = FOLDER) -> Path:
    """Write a page's tables anew from what was measured, and return its path.

    Raises:
        UserError: A table is unknown, or of what was not measured.
    """
    text = rendered(path.read_text(encoding="utf-8"), folder)
    write_atomically(path, lambda file: file.write_text(text, encoding="utf-8"))
    return path


def rendered(text: str, folder: Path = FOLDER) -> str:
    """Return a page with its tables written anew.

    Raises:
        UserError: A table is unknown, or of what was not measured.
    """

    def table(match: re.Match) -> str:
        name, *experiments = match["what"].split()
        if name not in TABLES:
            raise UserError(f"unknown table {name!r}: choose from {', '.join(TABLES)}")
        if not experiments:
            raise UserError(f"table {name!r} names no experiment")
        rows = TABLES[name]([Measured.of(one, folder) for one in experiments])
        text = rows.to_markdown(index=False, disable_numparse=True)
        return f"{match['first']}\n{text}\n\n{match['last']}"

    return _TABLE.sub(table, text)
