"""Lines for the person at the terminal, beside the results."""

from __future__ import annotations

import sys

from tqdm import tqdm


def say(line: str) -> None:
    """Print a line on standard error, above any progress bar."""
    tqdm.write(line, file=sys.stderr)
