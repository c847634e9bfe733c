"""Flipped labels: the training set of an experiment whose name says `_noisy`.

A random tenth of the training samples, and of each another class of the task, come from a generator
of their own, which knows nothing but the number of samples: all models, seeds and sources of
randomness have the same flipped labels, and `flips` says again which they are.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from src.errors import UserError
from src.experiments import Experiment

SEED = 2023
SHARE = 0.1


def check_flippable(experiment: Experiment) -> None:
    """Raise UserError if labels are to be flipped, and the task (described) has no other class."""
    task = experiment.task
    if experiment.label_noise and (task.has_values or len(task.classes) < 2):
        has = "values as targets" if task.has_values else "a single class"
        raise UserError(f"{experiment.name}: labels cannot be flipped, since {task.name} has {has}")


def flips(labels: Tensor, classes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return which labels are flipped, and what to.

    Args:
        labels: True class of each training sample, int64 (n_train,).
        classes: The task's classes, two at least.

    Returns:
        Positions, ascending, and the class that each gets, int64 (n_flipped,): a tenth of the
        samples, rounded, one at least.
    """
    n = len(labels)
    rng = np.random.default_rng([SEED, n])
    positions = np.sort(rng.choice(n, max(1, round(SHARE * n)), replace=False))
    others = [[c for c in classes if c != label] for label in labels[positions].tolist()]
    drawn = rng.integers(len(classes) - 1, size=len(positions))
    flipped = [own[k] for own, k in zip(others, drawn, strict=True)]
    return torch.from_numpy(positions), torch.tensor(flipped, dtype=labels.dtype)


def with_flips(labels: Tensor, classes: tuple[int, ...]) -> Tensor:
    """Return the labels (n_train,) with a tenth of them flipped, as `flips` says."""
    positions, flipped = flips(labels, classes)
    return labels.index_put((positions,), flipped)
