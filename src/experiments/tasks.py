"""Tasks: where samples come from, how many are used, and what of a sample is attributed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from src.errors import UserError
from src.experiments import hyperparameters

if TYPE_CHECKING:
    from torch import Tensor

NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*", re.IGNORECASE)
NAME_RULE = "a name holds letters, digits and inner hyphens"


@dataclass(frozen=True)
class Task:
    """What is learnt: samples, their number, and the loss.

    Attributes:
        name: Name of the task, as in an experiment's name.
        n_per_class: Allowed numbers of training samples per class.
        n_test_per_class: Number of test samples per class.
        repository: Name of a data set on the hub, or a folder: in the hub's layout, or of folders
            of images, one a class; None: `load` or, without it, scikit-learn's digits.
        load: Returns inputs and targets, as `register_task` says; called by
            `run_subset_generation.py` alone.
        classes: Labels that belong to the task; None: all that the data have.
        n_classes: Outputs of a classifier; None: the largest label of the data and one more.
        input_shape: Shape of one input; None: that of the data.
        one_pool: Whether train and test samples are drawn from one pool (and must be disjoint)
            rather than from two splits of the source.
        normalised: Of images: whether inputs are scaled to mean .5 and standard deviation .5 per
            channel; otherwise they lie in [0, 1].
        class_names: What figures call each label, by label; empty: "class 0" and so on.
        criterion: Per-sample loss (B,) of outputs (B, ...) and targets (B, ...); None:
            cross-entropy.
        measure: What of a test sample is attributed, (B,) of outputs and targets; None: the loss.
        text: Makes the text that stands for an input on a sheet of pairs; None: the image, or the
            input's numbers.
        feature_names: Of inputs that are rows of numbers, what each number is.
        hyperparameters: Of training, by name (`src.experiments.hyperparameters.NAMES`).
    """

    name: str
    n_per_class: tuple[int, ...]
    n_test_per_class: int
    repository: str | None = None
    load: Callable[[], Mapping] | None = None
    classes: tuple[int, ...] | None = None
    n_classes: int | None = None
    input_shape: tuple[int, ...] | None = None
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
            UserError: A field is not allowed.
        """
        whose = f"task {self.name!r}"
        if not (isinstance(self.name, str) and NAME.fullmatch(self.name)):
            raise UserError(f"{whose}: {NAME_RULE}")
        if not self.n_per_class or not all(_is_count(n) for n in self.n_per_class):
            raise UserError(
                f"n_per_class of {whose} is {self.n_per_class!r}, not whole numbers of at least 1"
            )
        if not _is_count(self.n_test_per_class):
            raise UserError(
                f"n_test_per_class of {whose} is {self.n_test_per_class!r}, not a whole number of "
                "at least 1"
            )
        for name in ("load", "criterion", "measure", "text"):
            value = getattr(self, name)
            if value is not None and not callable(value):
                raise UserError(f"{name} of {whose} is {value!r}, not a function")
        if self.load is not None and self.repository is not None:
            raise UserError(f"{whose} has both load and repository: its data come from one of them")
        if self.classes is not None and not (
            self.classes and all(type(c) is int and c >= 0 for c in self.classes)
        ):
            raise UserError(f"classes of {whose} are {self.classes!r}, not labels from 0 on")
        hyperparameters.check(self.hyperparameters, whose)

    @property
    def source(self) -> str:
        """Name of the source that the images come from: that of its repository, or digits."""
        return "digits" if self.repository is None else self.repository.split("/")[-1]

    def name_of(self, label: int) -> str:
        """Return what figures call a label."""
        return self.class_names[label] if label < len(self.class_names) else f"class {label}"


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 1


_CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"

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


def register_task(
    name: str,
    load: Callable[[], Mapping] | None = None,
    *,
    n_per_class: tuple[int, ...],
    n_test_per_class: int,
    **given: Any,
) -> Task:
    """Make a task of one's own known, so that `<model>_<name>_<n>pc` names an experiment.

    Args:
        name: Letters, digits and inner hyphens.
        load: Returns {"train": (inputs, targets), "test": (inputs, targets)}, or {"pool": (inputs,
            targets)} from which both are drawn; tensors or arrays, samples first. Integer targets
            (N,) are classes; others are values, of which `n_per_class` samples are drawn in all.
            Called by `run_subset_generation.py` alone. None: `repository` names the data.
        n_per_class: Allowed numbers of training samples per class.
        n_test_per_class: Number of test samples per class.
        **given: Further fields of `Task`, and hyper-parameters of training.

    Raises:
        UserError: The name is taken, or a field is not allowed.
    """
    if name in TASKS:
        raise UserError(f"task {name!r} is there already ({', '.join(TASKS)}): take another name")
    own = set(Task.__dataclass_fields__) - {"hyperparameters"}
    unknown = [key for key in given if key not in own and key not in hyperparameters.NAMES]
    if unknown:
        allowed = ", ".join(sorted((own | set(hyperparameters.NAMES)) - {"name"}))
        raise UserError(f"task {name!r} has no field {unknown[0]!r}: choose from {allowed}")
    if load is None and given.get("repository") is None:
        raise UserError(f"task {name!r} has no data: give load or repository")
    n_per_class = tuple(n_per_class) if isinstance(n_per_class, tuple | list) else (n_per_class,)
    for key in ("classes", "class_names", "feature_names", "input_shape"):
        if isinstance(given.get(key), list):
            given[key] = tuple(given[key])
    chosen = {key: value for key, value in given.items() if key in hyperparameters.NAMES}
    others = {key: value for key, value in given.items() if key in own}
    task = Task(name, n_per_class, n_test_per_class, load=load, hyperparameters=chosen, **others)
    TASKS[name] = task
    return task


def described(task: Task, n_classes: int | None, input_shape: tuple[int, ...]) -> Task:
    """Return a task that says what its data are like, where it does not say so itself."""
    return replace(
        task,
        n_classes=n_classes if task.n_classes is None else task.n_classes,
        input_shape=input_shape if task.input_shape is None else task.input_shape,
    )
