"""Training a seed of an experiment, and the checkpoints that it leaves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from src.data.samples import Samples, described, load_samples
from src.ensemble.draws import Draw, shuffled_epochs, without_drawing
from src.ensemble.evaluation import fit_of
from src.ensemble.members import (
    Params,
    PerSampleLoss,
    cross_entropy,
    repeat,
    squared_error,
    trainable,
)
from src.ensemble.memory import keep_freed_memory, say_training_estimate
from src.ensemble.optimizer import OptimizerSettings
from src.ensemble.outputs import (
    N_SAMPLES,
    check_same,
    comparable,
    outputs_of,
    require_outputs,
    values_of,
)
from src.ensemble.training import Trainer
from src.errors import UserError
from src.experiments import DEFAULT_BACKBONE, Experiment, Paths
from src.kernels.fuse import fuse
from src.models import build
from src.storage.files import check_finite, check_settings, digest, load, save_together

if TYPE_CHECKING:
    from pathlib import Path

    from src.models.backbones import Backbone


MACHINE = {"torch", "transformers", "device"}  # settings of the machine and its libraries
DRAWING = ("torch", "device")  # of these, on which random numbers rest


@dataclass(frozen=True)
class EpochState:
    """A member at the end of an epoch, as a model trained alone would have it."""

    epoch: int
    params: Params
    optimizer_state: dict
    loss: float


def train(
    loss: PerSampleLoss,
    start: Params,
    samples: Samples,
    optimizer: OptimizerSettings,
    batch_size: int,
    n_epochs: int,
) -> Iterator[EpochState]:
    """Train one model from `start`; yield its state after each epoch.

    Args:
        loss: The per-sample loss.
        start: Initial parameters; torch's global generator stands where the batch order begins.
        samples: The training samples.
        optimizer: Settings of the optimiser.
        batch_size: Samples in a batch.
        n_epochs: Number of epochs.

    Raises:
        UserError: The loss is not finite.
    """
    loss.model.train()
    say_training_estimate(loss, start, samples, batch_size)
    trainer = Trainer(loss, repeat(start, 1), samples, optimizer)
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
        experiment: The experiment, whose task says what its data are like.
        paths: Every path below the root.
        loss: The per-sample loss, with the experiment's architecture.
        measure: What of a test sample is attributed: the loss itself, or the task's measure.
        train: The training samples.
        test: The test samples.
        device: The device on which all of it lies.
        backbone: What a ViT is built on; None for a CNN.
    """

    experiment: Experiment
    paths: Paths
    loss: PerSampleLoss
    measure: PerSampleLoss
    train: Samples
    test: Samples
    device: torch.device
    backbone: Backbone | None = None

    @classmethod
    def load(cls, experiment: Experiment, paths: Paths, device: torch.device) -> Setup:
        """Load an experiment's samples and build its architecture.

        Raises:
            UserError: The samples are missing or damaged, a backbone cannot be loaded, or a model
                of one's own does not fit the task.
        """
        experiment = described(experiment, paths)
        if device.type == "cpu":
            keep_freed_memory()
        backbone = None
        if experiment.has_backbone:
            from src.models.backbones import load_backbone_of

            backbone = load_backbone_of(experiment, paths)
        train_samples, test_samples = load_samples(
            paths, experiment, backbone.pixel_values if backbone else None
        )
        task, model = experiment.task, fuse(build(experiment, backbone).to(device))
        usual = squared_error if task.has_values else cross_entropy
        loss = PerSampleLoss(model, task.criterion or usual)
        measure = loss if task.measure is None else PerSampleLoss(model, task.measure)
        train, test = train_samples.to(device), test_samples.to(device)
        if backbone is None:
            require_outputs(loss, measure, train, experiment)
        return cls(experiment, paths, loss, measure, train, test, device, backbone)

    @property
    def optimizer(self) -> OptimizerSettings:
        """Settings of the optimiser."""
        return OptimizerSettings.of(self.experiment, len(self.train))

    def start(self, seed: int) -> Params:
        """Return the initial parameters of a seed's draw, ready for its batch order."""
        params = Draw.of(self.experiment, seed).start(
            partial(build, self.experiment, self.backbone)
        )
        return {name: p.to(self.device) for name, p in params.items()}

    def settings(self, seed: int) -> dict:
        """Return what decides the numbers in a seed's checkpoints, apart from the machine."""
        settings = {
            **self.experiment.training_settings(),
            "seed": seed,
            "train_samples": self.train.digest(),
        }
        if self.backbone is not None:
            settings["backbone_weights"] = self.backbone.weights_hash
        if self.experiment.task.criterion is not None:
            settings["criterion"] = self._values_of(self.loss, self.train)
        return settings

    def _values_of(self, per_sample: PerSampleLoss, samples: Samples) -> list[float]:
        few = samples.at(slice(N_SAMPLES))
        outputs = outputs_of(self.loss, trainable(self.loss.model), few, train=False)
        return values_of(per_sample.criterion, outputs, few.labels)

    def environment(self) -> dict:
        """Return what is recorded of the machine and the libraries because it changes rounding."""
        machine = {"torch": str(torch.__version__), "device": self.device.type}
        if self.backbone is not None:
            machine["transformers"] = version("transformers")
        return machine

    def network_settings(self) -> dict:
        """Return what decides the scores beside checkpoints: the frozen part, a task's measure."""
        settings = {}
        if self.experiment.task.measure is not None:
            settings["measure"] = self._values_of(self.measure, self.test)
        if self.backbone is None:
            return settings
        return settings | {
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
        start = self.start(seed)
        for state in train(self.loss, start, self.train, self.optimizer, e.batch_size, e.epochs):
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
                    "outputs": self._outputs(seed, state.params),
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

    def load_checkpoints(self, seed: int, seed_id: int) -> list[Params]:
        """Return the parameters of a seed's five checkpoints, in the order of epochs.

        Raises:
            UserError: A checkpoint is missing or damaged, is of another experiment, seed or epoch,
                was trained with other settings, other samples or on other backbone weights, has
                other parameters than the model or such that are not finite, or the five are of
                more than one training.
        """
        command = training_command(self.paths, self.experiment, seed_id)
        return self._load(seed, self.experiment.kept_epochs, self.settings(seed), command)

    def _outputs(self, seed: int, params: Params) -> dict[str, Tensor]:
        """Return what the network puts out for a few samples, by what `check_same` tells apart."""
        outputs = {
            "eval": outputs_of(self.loss, params, self.train, train=False),
            "train": outputs_of(self.loss, params, self.train, train=True),
        }
        if self.backbone is None:
            with without_drawing(self.device):
                start = self.start(seed)
            outputs["start"] = outputs_of(self.loss, start, self.train, train=False)
        return outputs

    def _load(self, seed: int, epochs: Sequence[int], settings: dict, command: str) -> list[Params]:
        expected = {
            name: (p.shape, p.dtype)
            for name, p in self.loss.model.named_parameters()
            if p.requires_grad
        }
        trainings: dict[str, Path] = {}
        checkpoints = []
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
            params: dict[str, Tensor] = content["model_state_dict"]
            if {name: (p.shape, p.dtype) for name, p in params.items()} != expected:
                raise UserError(
                    f"{path} has other parameters than the model, whose layers another release of "
                    f"a library may name otherwise: train again with: {command} --overwrite"
                )
            for name, values in params.items():
                check_finite(path, f"values of {name}", values, command)
            trainings.setdefault(content["training"], path)
            checkpoints.append({name: params[name].to(self.device) for name in expected})
        if checkpoints:  # one of a training stands for all
            same_draws = all(found.get(key) == self.environment()[key] for key in DRAWING)
            outputs = self._outputs(seed, checkpoints[-1])
            now = comparable(outputs, same_draws=same_draws)
            check_same(path, content.get("outputs", {}), now, self.experiment, command)
        if len(trainings) > 1:
            one, other, *_ = trainings.values()
            raise UserError(
                f"{one} and {other.name} are of two different trainings: train again with: "
                f"{command} --overwrite"
            )
        return checkpoints

    def fit(self, params: Params) -> dict[str, float]:
        """Return mean loss and, of classes, accuracy (a share) on both splits, by name."""
        return {
            f"{split}_{name}": value
            for split, samples in (("train", self.train), ("test", self.test))
            for name, value in fit_of(self.loss, params, samples).items()
        }
