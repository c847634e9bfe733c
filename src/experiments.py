"""Names, hyper-parameters and paths of the experiments; the only place where they stand.

An experiment is `<model>_<task>_<n>pc[_init|_batch]`, for example `cnn2_mnist3_10pc`: a model, a
task, the number of training samples per class, and what a seed drives. This module imports nothing
heavy, so that wrong arguments are answered at once.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from src.errors import UserError

REPOSITORY = Path(__file__).resolve().parent.parent

METHODS = ("loo", "ats", "if", "gd", "gc")
# The sign of a score where the training sample helps, that is, lowers the test sample's loss.
HELPFUL_SIGN = {"loo": 1, "ats": -1, "if": -1, "gd": 1, "gc": 1}
# The methods that each run_<step>.py computes; the ones that take longest stand first.
STEPS = {"loo": ("loo",), "if": ("if",), "ats": ("ats",), "gd_and_gc": ("gd", "gc")}
N_SEEDS = 10
N_CHECKPOINTS = 5
N_CLASSES = 10  # outputs of every model, also for the tasks with three classes
SOURCE_VARIABLE = "TDA_DATASETS"  # names the folder of data sets where --source does not


def _are_counts(*numbers: int) -> bool:
    return all(type(number) is int and number >= 1 for number in numbers)


def _are_different(numbers: tuple[int, ...]) -> bool:
    return 0 < len(set(numbers)) == len(numbers)


@dataclass(frozen=True)
class Task:
    """A classification task: where its images come from and how much of them is used.

    Attributes:
        name: Name of the task, as in an experiment's name.
        repository: Name of the data set on the hub; None for data that need no download.
        classes: Labels that belong to the task.
        n_per_class: Allowed numbers of training samples per class.
        n_test_per_class: Number of test samples per class.
        epochs: Number of training epochs.
        image_shape: (channels, height, width) of an image.
        one_pool: Whether train and test samples are drawn from one pool (and must be disjoint)
            rather than from two splits of the source.
        normalised: Whether inputs are scaled to mean .5 and standard deviation .5 per channel;
            otherwise they lie in [0, 1].
        class_names: What figures call each label, by label. Where the source has names too, these
            must be the same.

    Raises:
        UserError: A field is none that experiments can be run with.
    """

    name: str
    repository: str | None
    classes: tuple[int, ...]
    n_per_class: tuple[int, ...]
    n_test_per_class: int
    epochs: int
    image_shape: tuple[int, int, int]
    one_pool: bool = False
    normalised: bool = False
    class_names: tuple[str, ...] = tuple(f"class {label}" for label in range(N_CLASSES))

    def __post_init__(self) -> None:
        for problem in self._problems():
            raise UserError(f"task {self.name!r}: {problem}")

    def _problems(self) -> Iterator[str]:
        """Yield what experiments cannot be run with."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*", self.name):
            yield (
                "a name is of letters, digits, '-' and '.', since '_' divides the parts of an "
                "experiment's name"
            )
        if self.repository is None and not self.one_pool:
            yield "without a repository its images are the bundled digits, which are one_pool"
        if self.repository and not re.fullmatch(r"([\w-][\w.-]*/)?[\w-][\w.-]*", self.repository):
            yield f"repository is {self.repository!r}, not owner/name"
        if not _are_different(self.classes) or not set(self.classes) <= set(range(N_CLASSES)):
            yield (
                f"classes are {self.classes}, not different labels from 0 to {N_CLASSES - 1}, for "
                "which the models have outputs"
            )
        if not _are_different(self.n_per_class) or not _are_counts(*self.n_per_class):
            yield f"n_per_class is {self.n_per_class}, not different numbers of at least 1"
        if not _are_counts(self.n_test_per_class):
            yield f"n_test_per_class is {self.n_test_per_class}, not a number of at least 1"
        if not _are_counts(self.epochs) or self.epochs < N_CHECKPOINTS:
            yield f"epochs is {self.epochs}, not {N_CHECKPOINTS} or more: the last ones are kept"
        if len(self.image_shape) != 3 or not _are_counts(*self.image_shape):
            yield f"image_shape is {self.image_shape}, not (channels, height, width)"
        channels = (1,) if self.repository is None else (1, 3)
        if self.image_shape[0] not in channels:
            yield f"image_shape is {self.image_shape}, whose first number must be in {channels}"
        if len(self.class_names) <= max(self.classes):
            yield f"class_names has no name for the label {max(self.classes)}"

    @property
    def names_classes(self) -> bool:
        """Whether the task says what its classes are called."""
        return self.class_names != Task.class_names

    @property
    def source(self) -> str:
        """Name of the source that the images come from: that of its repository, or digits."""
        return "digits" if self.repository is None else self.repository.split("/")[-1]


