"""What training and attribution of an experiment start from; it needs no folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
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
from src.experiments import Experiment, Paths
from src.kernels.fuse import fuse
from src.models import build

if TYPE_CHECKING:
    from src.models.backbones import Backbone


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


@dataclass
class Setup:
    """What training and attribution of an experiment start from.

    Attributes:
        experiment: The experiment.
        loss: The per-sample loss, with the experiment's architecture.
        train: The training samples.
        test: The test samples.
        device: The device on which all of it lies.
        backbone: What a ViT is built on; None for a CNN.
    """

    experiment: Experiment
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
        backbone = None
        if experiment.has_backbone:
            from src.models.backbones import load_backbone_of

            backbone = load_backbone_of(experiment, paths)
        samples = load_samples(paths, experiment, backbone.pixel_values if backbone else None)
        return cls.of(experiment, *samples, device, backbone)

    @classmethod
    def of(
        cls,
        experiment: Experiment,
        train: Samples,
        test: Samples,
        device: torch.device,
        backbone: Backbone | None = None,
    ) -> Setup:
        """Build an experiment's architecture, beside its samples, on a device."""
        if device.type == "cpu":
            keep_freed_memory()
        loss = PerSampleLoss(fuse(build(experiment, backbone).to(device)))
        return cls(experiment, loss, train.to(device), test.to(device), device, backbone)

    @property
    def adam(self) -> AdamSettings:
        """Settings of the optimiser."""
        return AdamSettings.of(self.experiment, len(self.train))

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

    def training(self, seed: int) -> Iterator[EpochState]:
        """Train a seed's model; yield its state after each epoch.

        Raises:
            UserError: The loss is not finite.
        """
        e = self.experiment
        return train(self.loss, self.start(seed), self.train, self.adam, e.batch_size, e.epochs)

    def fit(self, state: State) -> dict[str, float]:
        """Return accuracy (a share) and mean loss on the train and on the test samples, by name."""
        found = {}
        for split, samples in (("train", self.train), ("test", self.test)):
            found[f"{split}_accuracy"], found[f"{split}_loss"] = accuracy_and_loss(
                self.loss, state, samples
            )
        return found
