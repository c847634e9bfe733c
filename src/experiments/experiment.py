"""Experiments: the parts of their names, and what decides their numbers."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from src.errors import UserError
from src.experiments import hyperparameters
from src.experiments.models import DEFAULT_BACKBONE, MODELS, Model
from src.experiments.tasks import TASKS, Task

# What a seed drives; the name is the suffix of the experiment.
RANDOMNESS = {
    "": "initialisation and batch order",
    "init": "initialisation only",
    "batch": "batch order only",
}

ALL = "train_all"  # the split of every sample that there is to train on

_LONGEST_NAME = 100  # characters of a comparison's folder; file systems take 255 bytes

_NAME = re.compile(
    r"(?P<model>[^_]+)_(?P<task>[^_]+)_(?:(?P<n>\d+)pc|all)(?P<noisy>_noisy)?"
    r"(?:_(?P<randomness>[^_]+))?"
)


@dataclass(frozen=True)
class Experiment:
    """One experiment: a model, a task, a number of samples, and what a seed drives.

    Attributes:
        model: The architecture.
        task: The task.
        n_per_class: Training samples per class; None: every sample of the train split.
        randomness: What a seed drives, one of RANDOMNESS.
        label_noise: Whether a fixed tenth of the training labels is flipped (`src.data.noise`).
        backbone: Of a ViT, the pre-trained network: a name on the hub, an absolute path, or
            TINY_BACKBONE. No part of the name: a seed's checkpoints say which it was.
        random_crop: Of a ViT, whether images are cropped at random, in training and evaluation.
    """

    model: Model
    task: Task
    n_per_class: int | None
    randomness: str = ""
    label_noise: bool = False
    backbone: str = DEFAULT_BACKBONE
    random_crop: bool = False

    # Low-rank adaptation of a ViT's query and value layers.
    lora_rank: int = 16
    lora_alpha: int = 16
    lora_dropout: float = 0.1

    @cached_property
    def hyperparameters(self) -> hyperparameters.Hyperparameters:
        """What decides the training beside model, data and draw.

        Raises:
            UserError: Those of the model and those of the task do not go together.
        """
        return hyperparameters.combine(
            self.task.hyperparameters, self.model.hyperparameters, self.name
        )

    @property
    def has_backbone(self) -> bool:
        """Whether a pre-trained network is fine-tuned, rather than a new one trained."""
        return self.model.factory is None

    @property
    def decays(self) -> bool:
        """Whether the learning rate decays to 0, linearly over all steps."""
        return self.has_backbone

    @property
    def name(self) -> str:
        """Name of the experiment and of its folder under models/, tda_scores/ and results/."""
        noisy = "_noisy" if self.label_noise else ""
        suffix = f"_{self.randomness}" if self.randomness else ""
        return f"{self.model.name}_{self.task.name}_{self.size}{noisy}{suffix}"

    @property
    def size(self) -> str:
        """What the name says of the number of training samples."""
        return "all" if self.n_per_class is None else f"{self.n_per_class}pc"

    @property
    def epochs(self) -> int:
        """Number of training epochs."""
        return self.hyperparameters.epochs

    @property
    def batch_size(self) -> int:
        """Samples in a batch."""
        return self.hyperparameters.batch_size

    @property
    def kept_epochs(self) -> tuple[int, ...]:
        """The last epochs (0-based), whose checkpoints are kept."""
        return self.hyperparameters.kept_epochs

    @property
    def n_train(self) -> int | None:
        """Number of training samples, of a task that is described; None: all of the source's."""
        if self.n_per_class is None:
            return None
        return self.n_per_class * (1 if self.task.has_values else len(self.task.classes))

    @property
    def splits(self) -> dict[str, str]:
        """Names of the splits that "train" and "test" samples come from."""
        return {"train": f"train_{self.size}", "test": "test"}

    def has_one_batch(self, n_train: int) -> bool:
        """Say whether a batch holds all so many samples: then their order changes only rounding."""
        return n_train <= self.batch_size

    @property
    def training_script(self) -> str:
        """Script that trains this experiment's model."""
        return "run_vit_finetuning.py" if self.has_backbone else "run_cnn_training.py"

    def training_settings(self) -> dict:
        """Hyper-parameters that decide the numbers in a checkpoint."""
        chosen = self.hyperparameters
        settings = {
            "experiment": self.name,
            "epochs": chosen.epochs,
            "batch_size": chosen.batch_size,
            "learning_rate": chosen.learning_rate,
            "weight_decay": chosen.weight_decay,
            "optimizer": chosen.optimizer,
            "n_checkpoints": chosen.n_checkpoints,
        }
        if chosen.optimizer == "sgd":
            settings["momentum"] = chosen.momentum
        if self.has_backbone:
            settings |= {
                "learning_rate_decay": "linear",
                "lora_rank": self.lora_rank,
                "lora_alpha": self.lora_alpha,
                "lora_dropout": self.lora_dropout,
                "backbone": self.backbone,
                "random_crop": self.random_crop,
            }
        return settings