try:
    TASKS = {
        task.name: task
        for task in (
            Task("digits3", None, (0, 1, 2), (10, 20, 50), 100, 15, (1, 28, 28), one_pool=True),
            Task("mnist3", "ylecun/mnist", (0, 1, 2), (10, 20, 50), 300, 15, (1, 28, 28)),
            Task(
                "cifar10",
                "uoft-cs/cifar10",
                tuple(range(10)),
                (10, 20, 30, 40, 50, 60),
                50,
                30,
                (3, 32, 32),
                normalised=True,
                class_names=(
                    "airplane",
                    "automobile",
                    "bird",
                    "cat",
                    "deer",
                    "dog",
                    "frog",
                    "horse",
                    "ship",
                    "truck",
                ),
            ),
        )
    }
except UserError as error:  # while a script is imported, so before `src.cli.run` can say it
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)

MODELS = ("cnn2", "cnn3", "vit")
DEFAULT_BACKBONE = "google/vit-base-patch16-224-in21k"
TINY_BACKBONE = "tiny"  # pre-trained by run_vit_finetuning.py itself, without the hub

# What a seed drives; the name is the suffix of the experiment.
RANDOMNESS = {
    "": "initialisation and batch order",
    "init": "initialisation only",
    "batch": "batch order only",
}

_LONGEST_NAME = 100  # characters of a comparison's folder; file systems take 255 bytes

_NAME = re.compile(r"(?P<model>[^_]+)_(?P<task>[^_]+)_(?P<n>\d+)pc(?:_(?P<randomness>[^_]+))?")


@dataclass(frozen=True)
class Experiment:
    """One experiment: the parts of its name and its hyper-parameters.

    Attributes:
        model: One of MODELS.
        task: The task.
        n_per_class: Training samples per class.
        randomness: What a seed drives, one of RANDOMNESS.
        backbone: Of a ViT, the pre-trained network: a name on the hub, an absolute path, or
            TINY_BACKBONE. No part of the name: a seed's checkpoints say which it was.
        random_crop: Of a ViT, whether images are cropped at random, in training and evaluation.
    """

    model: str
    task: Task
    n_per_class: int
    randomness: str = ""
    backbone: str = DEFAULT_BACKBONE
    random_crop: bool = False

    # Adam of the paper; the weight decay is added to the gradient, not decoupled.
    learning_rate: float = 1e-3
    weight_decay: float = 5e-3
    batch_size: int = 32

    # Low-rank adaptation of a ViT's query and value layers.
    lora_rank: int = 16
    lora_alpha: int = 16
    lora_dropout: float = 0.1

    @property
    def has_backbone(self) -> bool:
        """Whether a pre-trained network is fine-tuned, rather than a new one trained."""
        return self.model == "vit"

    @property
    def decays(self) -> bool:
        """Whether the learning rate decays to 0, linearly over all steps."""
        return self.model == "vit"

    @property
    def name(self) -> str:
        """Name of the experiment and of its folder under models/, tda_scores/ and results/."""
        suffix = f"_{self.randomness}" if self.randomness else ""
        return f"{self.model}_{self.task.name}_{self.n_per_class}pc{suffix}"

    @property
    def epochs(self) -> int:
        """Number of training epochs."""
        return self.task.epochs

    @property
    def kept_epochs(self) -> tuple[int, ...]:
        """The last five epochs (0-based), whose checkpoints are kept."""
        return tuple(range(self.epochs - N_CHECKPOINTS, self.epochs))

    @property
    def n_train(self) -> int:
        """Number of training samples."""
        return self.n_per_class * len(self.task.classes)

    @property
    def splits(self) -> dict[str, str]:
        """Names of the splits that "train" and "test" samples come from."""
        return {"train": f"train_{self.n_per_class}pc", "test": "test"}

    @property
    def has_one_batch(self) -> bool:
        """Whether a batch holds all training samples, so that their order changes only rounding."""
        return self.n_train <= self.batch_size

    @property
    def training_script(self) -> str:
        """Script that trains this experiment's model."""
        return "run_vit_finetuning.py" if self.has_backbone else "run_cnn_training.py"

    def training_settings(self) -> dict:
        """Hyper-parameters that decide the numbers in a checkpoint."""
        settings = {
            "experiment": self.name,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "weight_decay": self.weight_decay,
        }
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


def script_of(method: str) -> str:
    """Return the name of the script that computes a method."""
    return next(f"run_{step}.py" for step, methods in STEPS.items() if method in methods)


