"""How far a computation is: a bar in a terminal; in a pipe or a file a line a minute."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

from tqdm import tqdm

from src.messages import say

TOLD_EVERY = 60.0  # seconds


@contextlib.contextmanager
def progress(
    description: str, units: str, total: int, done: int = 0
) -> Iterator[Callable[[int], object]]:
    """Tell the person how far a computation is until the block ends.

    Args:
        description: What is computed.
        units: What is counted, in the plural.
        total: How many there are.
        done: How many of them were done before.

    Yields:
        To be called with how many more are done.
    """
    if done:
        say(f"{description}: going on from {done} of {total} {units}")
    if _is_watched():
        unit = f" {units}"
        with tqdm(total=total, initial=done, desc=description, unit=unit, leave=False) as bar:
            yield bar.update
        return
    lines, stop = Lines(description, units, total, done), threading.Event()
    # A thread, since what is counted may take longer than a minute each.
    telling = threading.Thread(target=lines.tell_until, args=(stop,), daemon=True)
    telling.start()
    try:
        yield lines.advance
    finally:
        stop.set()
        telling.join()


def _is_watched() -> bool:
    """Say whether a person sees bars: in a terminal, or in a notebook, which is none."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


class Lines:
    """Lines that say how far a computation is, which begins now.

    Args:
        description: What is computed.
        units: What is counted, in the plural.
        total: How many there are.
        done: How many of them were done before.
    """

    def __init__(self, description: str, units: str, total: int, done: int = 0) -> None:
        self._description = description
        self._units = units
        self._total = total
        self._done = self._done_before = done
        self._since = time.monotonic()

    def advance(self, n: int) -> None:
        """Count n more as done."""
        self._done += n

    def tell_until(self, stop: threading.Event) -> None:
        """Say a line whenever another minute has passed, until the event is set."""
        while not stop.wait(TOLD_EVERY):
            say(self.line())

    def line(self) -> str:
        """Return how far it is now, and how long the rest takes if it goes on as until now."""
        done, seconds = self._done, time.monotonic() - self._since
        parts = [f"{done} of {self._total} {self._units}", _minutes(seconds)]
        if self._done_before < done < self._total:
            left = seconds * (self._total - done) / (done - self._done_before)
            parts.append(f"about {_minutes(left)} left" if left >= 60 else "less than 1 min left")
        return f"{self._description}: {', '.join(parts)}"


def _minutes(seconds: float) -> str:
    """Return a time of a minute or more for people."""
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