def parse_experiment(name: str) -> Experiment:
    """Return the experiment called `name`.

    Raises:
        UserError: The name is not of the form, or one of its parts is unknown; the message says
            which part and what is allowed.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise UserError(
            f"unknown experiment {name!r}: a name is <model>_<task>_<n>pc[_noisy][_init|_batch], "
            "for example cnn2_mnist3_10pc, or has all in the place of <n>pc"
        )
    model, task, randomness = match["model"], match["task"], match["randomness"] or ""
    if model not in MODELS:
        raise UserError(
            f"unknown model {model!r} in {name!r}: choose from {', '.join(MODELS)}, "
            "or define it in a file that --define names"
        )
    if task not in TASKS:
        raise UserError(
            f"unknown task {task!r} in {name!r}: choose from {', '.join(TASKS)}, "
            "or define it in a file that --define names"
        )
    n_per_class = None if match["n"] is None else int(match["n"])
    if n_per_class not in TASKS[task].sizes:
        allowed = ", ".join("all" if n is None else f"{n}" for n in TASKS[task].sizes)
        what = "experiment of all" if n_per_class is None else f"subset of {n_per_class} per class"
        raise UserError(f"{task} has no {what} (in {name!r}): choose from {allowed}")
    if randomness not in RANDOMNESS:
        allowed = ", ".join(f"_{r}" for r in RANDOMNESS if r)
        raise UserError(
            f"unknown suffix '_{randomness}' in {name!r}: choose from {allowed} or none; "
            "_noisy stands before it"
        )
    noisy = match["noisy"] is not None
    experiment = Experiment(MODELS[model], TASKS[task], n_per_class, randomness, noisy)
    experiment.hyperparameters  # noqa: B018, raises where they do not go together
    return experiment


def compared_name(experiments: Iterable[Experiment]) -> str:
    """Return what a comparison of experiments is called: its folder under results/comparison/.

    The names are joined by `+` in one order, whatever the order given, so that a set of experiments
    has one name and no two sets share one. Longer than a folder's name should be, it is the first
    experiment, how many follow, and the beginning of the SHA-256 of all names.
    """
    ordered = sorted(
        set(experiments),
        key=lambda e: (
            *(e.model.name, e.task.name, e.n_per_class or math.inf),
            *(e.label_noise, e.randomness),
        ),
    )
    name = "+".join(e.name for e in ordered)
    if len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return f"{ordered[0].name}+{len(ordered) - 1}_more_{digest}"


def paper_cnn_experiments() -> list[Experiment]:
    """Every CNN experiment of the paper: cnn2 and cnn3, cnn2 also by source and on all of MNIST."""
    plain = [
        Experiment(MODELS[model], TASKS[task], n)
        for model in ("cnn2", "cnn3")
        for task in ("mnist3", "cifar10")
        for n in TASKS[task].n_per_class
    ]
    by_source = [
        Experiment(e.model, e.task, e.n_per_class, randomness)
        for e in plain
        if e.model.name == "cnn2"
        for randomness in ("init", "batch")
    ]
    return [*plain, *by_source, Experiment(MODELS["cnn2"], TASKS["mnist"], None)]


def paper_vit_experiments() -> list[Experiment]:
    """Every ViT experiment of the paper."""
    return [
        Experiment(MODELS["vit"], TASKS[task], n)
        for task in ("mnist3", "cifar10")
        for n in TASKS[task].n_per_class
    ]
