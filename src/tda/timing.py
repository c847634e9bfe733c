"""How long scores took to compute: a record beside the logs, as no number of a score file may vary.

It is of all methods that share a computation, and there only where one process did all of it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from src.experiments import Experiment, Paths
from src.storage.files import write_atomically


def stopwatch() -> Callable[[], float]:
    """Start counting; return the function that gives the seconds since."""
    start = time.perf_counter()
    return lambda: time.perf_counter() - start


def record_seconds(
    paths: Paths, experiment: Experiment, methods: Sequence[str], seed: int, seconds: float | None
) -> None:
    """Record how long the scores of a seed took; None: it is not known, and no record stays.

    Raises:
        UserError: A record cannot be written.
    """
    for method in methods:
        path = paths.seconds(experiment, method, seed)
        if seconds is None:
            path.unlink(missing_ok=True)
        else:
            text = f"{seconds:.3f}\n"
            write_atomically(path, lambda file, t=text: file.write_text(t, encoding="utf-8"))


def mean_seconds(paths: Paths, experiment: Experiment, method: str, seeds: Sequence[int]) -> float:
    """Return the mean seconds that the scores of a seed took; NaN where one has no record."""
    try:
        found = [
            float(paths.seconds(experiment, method, s).read_text(encoding="utf-8")) for s in seeds
        ]
    except (OSError, ValueError):
        return math.nan
    return sum(found) / len(found)
