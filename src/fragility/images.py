"""The images of the studies on MNIST and CIFAR-10: fixed, balanced random samples.

They are drawn as the other tasks' subsets are (`src.data.subsets`), from the source itself: no
script before this one has to write them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from src.data.samples import Samples, network_inputs
from src.data.sources import Split, load_splits
from src.data.subsets import SUBSET_SEED, draw_indices
from src.experiments import TASKS, Task

_TASKS = {"mnist": TASKS["mnist"], "cifar10": TASKS["cifar10"]}


def load_images(
    name: str, n_per_class: int | None, n_test_per_class: int, source: Path | None
) -> tuple[Samples, Samples, Task]:
    """Return training samples, test samples, and the task, which says what they are like.

    Args:
        name: "mnist" or "cifar10".
        n_per_class: Training samples of each class, the same ones whatever the seed; None: all.
        n_test_per_class: Test samples of each class.
        source: See `load_splits`.

    Raises:
        UserError: The source cannot be reached or read, or has too few images of a class.
    """
    task = replace(_TASKS[name], name=f"fragility-{name}", n_test_per_class=n_test_per_class)
    task, splits = load_splits(task, source)
    chosen = {"test": "test", "train": f"train_{n_per_class}pc"}
    train, test = (
        _samples(task, splits[split], None if n_per_class is None and split == "train" else drawn)
        for split, drawn in sorted(chosen.items(), reverse=True)
    )
    return train, test, task


def _samples(task: Task, split: Split, drawn: str | None) -> Samples:
    if drawn is None:
        indices = range(len(split.labels))
    else:
        indices = draw_indices(task, drawn, split.labels, SUBSET_SEED).tolist()
    return Samples(
        network_inputs(split.inputs(indices), task),
        torch.from_numpy(split.labels[list(indices)]),
        torch.tensor(list(indices)),
    )
