"""Checkpoints that were trained elsewhere and are given as a seed's, in place of its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from src.ensemble.checkpoint_files import GIVEN, given_command, load_checkpoint, training_command
from src.ensemble.checkpoints import Checkpoints
from src.ensemble.draws import numbers_of_seeds
from src.ensemble.members import State
from src.ensemble.setup import Setup
from src.errors import UserError
from src.experiments import Experiment
from src.messages import kind_of
from src.storage.files import digest, read

# Of each training its checkpoints, in order, each a state dict.
States = Sequence[Sequence[Mapping[str, Tensor]]]

KEYS = ("model_state_dict", "state_dict")  # under which a file may hold its state dict


def check_number(experiment: Experiment, files: Sequence[Path]) -> None:
    """Raise UserError unless there are as many files as an experiment keeps checkpoints."""
    epochs = experiment.kept_epochs
    if len(files) != len(epochs):
        raise UserError(
            f"--checkpoints takes {len(epochs)} files for {experiment.name}, of the epochs "
            f"{epochs[0]} to {epochs[-1]} in this order, not {len(files)}"
        )


def load_states(setup: Setup, files: Sequence[Path]) -> list[State]:
    """Load one state dict of an experiment's model from each file.

    A file holds a state dict, or a dictionary with one under `model_state_dict` or `state_dict`.

    Raises:
        UserError: A file is missing, holds no state dict, or one with other names, shapes or types
            than the model's or with a number that is not finite; or two hold the same.
    """
    return take_states(setup, [(str(file), _load_state(file)) for file in files])


def take_states(setup: Setup, given: Sequence[tuple[str, Mapping[str, Tensor]]]) -> list[State]:
    """Return what an experiment's checkpoints hold of state dicts of its model.

    Args:
        setup: The experiment.
        given: What each state dict is called, for errors, and the state dict.

    Raises:
        UserError: One has other names, shapes or types than the model's, or a number that is not
            finite; or two are the same.
    """
    states: dict[str, tuple[str, State]] = {}
    for called, state in given:
        _check_state(called, state, setup)
        key = digest(dict(state))
        if key in states:
            raise UserError(
                f"{states[key][0]} and {called} hold the same parameters: give those of another "
                "epoch or training"
            )
        # Copies, since a view would be saved with all that it is a view of.
        taken = {name: state[name].detach().clone().contiguous() for name in setup.layout}
        states[key] = called, {name: values.to(setup.device) for name, values in taken.items()}
    return [state for _, state in states.values()]


def number_of_each(trainings: States) -> int:
    """Return how many checkpoints are given of each training.

    Raises:
        UserError: None are, not as many of each, or something else.
    """
    if any(isinstance(one, Mapping) for one in trainings):
        raise UserError("checkpoints are state dicts: give a list of them for each training")
    numbers = [len(states) for states in trainings]
    if not numbers or min(numbers) < 1:
        raise UserError("checkpoints are none: give a list of state dicts for each training")
    if min(numbers) != max(numbers):
        raise UserError(f"checkpoints are {numbers} of the trainings, not as many of each")
    wrong = [state for states in trainings for state in states if not isinstance(state, Mapping)]
    if wrong:
        raise UserError(f"checkpoints hold a {type(wrong[0]).__name__}, not state dicts alone")
    return numbers[0]


def take_trainings(setup: Setup, trainings: States) -> list[list[State]]:
    """Return what checkpoints hold of each training's state dicts.

    Raises:
        UserError: See `take_states`.
    """
    called = [
        (f"checkpoint {c} of training {t}", state)
        for t, states in enumerate(trainings)
        for c, state in enumerate(states)
    ]
    taken = iter(take_states(setup, called))
    return [[*islice(taken, len(states))] for states in trainings]


def _load_state(file: Path) -> dict[str, Tensor]:
    content = read(
        file,
        missing=f"{file} does not exist",
        damaged=f"{file} is damaged, or holds more than tensors and plain values: give what "
        "torch.save makes of a model's state_dict()",
    )
    if isinstance(content, dict):
        content = next(
            (content[key] for key in KEYS if isinstance(content.get(key), dict)), content
        )
    if not isinstance(content, dict) or not any(isinstance(v, Tensor) for v in content.values()):
        raise UserError(
            f"{file} holds no state dict, neither by itself nor under {' or '.join(KEYS)}"
        )
    return content


def _check_state(called: str, state: Mapping[str, Tensor], setup: Setup) -> None:
    model, expected = setup.experiment.model.name, setup.layout
    lacks = [name for name in expected if name not in state]
    strange = [name for name in state if name not in expected]
    if lacks or strange:
        parts = [f"lacks {_first(lacks)}"] if lacks else []
        parts += [f"holds {_first(strange)}, which {model} has not"] if strange else []
        raise UserError(f"{called} is no state dict of {model}: it {' and '.join(parts)}")
    for name, (shape, dtype) in expected.items():
        values = state[name]
        if not isinstance(values, Tensor) or values.layout != torch.strided or values.is_meta:
            raise UserError(f"{called}: {name} is no dense tensor")
        if values.shape != shape or values.dtype != dtype:
            raise UserError(
                f"{called}: {name} is {kind_of(values.dtype, values.shape)}, where {model} on "
                f"{setup.experiment.task.name} has {kind_of(dtype, shape)}"
            )
        n_bad = values.numel() - int(values.isfinite().sum())
        if n_bad:
            raise UserError(
                f"{called}: {n_bad:,} of {values.numel():,} values of {name} are not finite"
            )


def _first(names: list) -> str:
    return f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}"


def give(
    trained: Checkpoints,
    seed: int,
    seed_id: int,
    states: list[State],
    files: Sequence[Path],
    *,
    overwrite: bool,
) -> bool:
    """Save state dicts as a seed's checkpoints; return False if they are that already.

    Args:
        trained: The experiment's checkpoints.
        seed: The seed.
        seed_id: Its number, for commands.
        states: Of each kept epoch, from `load_states`.
        files: Where they come from, for commands.
        overwrite: Whether to replace checkpoints that are there.

    Raises:
        UserError: Other checkpoints are there and `overwrite` is False, another seed has the same,
            or they cannot be written.
    """
    e, at = trained.setup.experiment, trained.paths
    settings = {**trained.setup.settings(seed), "origin": GIVEN}
    command = given_command(at, e, seed_id, files)
    there = {} if overwrite else trained.load_there(seed, settings, command)
    given = dict(zip(e.kept_epochs, states, strict=True))
    for epoch, params in there.items():
        if digest(params) != digest(given[epoch]):
            raise UserError(
                f"{at.checkpoint(e, seed, epoch)} holds other parameters than were given: keep it, "
                f"or replace it with: {command} --overwrite"
            )
    if len(there) == len(given):
        return False
    numbers = numbers_of_seeds()
    for other in at.seeds_with_checkpoints(e) & numbers.keys() - {seed}:
        if at.checkpoint(e, other, e.kept_epochs[-1]).exists():
            other_id = numbers[other]
            make = training_command(at, e, other_id)
            content = load_checkpoint(at, e, other, e.kept_epochs[-1], make)
            if content["training"] == digest(states[-1]):
                raise UserError(
                    f"{files[-1]} holds the parameters that seed_id {other_id} has: each seed is a "
                    "training of its own"
                )
    trained.save(seed, states, settings, [{}] * len(states))
    return True
