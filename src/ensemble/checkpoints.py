"""Training a seed of an experiment, and the checkpoints that it leaves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from src.data.samples import Samples, described, load_samples
from src.ensemble.checkpoint_files import (
    GIVEN,
    MACHINE,
    are_given,
    given_command,
    load_checkpoint,
    training_command,
)
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
from src.experiments import Experiment, Paths
from src.kernels.fuse import fuse
from src.models import build
from src.storage.files import check_finite, check_settings, digest, save_together

if TYPE_CHECKING:
    from pathlib import Path

    from src.models.backbones import Backbone


DRAWING = ("torch", "device")  # of a machine's settings, those that random numbers rest on


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

    @property
    def layout(self) -> dict[str, tuple[torch.Size, torch.dtype]]:
        """Shape and type of all that a checkpoint's `model_state_dict` holds, by name."""
        return {
            name: (p.shape, p.dtype)
            for name, p in self.loss.model.named_parameters()
            if p.requires_grad
        }

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
        self.save(
            seed,
            [state.params for state in kept],
            {**self.settings(seed), **self.environment()},
            [{"optimizer_state_dict": state.optimizer_state, "loss": state.loss} for state in kept],
        )

    def save(
        self, seed: int, states: list[Params], settings: dict, further: Sequence[dict]
    ) -> None:
        """Save a seed's checkpoints together, each with how well it fits (`fit`).

        Args:
            seed: The seed.
            states: What `model_state_dict` holds, of each kept epoch.
            settings: What decided the numbers.
            further: What else is known of each.

        Raises:
            UserError: A checkpoint cannot be written.
        """
        e, training = self.experiment, digest(states[-1])
        save_together(
            {
                self.paths.checkpoint(e, seed, epoch): {
                    "epoch": epoch,
                    "model_state_dict": state,
                    **known,
                    **self.fit(state),
                    "outputs": self._outputs(seed, state, start=settings.get("origin") != GIVEN),
                    "settings": settings,
                    "training": training,
                }
                for epoch, state, known in zip(e.kept_epochs, states, further, strict=True)
            }
        )

    def is_trained(self, seed: int, seed_id: int, *, overwrite: bool) -> bool:
        """Say whether all of a seed's checkpoints are there.

        Raises:
            UserError: One is there that `load_checkpoints` would refuse, or was trained on another
                machine, and `overwrite` is False.
        """
        if overwrite:
            return False
        command = training_command(self.paths, self.experiment, seed_id, "--device", self.device)
        there = self.load_there(seed, {**self.settings(seed), **self.environment()}, command)
        return len(there) == len(self.experiment.kept_epochs)

    def load_there(self, seed: int, settings: dict, command: str) -> dict[int, Params]:
        """Return the parameters of those of a seed's checkpoints that are there, by epoch.

        Raises:
            UserError: One is not as `settings` say, or not sound; `command` makes them.
        """
        e = self.experiment
        there = [x for x in e.kept_epochs if self.paths.checkpoint(e, seed, x).exists()]
        # Every one is checked, also behind one that is missing.
        return dict(zip(there, self._load(seed, there, settings, command), strict=True))

    def load_checkpoints(self, seed: int, seed_id: int) -> list[Params]:
        """Return the parameters of a seed's five checkpoints, in the order of epochs.

        Raises:
            UserError: A checkpoint is missing or damaged, is of another experiment, seed or epoch,
                was trained with other settings, other samples or on other backbone weights, has
                other parameters than the model or such that are not finite, or the five are of
                more than one training.
        """
        e, settings = self.experiment, self.settings(seed)
        if are_given(e, self.paths, seed, seed_id):
            settings["origin"] = GIVEN
            command = given_command(self.paths, e, seed_id)
        else:
            command = training_command(self.paths, e, seed_id)
        return self._load(seed, e.kept_epochs, settings, command)

    def _outputs(self, seed: int, params: Params, *, start: bool) -> dict[str, Tensor]:
        """Return what the network puts out for a few samples, by what `check_same` tells apart.

        Without `start` nothing is said of where a training would begin.
        """
        outputs = {
            "eval": outputs_of(self.loss, params, self.train, train=False),
            "train": outputs_of(self.loss, params, self.train, train=True),
        }
        if start and self.backbone is None:
            with without_drawing(self.device):
                params = self.start(seed)
            outputs["start"] = outputs_of(self.loss, params, self.train, train=False)
        return outputs

    def _load(self, seed: int, epochs: Sequence[int], settings: dict, command: str) -> list[Params]:
        expected = self.layout
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
            if found.get("origin") != settings.get("origin"):
                was = "given, not trained here" if "origin" in found else "trained here, not given"
                raise UserError(
                    f"{path} was {was}: keep it, or replace it with: {command} --overwrite, or "
                    "give a --root of its own"
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
            outputs = self._outputs(seed, checkpoints[-1], start=settings.get("origin") != GIVEN)
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
