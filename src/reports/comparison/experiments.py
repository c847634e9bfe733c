"""What is compared, and by what: experiments over the seeds that all of them have.

So every number of a comparison rests on as many draws.
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from src.analysis.scores import ExperimentScores
from src.analysis.summary import identity
from src.errors import UserError
from src.experiments import METHODS, Experiment
from src.reports.reading import labels, listed

FORMATS = ("csv", "md", "tex")
_LEVELS = ["task", "model", "n_per_class", "randomness"]
Load = Callable[[Experiment], ExperimentScores]


def stacked(frames: dict[Experiment, pd.DataFrame]) -> pd.DataFrame:
    """Return the frames of all experiments below each other, the parts of their names first."""
    keys = [tuple(identity(experiment).values()) for experiment in frames]
    return pd.concat(frames.values(), keys=keys, names=_LEVELS)


def at_common_seeds(load: Load, experiments: list[Experiment]) -> tuple[Load, int, str]:
    """Return what loads the scores of the seeds that all experiments have.

    Args:
        load: Loads the scores of an experiment.
        experiments: The experiments.

    Returns:
        The loader, the number of seeds, and what there is besides or is missing, for people.

    Raises:
        UserError: The experiments have fewer than two seeds in common.
    """
    have, missing = {}, []
    for experiment in experiments:
        scores = load(experiment)
        have[experiment] = scores.common_seeds
        if lacks := [m for m in METHODS if m not in scores.scores]:
            missing.append(f"{experiment.name} lacks {labels(lacks)}")
    first, *others = have.values()
    common = [seed for seed in first if all(seed in other for other in others)]
    if len(common) < 2:
        parts = "; ".join(f"{e.name}: {listed(map(str, own))}" for e, own in have.items())
        raise UserError(
            "experiments are compared by the seeds that all of them have, two at least; here are "
            f"{len(common)} ({parts}): make the scores of the same seeds"
        )
    remarks = []
    if more := [f"{e.name} {len(own)}" for e, own in have.items() if len(own) > len(common)]:
        remarks.append(f"Compared by the {len(common)} seeds that all have, of {listed(more)}.")
    if missing:
        remarks.append(f"{'; '.join(missing)}.")
    return lambda e: load(e).at_seeds(common), len(common), " ".join(remarks)
