"""Figures of the project beside a person's own, in one process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import matplotlib
import matplotlib.pyplot as plt


@contextlib.contextmanager
def own_style() -> Iterator[None]:
    """Draw in the project's style within the block; a notebook's own is as before behind it."""
    backend = matplotlib.get_backend()
    try:
        with matplotlib.rc_context():
            from src.plots import style  # importing it takes a backend that needs no screen

            style.apply()
            yield
    finally:
        plt.switch_backend(backend)
