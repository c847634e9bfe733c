"""What is compared, and by what: experiments over the seeds that all of them have.

So every number of a comparison rests on as many draws.
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from src.analysis.scores import ExperimentScores, shared
from src.analysis.summary import identity
from src.ensemble.draws import seed_ids_of
from src.errors import UserError
from src.experiments import Experiment, in_order
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
    have, methods, wanted = {}, {}, set()
    for experiment in experiments:
        scores = load(experiment)
        have[experiment], methods[experiment] = scores.common_seeds, set(scores.scores)
        wanted |= {*scores.scores, *scores.missing}
    missing = [
        f"{experiment.name} lacks {labels(in_order(wanted - own))}"
        for experiment, own in methods.items()
        if wanted - own
    ]
    common = shared(have.values())
    if len(common) < 2:
        parts = "; ".join(f"{e.name}: seed_id {seed_ids_of(own)}" for e, own in have.items())
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
