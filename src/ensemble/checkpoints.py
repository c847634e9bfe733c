"""The checkpoints that training a seed of an experiment leaves on disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from src.ensemble.checkpoint_files import (
    GIVEN,
    MACHINE,
    are_given,
    given_command,
    load_checkpoint,
    training_command,
)
from src.ensemble.generators import without_drawing
from src.ensemble.members import State
from src.ensemble.outputs import check_same, comparable, outputs_of
from src.ensemble.setup import EpochState, Setup
from src.errors import UserError
from src.experiments import Paths
from src.storage.files import check_finite, check_settings, digest, save_together

if TYPE_CHECKING:
    from pathlib import Path

DRAWING = ("torch", "device")  # of a machine's settings, those that random numbers rest on


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of an experiment below a root.

    Attributes:
        setup: What they are trained from.
        paths: Every path below the root.
    """

    setup: Setup
    paths: Paths

    def train(self, seed: int) -> Iterator[EpochState]:
        """Train a seed's model and save the last five epochs; yield the state after each epoch.

        The checkpoints are written together when training has ended, so that a seed that fails
        leaves none, and no two trainings are ever mixed. Beside its state each holds how well it
        fits (`fit`).

        Raises:
            UserError: The loss is not finite, or a checkpoint cannot be written.
        """
        kept = []
        for state in self.setup.training(seed):
            if state.epoch in self.setup.experiment.kept_epochs:
                kept.append(state)
            yield state
        self.save(
            seed,
            [state.params for state in kept],
            {**self.setup.settings(seed), **self.setup.environment()},
            [{"optimizer_state_dict": state.optimizer_state, "loss": state.loss} for state in kept],
        )

    def save(self, seed: int, states: list[State], settings: dict, further: Sequence[dict]) -> None:
        """Save a seed's checkpoints together, each with how well it fits (`fit`).

        Args:
            seed: The seed.
            states: What `model_state_dict` holds, of each kept epoch.
            settings: What decided the numbers.
            further: What else is known of each.

        Raises:
            UserError: A checkpoint cannot be written.
        """
        e, training = self.setup.experiment, digest(states[-1])
        start = {} if settings.get("origin") == GIVEN else self._outputs_of_start(seed)
        save_together(
            {
                self.paths.checkpoint(e, seed, epoch): {
                    "epoch": epoch,
                    "model_state_dict": state,
                    **known,
                    **self.setup.fit(state),
                    "outputs": self._outputs(state) | start,
                    "settings": settings,
                    "training": training,
                }
                for epoch, state, known in zip(e.kept_epochs, states, further, strict=True)
            }
        )

    def is_trained(self, seed: int, seed_id: int, *, overwrite: bool) -> bool:
        """Say whether all of a seed's checkpoints are there.

        Raises:
            UserError: One is there that `load` would refuse, or was trained on another
                machine, and `overwrite` is False.
        """
        if overwrite:
            return False
        setup = self.setup
        command = training_command(self.paths, setup.experiment, seed_id, "--device", setup.device)
        there = self.load_there(seed, {**setup.settings(seed), **setup.environment()}, command)
        return len(there) == len(setup.experiment.kept_epochs)

    def load_there(self, seed: int, settings: dict, command: str) -> dict[int, State]:
        """Return the states of those of a seed's checkpoints that are there, by epoch.

        Raises:
            UserError: One is not as `settings` say, or not sound; `command` makes them.
        """
        e = self.setup.experiment
        there = [x for x in e.kept_epochs if self.paths.checkpoint(e, seed, x).exists()]
        # Every one is checked, also behind one that is missing.
        return dict(zip(there, self._load(seed, there, settings, command), strict=True))

    def load(self, seed: int, seed_id: int, *, given: bool | None = None) -> list[State]:
        """Return the states of a seed's five checkpoints, in the order of epochs.

        Args:
            seed: The seed.
            seed_id: Its number, for commands.
            given: What `are_given` says of them; None: it is asked.

        Raises:
            UserError: A checkpoint is missing or damaged, is of another experiment, seed or epoch,
                was trained with other settings, other samples or on other backbone weights, has
                other parameters or buffers than the model or such that are not finite, or the five
                are of more than one training.
        """
        e, settings = self.setup.experiment, self.setup.settings(seed)
        if are_given(e, self.paths, seed, seed_id) if given is None else given:
            settings["origin"] = GIVEN
            command = given_command(self.paths, e, seed_id)
        else:
            command = training_command(self.paths, e, seed_id)
        return self._load(seed, e.kept_epochs, settings, command)

    def _outputs(self, state: State) -> dict[str, Tensor]:
        """Return what the network puts out for a few samples, by what `check_same` tells apart."""
        setup = self.setup
        return {
            "eval": outputs_of(setup.loss, state, setup.train, train=False),
            "train": outputs_of(setup.loss, state, setup.train, train=True),
        }

    def _outputs_of_start(self, seed: int) -> dict[str, Tensor]:
        """Return the same of where a seed's training begins; of a ViT nothing."""
        setup = self.setup
        if setup.backbone is not None:
            return {}
        with without_drawing(setup.device):
            state = setup.start(seed)
        return {"start": outputs_of(setup.loss, state, setup.train, train=False)}

    def _load(self, seed: int, epochs: Sequence[int], settings: dict, command: str) -> list[State]:
        experiment, expected = self.setup.experiment, self.setup.layout
        trainings: dict[str, Path] = {}
        checkpoints: list[State] = []
        for epoch in epochs:
            path = self.paths.checkpoint(experiment, seed, epoch)
            content = load_checkpoint(self.paths, experiment, seed, epoch, command)
            found = content["settings"]
            if found.get("backbone_weights") != settings.get("backbone_weights"):
                raise UserError(
                    f"the weights of the backbone {experiment.backbone} are not those that "
                    f"{path} was trained on (SHA-256 {str(found.get('backbone_weights'))[:12]}, "
                    f"now {settings['backbone_weights'][:12]}): put them back, or train again "
                    f"with: {command} --overwrite"
                )
            if found.get("origin") != settings.get("origin"):
                was = "given, not trained here" if "origin" in found else "trained here, not given"
                raise UserError(
                    f"{path} was {was}: keep it, or replace it with: {command} --overwrite, or "
                    "give a --root of its own"
                )
            compared = {k: v for k, v in found.items() if k in settings or k not in MACHINE}
            check_settings(path, compared, settings, command)
            state: State = content["model_state_dict"]
            if {name: (t.shape, t.dtype) for name, t in state.items()} != expected:
                raise UserError(
                    f"{path} has other parameters or buffers than the model, whose layers another "
                    f"release of a library may name otherwise: train again with: {command} "
                    "--overwrite"
                )
            for name, values in state.items():
                check_finite(path, f"values of {name}", values, command)
            trainings.setdefault(content["training"], path)
            state = {name: state[name].to(self.setup.device) for name in expected}
            if checkpoints:  # what training leaves as it is, is there once
                for name in expected.keys() - self.setup.loss.trainable:
                    if torch.equal(state[name], checkpoints[-1][name]):
                        state[name] = checkpoints[-1][name]
            checkpoints.append(state)
        if checkpoints:  # one of a training stands for all
            here = self.setup.environment()
            same_draws = all(found.get(k) == here[k] for k in DRAWING)
            outputs = self._outputs(checkpoints[-1])
            if settings.get("origin") != GIVEN:
                outputs |= self._outputs_of_start(seed)
            now = comparable(outputs, same_draws=same_draws)
            check_same(path, content.get("outputs", {}), now, experiment, command)
        if len(trainings) > 1:
            one, other, *_ = trainings.values()
            raise UserError(
                f"{one} and {other.name} are of two different trainings: train again with: "
                f"{command} --overwrite"
            )
        return checkpoints
