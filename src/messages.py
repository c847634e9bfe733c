"""Words for the person at the terminal, beside the results."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from tqdm import tqdm


def say(line: str) -> None:
    """Print a line on standard error, above any progress bar."""
    tqdm.write(line, file=sys.stderr)


def kind_of(dtype: object, shape: Iterable[int]) -> str:
    """Return what an array is, such as float32 [3, 4], of torch's or numpy's type of numbers."""
    return f"{str(dtype).removeprefix('torch.')} {list(shape)}"
