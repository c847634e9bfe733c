"""An experiment of a function and tensors, rather than of names and files."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from src.data.loaded import checked
from src.data.samples import Samples, network_inputs
from src.data.scored import scored_positions
from src.ensemble.members import state_of
from src.ensemble.setup import Setup
from src.errors import UserError
from src.experiments import Experiment, Model, Task
from src.models import build
from src.storage.files import digest

Pair = tuple[Any, Any]  # inputs and targets, tensors or arrays


def own_setup(
    factory: Callable[..., nn.Module],
    train: Pair,
    test: Pair,
    device: torch.device,
    hyperparameters: Mapping[str, Any],
    n_scored: int | None = None,
    **fields: Any,
) -> Setup:
    """Return what training and attribution of a network of one's own start from.

    Args:
        factory: Returns a freshly initialised network; takes nothing, or a task.
        train: Inputs and targets of the training samples.
        test: Inputs and targets of the test samples.
        device: Where all of it goes.
        hyperparameters: Of training, by name.
        n_scored: Number of training samples that are scored; None: all.
        **fields: Of the task: name, n_classes, class_names and others that say nothing of where
            its samples come from.

    Raises:
        UserError: An argument is not allowed, or the network does not fit the data.
    """
    data = checked({"train": train, "test": test}, "Study")
    task = _task_of(data, **fields)
    experiment = _experiment_of(_taking_a_task(factory), task, hyperparameters)
    splits = [
        Samples(network_inputs(inputs, task), torch.from_numpy(targets), torch.arange(len(targets)))
        for inputs, targets in (data["train"], data["test"])
    ]
    scored = scored_positions(splits[0].labels, n_scored, "Study")
    return Setup.of(experiment, *splits, device, scored=scored)


def _task_of(data: Mapping[str, tuple[Tensor, np.ndarray]], **given: Any) -> Task:
    """Return a task that says what the data are like.

    Raises:
        UserError: There are more classes than were said.
    """
    (inputs, targets), (_, test_targets) = data["train"], data["test"]
    shape = tuple(inputs.shape[1:])
    if targets.dtype.kind == "f":
        return Task(
            n_per_class=(len(targets),),
            n_test_per_class=1,
            load=lambda: data,
            input_shape=shape,
            target_shape=targets.shape[1:],
            **given,
        )
    classes, counts = np.unique(targets, return_counts=True)
    largest = int(max(targets.max(), test_targets.max()))
    asked, n_names = given.pop("n_classes"), len(given["class_names"])
    n_classes = asked or n_names or largest + 1
    if largest >= n_classes:
        what = f"n_classes is {asked}" if asked else f"class_names has {n_names}"
        raise UserError(
            f"a sample is of class {largest}, and {what}: classes are 0 to {n_classes - 1}"
        )
    return Task(
        n_per_class=(int(counts.min()),),
        n_test_per_class=1,
        load=lambda: data,
        classes=tuple(classes.tolist()),
        n_classes=n_classes,
        input_shape=shape,
        **given,
    )


def _taking_a_task(factory: Callable[..., nn.Module]) -> Callable[[Task], nn.Module]:
    """Return a factory that takes a task, and passes it on only where it is asked for."""
    if isinstance(factory, nn.Module) or not callable(factory):
        raise UserError(
            f"factory is {type(factory).__name__}, not a function that makes a new network: give "
            "the network's class, or lambda: Network(...)"
        )
    try:
        parameters = inspect.signature(factory).parameters.values()
    except ValueError:  # of some that are written in C
        return lambda task: factory()
    takes_task = any(
        p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        for p in parameters
    )
    return factory if takes_task else lambda task: factory()


def _experiment_of(
    makes: Callable[[Task], nn.Module], task: Task, hyperparameters: Mapping[str, Any]
) -> Experiment:
    """Return the experiment of a factory, whose model is called after the network's class.

    torch's generator is left where a construction ends.
    """
    model = Model("network", makes, hyperparameters)
    experiment = Experiment(model, task, *task.n_per_class)
    experiment.hyperparameters  # noqa: B018, raises where they do not go together
    networks = []
    for seed in range(2):
        torch.manual_seed(seed)
        networks.append(build(experiment))
    if networks[0] is networks[1]:
        raise UserError(
            "factory returns the same network each time, so that no seed would start anew: have it "
            "make one, lambda: Network(...)"
        )
    first, second = (digest(state_of(network)) for network in networks)
    kind = re.sub(r"[^A-Za-z0-9]+", "-", type(networks[0]).__name__).strip("-")
    # Where all start from the same parameters, such as pre-trained ones, seeds drive the rest.
    randomness = "batch" if first == second else ""
    return replace(experiment, model=replace(model, name=kind), randomness=randomness)
