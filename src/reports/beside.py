"""Some of a report written beside the rest of it, by a process of its own.

Figures take as long as numbers, and hold the interpreter's lock. The process is forked, so that it
shares the scores; it must not compute with torch, whose threads do not survive a fork. What takes
how long depends on the experiment, so works are taken one by one, by whichever process has time.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from typing import TypeVar

Result = TypeVar("Result")

SECONDS_TO_END = 2


def one_thread_each() -> None:
    """Have libraries that are not imported yet compute with one thread, unless a person says more.

    BLAS's threads would wait in loops for the cores that the processes here are at work on.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@contextlib.contextmanager
def beside(*works: Callable[[], Result]) -> Iterator[Callable[[], list[Result]]]:
    """Do some works in a process of its own while the block runs; only on Linux there is one.

    Args:
        works: Those that take longest first. What they return, or raise, can be pickled; what they
            change in memory is lost.

    Yields:
        Does what is not begun yet, waits for the others, and returns the results in the order of
        the works, or raises the first error. Work that is not waited for is ended with the block.
    """
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    begun = context.Value("i", 0)
    if sys.platform != "linux":  # where a fork is not there, or not safe
        yield lambda: [work() for _, work in _taken(works, begun)]
        return
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(works, begun, sender), daemon=True)
    process.start()
    sender.close()

    def wait() -> list[Result]:
        results = {number: work() for number, work in _taken(works, begun)}
        if len(results) < len(works):
            try:
                outcomes = receiver.recv()
            except EOFError:
                process.join()
                raise RuntimeError(f"a process ended with exit code {process.exitcode}") from None
            if isinstance(outcomes, Exception):
                raise outcomes
            results |= outcomes
        return [results[number] for number in range(len(works))]

    try:
        yield wait
    finally:
        while process.is_alive():  # a signal is lost where Python ignores the error that it raises
            process.terminate()
            process.join(SECONDS_TO_END)


def _taken(
    works: Sequence[Callable[[], Result]], begun: Synchronized
) -> Iterator[tuple[int, Callable[[], Result]]]:
    """Yield the next work that no process has begun, with its number, until there is none."""
    while True:
        with begun.get_lock():
            number = begun.value
            begun.value += 1
        if number >= len(works):
            return
        yield number, works[number]


def _run(works: Sequence[Callable[[], Result]], begun: Synchronized, sender: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who waits, and then ends this
    try:
        outcomes = {number: work() for number, work in _taken(works, begun)}
    except Exception as error:  # which is raised where it is waited for
        outcomes = error
    sender.send(outcomes)  # all at once: who waits may be at work, and a pipe holds little