def parse_experiment(name: str) -> Experiment:
    """Return the experiment called `name`.

    Raises:
        UserError: The name is not of the form, or one of its parts is unknown; the message says
            which part and what is allowed.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise UserError(
            f"unknown experiment {name!r}: a name is <model>_<task>_<n>pc[_init|_batch], "
            "for example cnn2_mnist3_10pc"
        )
    model, task_name, randomness = match["model"], match["task"], match["randomness"] or ""
    if model not in MODELS:
        raise UserError(f"unknown model {model!r} in {name!r}: choose from {', '.join(MODELS)}")
    if task_name not in TASKS:
        raise UserError(f"unknown task {task_name!r} in {name!r}: choose from {', '.join(TASKS)}")
    task = TASKS[task_name]
    if int(match["n"]) not in task.n_per_class:
        allowed = ", ".join(map(str, task.n_per_class))
        raise UserError(
            f"{task_name} has no subset of {match['n']} per class (in {name!r}): "
            f"choose from {allowed}"
        )
    if randomness not in RANDOMNESS:
        allowed = ", ".join(f"_{r}" for r in RANDOMNESS if r)
        raise UserError(
            f"unknown suffix '_{randomness}' in {name!r}: choose from {allowed} or none"
        )
    return Experiment(model, task, int(match["n"]), randomness)


def compared_name(experiments: Iterable[Experiment]) -> str:
    """Return what a comparison of experiments is called: its folder under results/comparison/.

    The names are joined by `+` in one order, whatever the order given, so that a set of experiments
    has one name and no two sets share one. Longer than a folder's name should be, it is the first
    experiment, how many follow, and the beginning of the SHA-256 of all names.
    """
    ordered = sorted(
        set(experiments), key=lambda e: (e.model, e.task.name, e.n_per_class, e.randomness)
    )
    name = "+".join(e.name for e in ordered)
    if len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return f"{ordered[0].name}+{len(ordered) - 1}_more_{digest}"


def paper_cnn_experiments() -> list[Experiment]:
    """Every CNN experiment of the paper: cnn2 and cnn3, and cnn2 by source of randomness."""
    plain = [
        Experiment(model, TASKS[task], n)
        for model in ("cnn2", "cnn3")
        for task in ("mnist3", "cifar10")
        for n in TASKS[task].n_per_class
    ]
    by_source = [
        Experiment("cnn2", e.task, e.n_per_class, randomness)
        for e in plain
        if e.model == "cnn2"
        for randomness in ("init", "batch")
    ]
    return plain + by_source


def paper_vit_experiments() -> list[Experiment]:
    """Every ViT experiment of the paper."""
    return [
        Experiment("vit", TASKS[task], n)
        for task in ("mnist3", "cifar10")
        for n in TASKS[task].n_per_class
    ]


@dataclass(frozen=True)
class Paths:
    """Every path below the root folder, and what to run on it."""

    root: Path

    def call(self, script: str, *arguments: object) -> tuple[str, ...]:
        """Return a script and its arguments, the root among them where it is not the default."""
        root = self.root.resolve()
        option = () if root == REPOSITORY else ("--root", root)
        return (script, *map(str, (*arguments, *option)))

    def command(self, script: str, *arguments: object) -> str:
        """Return the command line that runs a script on this root, for a shell."""
        return shlex.join(("python", *self.call(script, *arguments)))

    def indices(self, task: str, split: str) -> Path:
        """Index file of a split ('train_10pc', 'test'): one index into the full split a line."""
        return self.root / "data" / "subset_indices" / task / f"{split}.txt"

    def tensors(self, task: str, split: str) -> Path:
        """Tensors of a split: images, labels, indices."""
        return self.root / "data" / task / f"{split}.pt"

    def checkpoint(self, experiment: Experiment, seed: int, epoch: int) -> Path:
        """Checkpoint of one epoch of one seed."""
        return self.root / "models" / experiment.name / str(seed) / f"ckpt_epoch_{epoch}.pt"

    def tiny_backbone(self, task: str) -> Path:
        """Folder of the tiny backbone that is pre-trained on images that a task does not use."""
        return self.root / "models" / "backbones" / f"{TINY_BACKBONE}_{task}"

    def scores(self, experiment: Experiment, method: str, seed: int) -> Path:
        """Attribution scores of one method on one seed's checkpoints."""
        return self.root / "tda_scores" / experiment.name / method / f"{seed}.pt"

    def partial_scores(self, experiment: Experiment, method: str, seed: int) -> Path:
        """Finished pieces of a score file that is being computed."""
        return self.scores(experiment, method, seed).with_suffix(".partial.pt")

    def training_lock(self, experiment: Experiment, seed: int) -> Path:
        """Lock of the training of a seed."""
        return self.root / "models" / experiment.name / f".{seed}.lock"

    def scores_lock(self, experiment: Experiment, method: str, seed: int) -> Path:
        """Lock of one method's scores of a seed."""
        return self.scores(experiment, method, seed).with_name(f".{seed}.lock")

    def backbone_lock(self, task: str) -> Path:
        """Lock of the pre-training of a task's tiny backbone."""
        folder = self.tiny_backbone(task)
        return folder.with_name(f".{folder.name}.lock")

    def log(self, experiment: Experiment, job: str, seed: int) -> Path:
        """Log of a job ("training" or a method) that `run_parallel.py` started."""
        return self.root / "logs" / experiment.name / job / f"{seed}.log"

    def results(self, experiment: Experiment) -> Path:
        """Folder of an experiment's tables and figures."""
        return self.root / "results" / experiment.name

    @property
    def comparison(self) -> Path:
        """Folder of all comparisons of experiments, each in a folder of its own in it."""
        return self.root / "results" / "comparison"
