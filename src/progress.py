"""How far a computation is: a bar in a terminal; in a pipe or a file a line a minute."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar

from tqdm import tqdm

from src.messages import say

TOLD_EVERY = 60.0  # seconds
SHOWN_EVERY = 0.5  # seconds, of notes in a bar
_notes: ContextVar[Callable[[str], object]] = ContextVar("notes", default=lambda _: None)


def note(text: str) -> None:
    """Say beside how far the innermost computation is what is done of it just now.

    Of what is counted one may take hours.
    """
    _notes.get()(text)


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
        bar = tqdm(total=total, initial=done, desc=description, unit=unit, leave=False)
        with bar, _noted(Seldom(bar.set_postfix_str)):
            yield bar.update
        return
    lines, stop = Lines(description, units, total, done), threading.Event()
    # A thread, since what is counted may take longer than a minute each.
    telling = threading.Thread(target=lines.tell_until, args=(stop,), daemon=True)
    telling.start()
    try:
        with _noted(lines.note):
            yield lines.advance
    finally:
        stop.set()
        telling.join()


@contextlib.contextmanager
def _noted(by: Callable[[str], object]) -> Iterator[None]:
    token = _notes.set(by)
    try:
        yield
    finally:
        _notes.reset(token)


class Seldom:
    """Passes a text on unless it has passed one on just now."""

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say = say
        self._since = time.monotonic()

    def __call__(self, text: str) -> None:
        if time.monotonic() - self._since >= SHOWN_EVERY:
            self._say(text)
            self._since = time.monotonic()


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
        self._note = ""
        self._since = time.monotonic()

    def advance(self, n: int) -> None:
        """Count n more as done."""
        self._done += n
        self._note = ""

    def note(self, text: str) -> None:
        """Say in the next lines what is done just now, until more is done."""
        self._note = text

    def tell_until(self, stop: threading.Event) -> None:
        """Say a line whenever another minute has passed, until the event is set."""
        while not stop.wait(TOLD_EVERY):
            say(self.line())

    def line(self) -> str:
        """Return how far it is now, and how long the rest takes if it goes on as until now."""
        done, seconds = self._done, time.monotonic() - self._since
        parts = [f"{done} of {self._total} {self._units}"]
        parts += [self._note] if self._note else []
        parts.append(_minutes(seconds))
        if self._done_before < done < self._total:
            left = seconds * (self._total - done) / (done - self._done_before)
            parts.append(f"about {_minutes(left)} left" if left >= 60 else "less than 1 min left")
        return f"{self._description}: {', '.join(parts)}"


def _minutes(seconds: float) -> str:
    """Return a time of a minute or more for people."""
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
