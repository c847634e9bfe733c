"""Tasks: where samples come from, how many are used, and what of a sample is attributed."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.errors import UserError
from src.experiments import hyperparameters

if TYPE_CHECKING:
    from torch import Tensor

NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*", re.IGNORECASE)
NAME_RULE = (
    "a name holds letters, digits and inner hyphens, since '_' divides the parts of an "
    "experiment's name"
)
SOURCES = ("load", "repository", "folder")  # fields that say where a task's samples come from

_REPOSITORY = re.compile(r"([\w-][\w.-]*/)?[\w-][\w.-]*")


@dataclass(frozen=True)
class Task:
    """What is learnt: samples, their number, and the loss.

    Attributes:
        name: Name of the task, as in an experiment's name.
        n_per_class: Allowed numbers of training samples per class.
        n_test_per_class: Number of test samples per class.
        n_scored: Where every sample of the train split may be a training sample, too
            (`<model>_<task>_all`): how many of them are scored.
        repository: Name of a data set on the hub.
        folder: A folder in the hub's layout, or of folders of images, one a class.
        load: Returns inputs and targets, as `register_task` says; called by
            `run_subset_generation.py` alone. Without one of the three samples are scikit-learn's
            digits.
        classes: Labels that belong to the task; None: all that the data have.
        n_classes: Outputs of a classifier; None: as many as the data have class names or, without
            these, the largest label and one more; None too where targets are values.
        input_shape: Shape of one input; None: that of the data.
        target_shape: Shape of one target where targets are values, as the data say; None: targets
            are classes.
        label_column: Of a repository or folder: the column of labels; None: "label" or, without it,
            the only one of class labels.
        one_pool: Whether train and test samples are drawn from one pool (and must be disjoint)
            rather than from two splits of the source; so they are, too, where there is but one.
        normalised: Of images: whether inputs are scaled to mean .5 and standard deviation .5 per
            channel; otherwise they lie in [0, 1].
        class_names: What figures call each label, by label; where the source has names too, these
            must be the same. Empty: the source's or, without these, "class 0" and so on.
        criterion: Per-sample loss (B,) of outputs (B, ...) and targets (B, ...); None:
            cross-entropy, of values the squared error.
        measure: What of a test sample is attributed, (B,) of outputs and targets; None: the loss.
        text: Makes the text that stands for one input on a sheet of pairs; None: the image, or
            the input's numbers.
        feature_names: Of inputs that are rows of numbers, what each number is.
        hyperparameters: Of training, by name (`src.experiments.hyperparameters.NAMES`).
    """

    name: str
    n_per_class: tuple[int, ...]
    n_test_per_class: int
    n_scored: int | None = None
    repository: str | None = None
    folder: str | Path | None = None
    load: Callable[[], Mapping] | None = None
    classes: tuple[int, ...] | None = None
    n_classes: int | None = None
    input_shape: tuple[int, ...] | None = None
    target_shape: tuple[int, ...] | None = None
    label_column: str | None = None
    one_pool: bool = False
    normalised: bool = False
    class_names: tuple[str, ...] = ()
    criterion: Callable[[Tensor, Tensor], Tensor] | None = None
    measure: Callable[[Tensor, Tensor], Tensor] | None = None
    text: Callable[[Tensor], str] | None = None
    feature_names: tuple[str, ...] = ()
    hyperparameters: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            UserError: A field is none that experiments can be run with.
        """
        for problem in self._problems():
            raise UserError(f"task {self.name!r}: {problem}")

    def _problems(self) -> Iterator[str]:
        """Yield what experiments cannot be run with."""
        if not (isinstance(self.name, str) and NAME.fullmatch(self.name)):
            yield NAME_RULE
        sources = [key for key in SOURCES if getattr(self, key) is not None]
        if len(sources) > 1:
            yield f"its data come from {' and '.join(sources)}: give one of them"
        if not sources and not self.one_pool:
            yield "without a source its images are the bundled digits, which are one_pool"
        if self.repository is not None and not (
            isinstance(self.repository, str) and _REPOSITORY.fullmatch(self.repository)
        ):
            yield (
                f"repository is {self.repository!r}, not owner/name; a folder of one's own is "
                "given as folder"
            )
        if self.folder is not None and not (isinstance(self.folder, str | Path) and self.folder):
            yield f"folder is {self.folder!r}, not the path of one"
        if not _are_different(self.n_per_class, _is_count) and (
            self.n_per_class != () or self.n_scored is None
        ):
            yield f"n_per_class is {self.n_per_class!r}, not different numbers of at least 1"
        for key in ("n_test_per_class", "n_classes", "n_scored"):
            value = getattr(self, key)
            if not _is_count(value) and (value is not None or key == "n_test_per_class"):
                yield f"{key} is {value!r}, not a number of at least 1"
        for key in ("load", "criterion", "measure", "text"):
            value = getattr(self, key)
            if value is not None and not callable(value):
                yield f"{key} is {value!r}, not a function"
        if self.classes is not None:
            if not _are_different(self.classes, lambda c: type(c) is int and c >= 0):
                yield f"classes are {self.classes!r}, not different labels from 0 on"
            if self.n_classes is not None and max(self.classes) >= self.n_classes:
                yield (
                    f"classes are {self.classes}, not different labels from 0 to "
                    f"{self.n_classes - 1}, for which the models have outputs"
                )
        if not _are_texts(self.class_names) or not _are_texts(self.feature_names):
            yield "class_names and feature_names are texts"
        if self.class_names and self.classes and len(self.class_names) <= max(self.classes):
            yield f"class_names has no name for the label {max(self.classes)}"
        shape = self.input_shape
        if shape is not None and not (isinstance(shape, tuple) and all(map(_is_count, shape))):
            yield f"input_shape is {shape!r}, not the numbers that one input's dimensions have"
        if self.load is None and shape is not None:
            channels = (1,) if not sources else (1, 3)
            if len(shape) != 3 or shape[0] not in channels:
                yield (
                    f"input_shape is {shape}, not (channels, height, width) of images with "
                    f"channels in {channels}"
                )
        if not isinstance(self.one_pool, bool) or not isinstance(self.normalised, bool):
            yield "one_pool and normalised are True or False"
        yield from hyperparameters.problems(self.hyperparameters)

    @property
    def sizes(self) -> tuple[int | None, ...]:
        """Numbers of training samples per class; None: every sample of the train split."""
        return self.n_per_class if self.n_scored is None else (*self.n_per_class, None)

    @property
    def is_described(self) -> bool:
        """Whether it is known what the data are like (`src.data.samples.described`)."""
        kind = self.n_classes is not None and self.classes is not None
        return self.input_shape is not None and (kind or self.has_values)

    @property
    def has_values(self) -> bool:
        """Whether targets are values rather than classes, as far as is known."""
        return self.target_shape is not None

    @property
    def source(self) -> str:
        """Name of the source that the samples come from."""
        if self.repository is not None:
            return self.repository.split("/")[-1]
        return "own" if self.load or self.folder else "digits"

    @property
    def names_classes(self) -> bool:
        """Whether the task says what its classes are called."""
        return bool(self.class_names)

    def name_of(self, label: int) -> str:
        """Return what figures call a label."""
        return self.class_names[label] if self.names_classes else f"class {label}"


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 1


