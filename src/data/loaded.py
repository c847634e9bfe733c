"""What the function `load` of a task of one's own returns, checked and as tensors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from src.errors import UserError
from src.experiments import Task
from src.experiments.definitions import said_by
from src.messages import kind_of

_KEYS = ({"train", "test"}, {"pool"})


def load_own(task: Task) -> dict[str, tuple[Tensor, np.ndarray]]:
    """Return inputs and targets of "train" and "test", or of "pool".

    Returns:
        Inputs (N, ...): uint8 of images (N, C, H, W), else float32 or int64; targets: classes,
        int64 (N,), or values, float32 (N, ...).

    Raises:
        UserError: `load` fails or returns something else; the message names file and line.
    """
    where = f"load of task {task.name!r}"
    try:
        found = task.load()
    except Exception as error:  # whatever a function of one's own may raise
        raise UserError(said_by(where, error)) from error
    return checked(found, where)


def checked(found: object, where: str) -> dict[str, tuple[Tensor, np.ndarray]]:
    """Return what `load_own` does, of what `load` returned; `where` begins every message."""
    if not isinstance(found, Mapping) or set(found) not in _KEYS:
        what = ", ".join(map(repr, found)) if isinstance(found, Mapping) else type(found).__name__
        raise UserError(
            f"{where} returns {what or 'nothing'}, not a dictionary of 'train' and 'test' or of "
            "'pool'"
        )
    splits = {}
    for split, pair in found.items():
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise UserError(f"{where}: {split!r} is not a pair of inputs and targets")
        splits[split] = _checked(*pair, f"{where}, {split}")
    (first, (inputs, targets)), *others = splits.items()
    for split, (other, wanted) in others:
        if (other.shape[1:], other.dtype) != (inputs.shape[1:], inputs.dtype) or (
            (wanted.shape[1:], wanted.dtype) != (targets.shape[1:], targets.dtype)
        ):
            raise UserError(
                f"{where}: {split!r} holds {_of_one(other)} with targets {_of_one(wanted)}, "
                f"{first!r} {_of_one(inputs)} with {_of_one(targets)}"
            )
    return splits


def _checked(inputs: object, targets: object, where: str) -> tuple[Tensor, np.ndarray]:
    inputs, targets = _tensor(inputs, f"{where}: inputs"), _tensor(targets, f"{where}: targets")
    if inputs.ndim < 2 or targets.ndim < 1 or not len(inputs) == len(targets) > 0:
        raise UserError(
            f"{where}: inputs are {list(inputs.shape)} and targets {list(targets.shape)}, not "
            "samples first and as many of both, one at least"
        )
    if inputs.dtype != torch.uint8 or inputs.ndim != 4:  # which are images
        inputs = inputs.float() if inputs.is_floating_point() else inputs.long()
    targets = targets.float() if targets.is_floating_point() else targets.long()
    for what, values in (("input", inputs), ("target", targets)):
        wrong = ~values.isfinite().reshape(len(values), -1).all(1)
        if wrong.any():
            raise UserError(
                f"{where}: the {what} of sample {int(wrong.nonzero()[0])} is not finite, as are "
                f"{int(wrong.sum())} of {len(values)}"
            )
    if not targets.is_floating_point():
        if targets.ndim != 1:
            raise UserError(
                f"{where}: targets are whole numbers {list(targets.shape)}: classes are (N,), "
                "values are floating-point numbers"
            )
        if (targets < 0).any():
            first = int((targets < 0).nonzero()[0])
            raise UserError(f"{where}: sample {first} is of class {targets[first]}, below 0")
    return inputs, targets.numpy()


def _of_one(values: Tensor | np.ndarray) -> str:
    return kind_of(values.dtype, values.shape[1:])


def _tensor(values: object, where: str) -> Tensor:
    try:
        found = torch.as_tensor(values).detach().cpu()
    except Exception as error:  # of lists and arrays that are no numbers
        raise UserError(
            f"{where} are a {type(values).__name__}, not a tensor or an array of numbers"
        ) from error
    if found.is_complex():
        raise UserError(f"{where} are complex numbers")
    return found
