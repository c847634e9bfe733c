"""What a network puts out: what the task asks for, and the same as when it was trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from src.data.samples import Samples
from src.ensemble.independence import few, trial
from src.ensemble.members import PerSampleLoss, State
from src.ensemble.memory import is_out_of_memory
from src.errors import UserError
from src.experiments import Experiment
from src.experiments.definitions import said_by

N_SAMPLES = 4
# Of the largest output. Rounding, threads and devices stay far below, other operations above.
TOLERANCE = 1e-3
# Whose outputs change where they are drawn otherwise by another release or device.
_DRAWN = ("start", "train")


def require_outputs(
    loss: PerSampleLoss, measure: PerSampleLoss, samples: Samples, experiment: Experiment
) -> None:
    """Check that a network takes the task's inputs and gives what its loss is made of.

    Raises:
        UserError: It does not; the message names the file and line of an error of one's own.
    """
    task = experiment.task
    model = f"model {experiment.model.name!r}"
    inputs, targets = samples[few(len(samples), 2).to(samples.device)]
    n = len(targets)
    outputs = _called(f"{model} on inputs {list(inputs.shape)}", loss.model, inputs)
    shape = list(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
    if not isinstance(outputs, Tensor) or outputs.ndim < 1 or len(outputs) != n:
        raise UserError(f"{model} gives {shape} for {n} inputs of {task.name}, not a row for each")
    if task.criterion is None:
        wanted = list(targets.shape) if task.has_values else [n, task.n_classes]
        if outputs.numel() != targets.numel() if task.has_values else shape != wanted:
            what = "values" if task.has_values else f"{task.n_classes} classes"
            raise UserError(
                f"{model} gives outputs {shape} for {n} samples of {task.name}, whose {what} want "
                f"{wanted}"
            )
    for name, per_sample in (("criterion", loss), ("measure", measure)):
        if getattr(task, name) is not None:
            where = f"{name} of task {task.name!r}"
            found = _called(where, per_sample.criterion, outputs, targets)
            if not (
                isinstance(found, Tensor) and found.shape == (n,) and found.is_floating_point()
            ):
                given = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
                raise UserError(f"{where} gives {given} for {n} samples, not a number for each")


@torch.no_grad()
def _called(what: str, function: Callable, *arguments: Tensor) -> object:
    if isinstance(function, nn.Module):
        function.eval()
    try:
        return function(*arguments)
    except Exception as error:  # whatever a function of one's own may raise
        if is_out_of_memory(error):
            raise
        raise UserError(said_by(what, error)) from error


def values_of(
    function: Callable[[Tensor, Tensor], Tensor], outputs_like: Tensor, targets: Tensor
) -> list[float]:
    """Return what a criterion or a measure gives for outputs that are always the same.

    It stands for the function in settings, to six digits, so that another one is noticed, and a
    change that changes nothing is not.
    """
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(outputs_like.shape, dtype=torch.float64, generator=generator)
    return [float(f"{value:.5e}") for value in function(outputs, targets.cpu()).tolist()]


def outputs_of(loss: PerSampleLoss, state: State, samples: Samples, *, train: bool) -> Tensor:
    """Return one member's outputs (n, ...) on a few samples, in one mode, on the CPU.

    What is drawn is the same in every call. Buffers and torch's generators are left as they were.
    """
    values = {**dict(loss.model.named_buffers()), **state}
    values = {n: t if n in loss.trainable else t.clone() for n, t in values.items()}
    with trial(loss, samples, training=train):
        torch.manual_seed(0)
        inputs, _ = samples[few(len(samples), N_SAMPLES).to(samples.device)]
        return loss.outputs(values, inputs).cpu()


def check_same(
    path: Path, found: dict[str, Tensor], now: dict[str, Tensor], experiment: Experiment, make: str
) -> None:
    """Check that a network's outputs are those that it had when it was trained.

    Args:
        path: The checkpoint.
        found: The outputs that it holds: "start" at the initial parameters, in eval mode, "eval"
            and "train" at the trained ones.
        now: Those of the network as it is now, of the same names or fewer.
        experiment: The experiment.
        make: The command that trains it.

    Raises:
        UserError: They are not.
    """
    for name, outputs in now.items():
        if name not in found:
            continue  # of a version whose networks were the project's own
        expected = found[name]
        same_shape = outputs.shape == expected.shape
        error = (outputs - expected).abs().max() if same_shape else float("inf")
        if not error <= TOLERANCE * expected.abs().max():
            at = {
                "start": "its initial parameters give",
                "eval": "its trained parameters give",
                "train": "in training its trained parameters give",
            }[name]
            raise UserError(
                f"model {experiment.model.name!r} is another one than {path} was trained with: "
                f"{at} other outputs; put it back, or train again with: {make} --overwrite"
            )


def comparable(now: dict[str, Tensor], *, same_draws: bool) -> dict[str, Tensor]:
    """Return the outputs that rest on no draw, or all where draws are the same."""
    return {name: o for name, o in now.items() if same_draws or name not in _DRAWN}