def _are_different(values: object, is_one: Callable[[object], bool]) -> bool:
    return (
        isinstance(values, tuple)
        and all(map(is_one, values))
        and 0 < len(set(values)) == len(values)
    )


def _are_texts(values: object) -> bool:
    return isinstance(values, tuple) and all(isinstance(value, str) for value in values)


_CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"

try:
    TASKS: dict[str, Task] = {
        task.name: task
        for task in (
            Task(
                "digits3",
                (10, 20, 50),
                100,
                classes=(0, 1, 2),
                n_classes=10,
                input_shape=(1, 28, 28),
                one_pool=True,
                hyperparameters={"epochs": 15},
            ),
            Task(
                "mnist3",
                (10, 20, 50),
                300,
                repository="ylecun/mnist",
                classes=(0, 1, 2),
                n_classes=10,
                input_shape=(1, 28, 28),
                hyperparameters={"epochs": 15},
            ),
            Task(
                "mnist",
                (),
                1,
                n_scored=100,
                repository="ylecun/mnist",
                classes=tuple(range(10)),
                n_classes=10,
                input_shape=(1, 28, 28),
                hyperparameters={"epochs": 15},
            ),
            Task(
                "cifar10",
                (10, 20, 30, 40, 50, 60),
                50,
                repository="uoft-cs/cifar10",
                classes=tuple(range(10)),
                n_classes=10,
                input_shape=(3, 32, 32),
                normalised=True,
                class_names=tuple(_CIFAR10.split()),
                hyperparameters={"epochs": 30},
            ),
        )
    }
except UserError as error:  # while a script is imported, so before `src.cli.run` can say it
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)


def register_task(
    name: str,
    load: Callable[[], Mapping] | None = None,
    *,
    n_per_class: tuple[int, ...] | int,
    n_test_per_class: int,
    **given: Any,
) -> Task:
    """Make a task of one's own known, so that `<model>_<name>_<n>pc` names an experiment.

    Args:
        name: Letters, digits and inner hyphens.
        load: Returns {"train": (inputs, targets), "test": (inputs, targets)}, or {"pool": (inputs,
            targets)} from which both are drawn; tensors or arrays, samples first. Integer targets
            (N,) are classes; others are values, for squared error, of which `n_per_class` samples
            are drawn in all. Called by `run_subset_generation.py` alone. None: `repository` or
            `folder` names the data.
        n_per_class: Allowed numbers of training samples per class.
        n_test_per_class: Number of test samples per class.
        **given: Further fields of `Task`, and hyper-parameters of training.

    Raises:
        UserError: The name is taken, or a field is not allowed.
    """
    if name in TASKS:
        raise UserError(f"task {name!r} is there already ({', '.join(TASKS)}): take another name")
    own = set(Task.__dataclass_fields__) - {"name", "hyperparameters", "target_shape"}
    unknown = [key for key in given if key not in own and key not in hyperparameters.NAMES]
    if unknown:
        allowed = ", ".join(sorted(own | set(hyperparameters.NAMES)))
        raise UserError(f"task {name!r} has no field {unknown[0]!r}: choose from {allowed}")
    fields = {"n_per_class": n_per_class, "load": load, **given}
    if all(fields.get(key) is None for key in SOURCES):
        raise UserError(f"task {name!r} has no data: give {', '.join(SOURCES[:-1])} or folder")
    if type(n_per_class) is int:
        fields["n_per_class"] = (n_per_class,)
    chosen = {key: fields.pop(key) for key in hyperparameters.NAMES if key in fields}
    lists = {key: tuple(value) for key, value in fields.items() if isinstance(value, list)}
    for key in ("class_names", "feature_names"):  # not of a library's own type, which no file holds
        if _are_texts(tuple(fields.get(key, ()))):
            lists[key] = tuple(map(str, fields.get(key, ())))
    fields |= lists | {"n_test_per_class": n_test_per_class, "hyperparameters": chosen}
    return TASKS.setdefault(name, Task(name, **fields))
