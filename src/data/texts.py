"""The text that stands for a sample where it is no image, by a task's own function."""

from __future__ import annotations

from torch import Tensor

from src.errors import UserError
from src.experiments import Task


def text_of(task: Task, inputs: Tensor) -> str:
    """Return the text that stands for one sample's inputs.

    Raises:
        UserError: The task's function, which there must be, fails.
    """
    try:
        return str(task.text(inputs))
    except Exception as error:  # a person's own function, which may raise anything
        reason = (str(error).splitlines() or ["without a message"])[0][:100]
        raise UserError(
            f"the text of task {task.name} cannot be made of a sample's inputs, of shape "
            f"{tuple(inputs.shape)}: {type(error).__name__}: {reason}"
        ) from error
