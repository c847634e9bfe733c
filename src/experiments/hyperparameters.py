"""Hyper-parameters of training: the paper's by default, and what a model or a task says instead."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from src.errors import UserError

OPTIMIZERS = ("adam", "adamw", "sgd")


@dataclass(frozen=True)
class Hyperparameters:
    """What decides a training beside model, data and draw.

    Attributes:
        epochs: Number of training epochs.
        batch_size: Samples in a batch.
        learning_rate: Of the first step, and of all where there is no decay.
        weight_decay: Of the optimiser; with "adam" and "sgd" it is added to the gradient, with
            "adamw" it is decoupled.
        optimizer: One of OPTIMIZERS, of `torch.optim`.
        momentum: Of "sgd".
        n_checkpoints: The last epochs whose checkpoints are kept and attributed.
    """

    epochs: int = 15
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 5e-3
    optimizer: str = "adam"
    momentum: float = 0.0
    n_checkpoints: int = 5

    @property
    def kept_epochs(self) -> tuple[int, ...]:
        """The last epochs (0-based), whose checkpoints are kept."""
        return tuple(range(self.epochs - self.n_checkpoints, self.epochs))


_WHOLE = {"epochs", "batch_size", "n_checkpoints"}
NAMES = tuple(field.name for field in fields(Hyperparameters))


def problems(given: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with hyper-parameters that a model or a task names, values by name."""
    for name, value in given.items():
        if name not in NAMES:
            yield f"there is no field {name!r}: choose from {', '.join(NAMES)}"
        elif name == "optimizer":
            if value not in OPTIMIZERS:
                yield f"optimizer is {value!r}: choose from {', '.join(OPTIMIZERS)}"
        elif name in _WHOLE:
            if type(value) is not int or value < 1:
                yield f"{name} is {value!r}, not a whole number of at least 1"
        elif not _is_number(value) or value < 0 or (name == "learning_rate" and value == 0):
            limit = "above 0" if name == "learning_rate" else "of at least 0"
            yield f"{name} is {value!r}, not a number {limit}"
    n_kept = given.get("n_checkpoints", Hyperparameters.n_checkpoints)
    if "epochs" in given and given["epochs"] < n_kept:
        yield (
            f"epochs is {given['epochs']}, not {n_kept} or more: the last n_checkpoints = {n_kept} "
            "are kept"
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and type(value) is not bool and math.isfinite(value)


def combine(task: Mapping[str, Any], model: Mapping[str, Any], whose: str) -> Hyperparameters:
    """Return the hyper-parameters of a model on a task: the model's, else the task's, else ours.

    Raises:
        UserError: They do not go together.
    """
    combined = Hyperparameters(**{**task, **model})
    if combined.n_checkpoints > combined.epochs:
        raise UserError(
            f"{whose} keeps the checkpoints of the last {combined.n_checkpoints} epochs and trains "
            f"{combined.epochs}: epochs must be at least n_checkpoints"
        )
    if combined.momentum and combined.optimizer != "sgd":
        raise UserError(f"momentum of {whose} has no effect with optimizer {combined.optimizer!r}")
    return combined
