"""The processor time of what takes milliseconds."""

from __future__ import annotations

import time
from collections.abc import Callable

REPEATS = 8


def fastest(run: Callable[[], object]) -> float:
    """Return the least processor seconds of several runs, after one."""
    run()
    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    return min(seconds)
