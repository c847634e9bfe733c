"""Training a seed of an experiment, and the checkpoints that it leaves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from src.data.samples import Samples, load_samples
from src.draws import Draw, shuffled_epochs
from src.evaluation import accuracy
from src.experiments import Experiment, Paths
from src.members import Params, PerSampleLoss, repeat
from src.models import build
from src.storage import check_settings, digest, is_finished, load, save
from src.training import AdamSettings, Trainer


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
    adam: AdamSettings,
    batch_size: int,
    n_epochs: int,
) -> Iterator[EpochState]:
    """Train one model from `start`; yield its state after each epoch.

    Args:
        loss: The per-sample loss.
        start: Initial parameters; torch's global generator stands where the batch order begins.
        samples: The training samples.
        adam: Settings of the optimiser.
        batch_size: Samples in a batch.
        n_epochs: Number of epochs.

    Raises:
        UserError: The loss is not finite.
    """
    loss.model.train()
    trainer = Trainer(loss, repeat(start, 1), samples, adam)
    schedule = shuffled_epochs(len(samples), batch_size, n_epochs)
    for epoch, mean_loss in enumerate(trainer.epochs(schedule)):
        yield EpochState(epoch, *trainer.state_of_member(0), mean_loss.item())


def environment(device: torch.device) -> dict:
    """Return what is recorded of the machine and the libraries because it changes rounding."""
    return {"torch": str(torch.__version__), "device": device.type}


def training_command(experiment: Experiment, seed_id: int | None = None) -> str:
    """Return the command that trains an experiment."""
    command = f"python {experiment.training_script} --experiment {experiment.name}"
    return command if seed_id is None else f"{command} --seed_id {seed_id}"


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
    """

    experiment: Experiment
    paths: Paths
    loss: PerSampleLoss
    train: Samples
    test: Samples
    device: torch.device

    @classmethod
    def load(cls, experiment: Experiment, paths: Paths, device: torch.device) -> Setup:
        """Load an experiment's samples and build its architecture.

        Raises:
            UserError: The samples are missing or damaged.
        """
        train_samples, test_samples = load_samples(paths, experiment)
        return cls(
            experiment,
            paths,
            PerSampleLoss(build(experiment).to(device)),
            train_samples.to(device),
            test_samples.to(device),
            device,
        )

    @property
    def adam(self) -> AdamSettings:
        """Settings of the optimiser."""
        return AdamSettings(self.experiment.learning_rate, self.experiment.weight_decay)

    def start(self, seed: int) -> Params:
        """Return the initial parameters of a seed's draw, ready for its batch order."""
        params = Draw.of(self.experiment, seed).start(partial(build, self.experiment))
        return {name: p.to(self.device) for name, p in params.items()}

    def settings(self, seed: int) -> dict:
        """Return what decides the numbers in a seed's checkpoints, apart from the machine."""
        return {
            **self.experiment.training_settings(),
            "seed": seed,
            "train_samples": digest([self.train.images, self.train.labels]),
        }

    def train_seed(self, seed: int) -> Iterator[EpochState]:
        """Train a seed's model and save the last five epochs; yield the state after each epoch.

        The checkpoints are written when training has ended, so that a seed that fails leaves none.

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
        for state in kept:
            save(
                self.paths.checkpoint(e, seed, state.epoch),
                {
                    "epoch": state.epoch,
                    "model_state_dict": state.params,
                    "optimizer_state_dict": state.optimizer_state,
                    "loss": state.loss,
                    "settings": {**self.settings(seed), **environment(self.device)},
                },
            )

    def is_trained(self, seed: int, seed_id: int, *, overwrite: bool) -> bool:
        """Say whether all of a seed's checkpoints are there.

        Raises:
            UserError: One is there with other settings, or damaged, and `overwrite` is False.
        """
        settings = {**self.settings(seed), **environment(self.device)}
        make = f"{training_command(self.experiment, seed_id)} --overwrite"
        return all(
            [
                is_finished(
                    self.paths.checkpoint(self.experiment, seed, epoch),
                    settings,
                    make=make,
                    overwrite=overwrite,
                )
                for epoch in self.experiment.kept_epochs
            ]
        )

    def load_checkpoints(self, seed: int, seed_id: int) -> list[Params]:
        """Return the parameters of a seed's five checkpoints, in the order of epochs.

        Raises:
            UserError: A checkpoint is missing or damaged, or was trained with other settings or
                other samples.
        """
        settings = self.settings(seed)
        names = list(dict(self.loss.model.named_parameters()))
        checkpoints = []
        for epoch in self.experiment.kept_epochs:
            path = self.paths.checkpoint(self.experiment, seed, epoch)
            content = load(path, training_command(self.experiment, seed_id))
            found = content.get("settings", {})
            check_settings(path, {key: found.get(key) for key in settings}, settings)
            params: dict[str, Tensor] = content["model_state_dict"]
            checkpoints.append(
                {name: params[name].to(self.device) for name in names if name in params}
            )
        return checkpoints

    def accuracies(self, params: Params) -> tuple[float, float]:
        """Return the share of train and of test samples that are classified correctly."""
        return (
            accuracy(self.loss.model, params, self.train),
            accuracy(self.loss.model, params, self.test),
        )
