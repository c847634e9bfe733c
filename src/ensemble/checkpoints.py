"""Training a seed of an experiment, and the checkpoints that it leaves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING

import torch

from src.data.samples import Samples, load_samples
from src.ensemble.draws import Draw, shuffled_epochs
from src.ensemble.evaluation import accuracy_and_loss
from src.ensemble.independence import require_batches, require_independent_samples
from src.ensemble.members import PerSampleLoss, State, own_tensors, repeat
from src.ensemble.memory import keep_freed_memory, say_training_estimate
from src.ensemble.training import AdamSettings, Trainer
from src.errors import UserError
from src.experiments import DEFAULT_BACKBONE, Experiment, Paths
from src.kernels.fuse import fuse
from src.models import build
from src.storage.files import check_finite, check_settings, digest, load, save_together

if TYPE_CHECKING:
    from pathlib import Path

    from src.models.backbones import Backbone


MACHINE = {"torch", "transformers", "device"}  # settings of the machine and its libraries


@dataclass(frozen=True)
class EpochState:
    """A member at the end of an epoch, as a model trained alone would have it."""

    epoch: int
    params: State
    optimizer_state: dict
    loss: float


def train(
    loss: PerSampleLoss,
    start: State,
    samples: Samples,
    adam: AdamSettings,
    batch_size: int,
    n_epochs: int,
) -> Iterator[EpochState]:
    """Train one model from `start`; yield its state after each epoch.

    Args:
        loss: The per-sample loss.
        start: Initial state; torch's global generator stands where the batch order begins.
        samples: The training samples.
        adam: Settings of the optimiser.
        batch_size: Samples in a batch.
        n_epochs: Number of epochs.

    Raises:
        UserError: The loss is not finite, a batch is too small for the network, or a sample's loss
            is not its own in eval mode.
    """
    require_independent_samples(loss, start, samples)
    require_batches(loss, start, samples, batch_size, without_one=False)
    loss.model.train()
    say_training_estimate(loss, start, samples, batch_size)
    trainer = Trainer(loss, repeat(start, 1), samples, adam)
    schedule = shuffled_epochs(len(samples), batch_size, n_epochs)
    for epoch, mean_loss in enumerate(trainer.epochs(schedule)):
        yield EpochState(epoch, *trainer.state_of_member(0), mean_loss.item())


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


@dataclass
class Setup:
    """What training and attribution of an experiment start from.

    Attributes:
        experiment: The experiment.
        paths: Every path below the root.
        loss: The per-sample loss, with the experiment's architecture.
        train: The training samples.
        test: The test samples.
        device: The device on which all of it lies.
        backbone: What a ViT is built on; None for a CNN.
    """

    experiment: Experiment
    paths: Paths
    loss: PerSampleLoss
    train: Samples
    test: Samples
    device: torch.device
    backbone: Backbone | None = None

    @classmethod
    def load(cls, experiment: Experiment, paths: Paths, device: torch.device) -> Setup:
        """Load an experiment's samples and build its architecture.

        Raises:
            UserError: The samples are missing or damaged, or a backbone cannot be loaded.
        """
        if device.type == "cpu":
            keep_freed_memory()
        backbone = None
        if experiment.has_backbone:
            from src.models.backbones import load_backbone_of

            backbone = load_backbone_of(experiment, paths)
        train_samples, test_samples = load_samples(
            paths, experiment, backbone.pixel_values if backbone else None
        )
        return cls(
            experiment,
            paths,
            PerSampleLoss(fuse(build(experiment, backbone).to(device))),
            train_samples.to(device),
            test_samples.to(device),
            device,
            backbone,
        )

    @property
    def adam(self) -> AdamSettings:
        """Settings of the optimiser."""
        return AdamSettings.of(self.experiment, len(self.train))

    def start(self, seed: int) -> State:
        """Return the initial state of a seed's draw, ready for its batch order."""
        state = Draw.of(self.experiment, seed).start(partial(build, self.experiment, self.backbone))
        return {name: tensor.to(self.device) for name, tensor in state.items()}

    def settings(self, seed: int) -> dict:
        """Return what decides the numbers in a seed's checkpoints, apart from the machine."""
        settings = {
            **self.experiment.training_settings(),
            "seed": seed,
            "train_samples": self.train.digest(),
        }
        if self.backbone is not None:
            settings["backbone_weights"] = self.backbone.weights_hash
        return settings

    def environment(self) -> dict:
        """Return what is recorded of the machine and the libraries because it changes rounding."""
        machine = {"torch": str(torch.__version__), "device": self.device.type}
        if self.backbone is not None:
            machine["transformers"] = version("transformers")
        return machine

    def network_settings(self) -> dict:
        """Return what decides the scores beside a checkpoint's parameters: the frozen part."""
        if self.backbone is None:
            return {}
        return {
            "backbone": self.experiment.backbone,
            "backbone_weights": self.backbone.weights_hash,
            "random_crop": self.experiment.random_crop,
        }

    def train_seed(self, seed: int) -> Iterator[EpochState]:
        """Train a seed's model and save the last five epochs; yield the state after each epoch.

        The checkpoints are written together when training has ended, so that a seed that fails
        leaves none, and no two trainings are ever mixed. Beside its state each holds how well it
        fits (`fit`).

        Raises:
            UserError: The loss is not finite, or a checkpoint cannot be written.
        """
        e = self.experiment
        kept = []
        for state in train(
            self.loss, self.start(seed), self.train, self.adam, e.batch_size, e.epochs
        ):
            if state.epoch in e.kept_epochs:
                kept.append(state)
            yield state
        settings = {**self.settings(seed), **self.environment()}
        training = digest(kept[-1].params)
        save_together(
            {
                self.paths.checkpoint(e, seed, state.epoch): {
                    "epoch": state.epoch,
                    "model_state_dict": state.params,
                    "optimizer_state_dict": state.optimizer_state,
                    "loss": state.loss,
                    **self.fit(state.params),
                    "settings": settings,
                    "training": training,
                }
                for state in kept
            }
        )

    def is_trained(self, seed: int, seed_id: int, *, overwrite: bool) -> bool:
        """Say whether all of a seed's checkpoints are there.

        Raises:
            UserError: One is there that `load_checkpoints` would refuse, or was trained on another
                machine, and `overwrite` is False.
        """
        e = self.experiment
        if overwrite:
            return False
        command = training_command(self.paths, e, seed_id, "--device", self.device)
        settings = {**self.settings(seed), **self.environment()}
        there = [x for x in e.kept_epochs if self.paths.checkpoint(e, seed, x).exists()]
        # Every one is checked, also behind one that is missing.
        self._load(seed, there, settings, command)
        return len(there) == len(e.kept_epochs)

    def load_checkpoints(self, seed: int, seed_id: int) -> list[State]:
        """Return the states of a seed's five checkpoints, in the order of epochs.

        Raises:
            UserError: A checkpoint is missing or damaged, is of another experiment, seed or epoch,
                was trained with other settings, other samples or on other backbone weights, has
                other parameters than the model or such that are not finite, or the five are of
                more than one training.
        """
        command = training_command(self.paths, self.experiment, seed_id)
        return self._load(seed, self.experiment.kept_epochs, self.settings(seed), command)

    def _load(self, seed: int, epochs: Sequence[int], settings: dict, command: str) -> list[State]:
        expected = {n: (t.shape, t.dtype) for n, t in own_tensors(self.loss.model)}
        trainings: dict[str, Path] = {}
        checkpoints: list[State] = []
        for epoch in epochs:
            path = self.paths.checkpoint(self.experiment, seed, epoch)
            content = load_checkpoint(self.paths, self.experiment, seed, epoch, command)
            found = content["settings"]
            if found.get("backbone_weights") != settings.get("backbone_weights"):
                raise UserError(
                    f"the weights of the backbone {self.experiment.backbone} are not those that "
                    f"{path} was trained on (SHA-256 {str(found.get('backbone_weights'))[:12]}, "
                    f"now {settings['backbone_weights'][:12]}): put them back, or train again "
                    f"with: {command} --overwrite"
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
            state = {name: state[name].to(self.device) for name in expected}
            if checkpoints:  # what training leaves as it is, is there once
                for name in expected.keys() - self.loss.trainable:
                    if torch.equal(state[name], checkpoints[-1][name]):
                        state[name] = checkpoints[-1][name]
            checkpoints.append(state)
        if len(trainings) > 1:
            one, other, *_ = trainings.values()
            raise UserError(
                f"{one} and {other.name} are of two different trainings: train again with: "
                f"{command} --overwrite"
            )
        return checkpoints

    def fit(self, state: State) -> dict[str, float]:
        """Return accuracy (a share) and mean loss on the train and on the test samples, by name."""
        found = {}
        for split, samples in (("train", self.train), ("test", self.test)):
            found[f"{split}_accuracy"], found[f"{split}_loss"] = accuracy_and_loss(
                self.loss, state, samples
            )
        return found
