"""What training and attribution of an experiment start from; it needs no folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from src.data.samples import Samples, described, load_samples
from src.data.scored import scored_positions
from src.ensemble.draws import Draw
from src.ensemble.evaluation import fit_of
from src.ensemble.independence import require_independent_samples
from src.ensemble.members import (
    PerSampleLoss,
    State,
    cross_entropy,
    own_tensors,
    repeat,
    squared_error,
)
from src.ensemble.memory import keep_freed_memory, say_training_estimate
from src.ensemble.optimizer import OptimizerSettings
from src.ensemble.outputs import N_SAMPLES, outputs_of, require_outputs, values_of
from src.ensemble.procedure import Procedure
from src.experiments import Experiment, Paths
from src.kernels.fuse import fuse
from src.models import build
from src.storage.files import digest

if TYPE_CHECKING:
    from src.models.backbones import Backbone


@dataclass(frozen=True)
class EpochState:
    """A member at the end of an epoch, as a model trained alone would have it."""

    epoch: int
    params: State
    optimizer_state: dict
    loss: float


def train(procedure: Procedure, start: State) -> Iterator[EpochState]:
    """Train one model; yield its state after each epoch.

    Args:
        procedure: The training procedure.
        start: Initial state; torch's global generator stands where the batch order begins.

    Raises:
        UserError: The loss is not finite, a batch is too small for the network, or a sample's loss
            is not its own in eval mode.
    """
    loss, samples = procedure.loss, procedure.samples
    require_independent_samples(loss, start, samples)
    procedure.require_batches(start, without_one=False)
    loss.model.train()
    say_training_estimate(loss, start, samples, procedure.batch_size)
    trainer = procedure.trainer(repeat(start, 1))
    for epoch, mean_loss in enumerate(trainer.epochs(procedure.schedule())):
        yield EpochState(epoch, *trainer.state_of_member(0), mean_loss.item())


@dataclass
class Setup:
    """What training and attribution of an experiment start from.

    Attributes:
        experiment: The experiment, whose task says what its data are like.
        loss: The per-sample loss, with the experiment's architecture.
        measure: What of a test sample is attributed: the loss itself, or the task's measure.
        train: The training samples.
        test: The test samples.
        scored: Positions of the training samples that are scored, ascending, int64 (n_scored,).
        device: The device on which all of it lies.
        backbone: What a ViT is built on; None for a CNN.
    """

    experiment: Experiment
    loss: PerSampleLoss
    measure: PerSampleLoss
    train: Samples
    test: Samples
    scored: Tensor
    device: torch.device
    backbone: Backbone | None = None

    @classmethod
    def load(
        cls,
        experiment: Experiment,
        paths: Paths,
        device: torch.device,
        n_scored: int | None = None,
    ) -> Setup:
        """Load an experiment's samples and build its architecture.

        Args:
            experiment: The experiment.
            paths: Every path below the root. If they are those of training samples on themselves,
                these stand in the place of the test samples.
            device: Where all of it goes.
            n_scored: Number of training samples that are scored; None: all, or those that an
                experiment on all samples of a source scores.

        Raises:
            UserError: The samples are missing or damaged, or fewer than are to be scored, a
                backbone cannot be loaded, or a model of one's own does not fit the task.
        """
        experiment = described(experiment, paths)
        backbone = None
        if experiment.has_backbone:
            from src.models.backbones import load_backbone_of

            backbone = load_backbone_of(experiment, paths)
        train, test, among = load_samples(
            paths, experiment, backbone.pixel_values if backbone else None
        )
        scored = scored_positions(train.labels, n_scored, experiment.name, among)
        if paths.on_itself:
            test = train.at(scored)
        return cls.of(experiment, train, test, device, backbone, scored)

    @classmethod
    def of(
        cls,
        experiment: Experiment,
        train: Samples,
        test: Samples,
        device: torch.device,
        backbone: Backbone | None = None,
        scored: Tensor | None = None,
    ) -> Setup:
        """Build an experiment's architecture, beside its samples, on a device.

        Without `scored` all training samples are.

        Raises:
            UserError: A model of one's own does not fit the task.
        """
        if device.type == "cpu":
            keep_freed_memory()
        task, model = experiment.task, fuse(build(experiment, backbone).to(device))
        usual = squared_error if task.has_values else cross_entropy
        loss = PerSampleLoss(model, task.criterion or usual)
        measure = loss if task.measure is None else PerSampleLoss(model, task.measure)
        train, test = train.to(device), test.to(device)
        if backbone is None:
            require_outputs(loss, measure, train, experiment)
        scored = torch.arange(len(train)) if scored is None else scored
        return cls(experiment, loss, measure, train, test, scored, device, backbone)

    @property
    def optimizer(self) -> OptimizerSettings:
        """Settings of the optimiser."""
        return OptimizerSettings.of(self.experiment, len(self.train))

    @property
    def procedure(self) -> Procedure:
        """The training procedure."""
        e = self.experiment
        return Procedure(self.loss, self.train, self.optimizer, e.batch_size, e.epochs)

    @property
    def scores_all(self) -> bool:
        """Whether all training samples are scored."""
        return len(self.scored) == len(self.train)

    @property
    def scored_samples(self) -> Samples:
        """The training samples that are scored."""
        return self.train if self.scores_all else self.train.at(self.scored)

    @property
    def layout(self) -> dict[str, tuple[torch.Size, torch.dtype]]:
        """Shape and type of all that a checkpoint's `model_state_dict` holds, by name."""
        return {name: (t.shape, t.dtype) for name, t in own_tensors(self.loss.model)}

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
        if self.experiment.task.criterion is not None:
            settings["criterion"] = self._values_of(self.loss, self.train)
        return settings

    def _values_of(self, per_sample: PerSampleLoss, samples: Samples) -> list[float]:
        few = samples.at(slice(N_SAMPLES))
        outputs = outputs_of(self.loss, {}, few, train=False)
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

    def sources(self, checkpoints: list[State]) -> dict:
        """Return what scores of checkpoints rest on beside options, as settings."""
        return {
            **self.network_settings(),
            **self.environment(),
            "checkpoints": digest(checkpoints),
            "train_samples": self.train.digest(),
            "test_samples": self.test.digest(),
        }

    def scored_settings(self) -> dict:
        """Return which training samples are scored, where these are not all."""
        if self.scores_all:
            return {}
        return {
            "train_samples_scored": len(self.scored),
            "train_samples_all": len(self.train),
            "scored_samples": digest(self.train.indices[self.scored]),
        }

    def training(self, seed: int) -> Iterator[EpochState]:
        """Train a seed's model; yield its state after each epoch.

        Raises:
            UserError: The loss is not finite.
        """
        return train(self.procedure, self.start(seed))

    def fit(self, state: State) -> dict[str, float]:
        """Return mean loss and, of classes, accuracy (a share) on both splits, by name."""
        return {
            f"{split}_{name}": value
            for split, samples in (("train", self.train), ("test", self.test))
            for name, value in fit_of(self.loss, state, samples).items()
        }
