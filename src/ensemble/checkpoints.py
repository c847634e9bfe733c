"""The checkpoints that training a seed of an experiment leaves on disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor

from src.ensemble.members import Params
from src.ensemble.setup import EpochState, Setup
from src.errors import UserError
from src.experiments import DEFAULT_BACKBONE, Experiment, Paths
from src.storage.files import check_finite, check_settings, digest, load, save_together

if TYPE_CHECKING:
    from pathlib import Path


MACHINE = {"torch", "transformers", "device"}  # settings of the machine and its libraries


def training_command(
    paths: Paths, experiment: Experiment, seed_id: int | None = None, *options: object
) -> str:
    """Return the command that trains an experiment: one seed, or all."""
    arguments = ["--experiment", experiment.name]
    if seed_id is not None:
        arguments += ["--seed_id", seed_id]
    if experiment.backbone != DEFAULT_BACKBONE:
        arguments += ["--backbone", experiment.backbone]
    if experiment.random_crop:
        arguments += ["--random_crop"]
    return paths.command(experiment.training_script, *arguments, *options)


def load_checkpoint(
    paths: Paths, experiment: Experiment, seed: int, epoch: int, command: str
) -> dict:
    """Load the checkpoint of one epoch of a seed, and check that it is that.

    Args:
        paths: Every path below the root.
        experiment: The experiment.
        seed: The seed.
        epoch: The epoch.
        command: The command that trains it, for error messages.

    Raises:
        UserError: The file is missing or damaged, or of another experiment, seed or epoch.
    """
    return load(
        paths.checkpoint(experiment, seed, epoch),
        command,
        identity={"experiment": experiment.name, "seed": seed, "epoch": epoch},
        holds=("settings", "model_state_dict", "training"),
    )


def as_trained(experiment: Experiment, paths: Paths, seed: int, seed_id: int) -> Experiment:
    """Return an experiment with the backbone and the inputs that a seed was trained with.

    Raises:
        UserError: The seed's checkpoint is missing or damaged.
    """
    if not experiment.has_backbone:
        return experiment
    epoch, make = experiment.kept_epochs[0], training_command(paths, experiment, seed_id)
    settings = load_checkpoint(paths, experiment, seed, epoch, make)["settings"]
    try:
        return replace(
            experiment, backbone=settings["backbone"], random_crop=settings["random_crop"]
        )
    except KeyError as error:
        path = paths.checkpoint(experiment, seed, epoch)
        raise UserError(
            f"{path} does not say its {error}; make it again with: {make} --overwrite"
        ) from None


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
        e = self.setup.experiment
        kept = []
        for state in self.setup.training(seed):
            if state.epoch in e.kept_epochs:
                kept.append(state)
            yield state
        settings = {**self.setup.settings(seed), **self.setup.environment()}
        training = digest(kept[-1].params)
        save_together(
            {
                self.paths.checkpoint(e, seed, state.epoch): {
                    "epoch": state.epoch,
                    "model_state_dict": state.params,
                    "optimizer_state_dict": state.optimizer_state,
                    "loss": state.loss,
                    **self.setup.fit(state.params),
                    "settings": settings,
                    "training": training,
                }
                for state in kept
            }
        )

    def is_trained(self, seed: int, seed_id: int, *, overwrite: bool) -> bool:
        """Say whether all of a seed's checkpoints are there.

        Raises:
            UserError: One is there that `load` would refuse, or was trained on another
                machine, and `overwrite` is False.
        """
        e = self.setup.experiment
        if overwrite:
            return False
        command = training_command(self.paths, e, seed_id, "--device", self.setup.device)
        settings = {**self.setup.settings(seed), **self.setup.environment()}
        there = [x for x in e.kept_epochs if self.paths.checkpoint(e, seed, x).exists()]
        # Every one is checked, also behind one that is missing.
        self._load(seed, there, settings, command)
        return len(there) == len(e.kept_epochs)

    def load(self, seed: int, seed_id: int) -> list[Params]:
        """Return the parameters of a seed's five checkpoints, in the order of epochs.

        Raises:
            UserError: A checkpoint is missing or damaged, is of another experiment, seed or epoch,
                was trained with other settings, other samples or on other backbone weights, has
                other parameters than the model or such that are not finite, or the five are of
                more than one training.
        """
        e = self.setup.experiment
        command = training_command(self.paths, e, seed_id)
        return self._load(seed, e.kept_epochs, self.setup.settings(seed), command)

    def _load(self, seed: int, epochs: Sequence[int], settings: dict, command: str) -> list[Params]:
        experiment = self.setup.experiment
        expected = {
            name: (p.shape, p.dtype)
            for name, p in self.setup.loss.model.named_parameters()
            if p.requires_grad
        }
        trainings: dict[str, Path] = {}
        checkpoints = []
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
            compared = {k: v for k, v in found.items() if k in settings or k not in MACHINE}
            check_settings(path, compared, settings, command)
            params: dict[str, Tensor] = content["model_state_dict"]
            if {name: (p.shape, p.dtype) for name, p in params.items()} != expected:
                raise UserError(
                    f"{path} has other parameters than the model, whose layers another release of "
                    f"a library may name otherwise: train again with: {command} --overwrite"
                )
            for name, values in params.items():
                check_finite(path, f"values of {name}", values, command)
            trainings.setdefault(content["training"], path)
            checkpoints.append({name: params[name].to(self.setup.device) for name in expected})
        if len(trainings) > 1:
            one, other, *_ = trainings.values()
            raise UserError(
                f"{one} and {other.name} are of two different trainings: train again with: "
                f"{command} --overwrite"
            )
        return checkpoints
