"""Some of a report written beside the rest of it, by a process of its own.

Figures take as long as numbers, and hold the interpreter's lock. The process is forked, so that it
shares the scores; it must not compute with torch, whose threads do not survive a fork.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import TypeVar

Result = TypeVar("Result")

SECONDS_TO_END = 2


def one_thread_each() -> None:
    """Have libraries that are not imported yet compute with one thread, unless a person says more.

    BLAS's threads would wait in loops for the cores that the processes here are at work on.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@contextlib.contextmanager
def beside(work: Callable[[], Result]) -> Iterator[Callable[[], Result]]:
    """Do some work in a process of its own while the block runs, on Linux; elsewhere before it.

    Args:
        work: What it returns, or raises, can be pickled. What it changes in memory is lost.

    Yields:
        Waits for the work and returns its result, or raises its error. Work that is not waited for
        is ended with the block.
    """
    if sys.platform != "linux":  # where a fork is not there, or not safe
        result = work()
        yield lambda: result
        return
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(work, sender), daemon=True)
    process.start()
    sender.close()

    def wait() -> Result:
        try:
            done, outcome = receiver.recv()
        except EOFError:
            process.join()
            raise RuntimeError(f"a process ended with exit code {process.exitcode}") from None
        if not done:
            raise outcome
        return outcome

    try:
        yield wait
    finally:
        while process.is_alive():  # a signal is lost where Python ignores the error that it raises
            process.terminate()
            process.join(SECONDS_TO_END)


def _run(work: Callable[[], Result], sender: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who waits, and then ends this
    try:
        outcome = True, work()
    except Exception as error:  # which is raised where it is waited for
        outcome = False, error
    sender.send(outcome)
