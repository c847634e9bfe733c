"""Models: how a network is made, and the hyper-parameters that it wants."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from src.errors import UserError
from src.experiments import hyperparameters
from src.experiments.tasks import NAME, NAME_RULE, Task

if TYPE_CHECKING:
    from torch import nn

DEFAULT_BACKBONE = "google/vit-base-patch16-224-in21k"
TINY_BACKBONE = "tiny"  # pre-trained by run_vit_finetuning.py itself, without the hub


@dataclass(frozen=True)
class Model:
    """An architecture.

    Attributes:
        name: Name of the model, as in an experiment's name.
        factory: Returns a freshly initialised network for a task, drawn from torch's global
            generator; None: a pre-trained ViT is fine-tuned.
        hyperparameters: Of training, by name (`src.experiments.hyperparameters.NAMES`); a task's
            give way to them.
    """

    name: str
    factory: Callable[[Task], nn.Module] | None
    hyperparameters: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            UserError: A field is not allowed.
        """
        for problem in self._problems():
            raise UserError(f"model {self.name!r}: {problem}")

    def _problems(self) -> Iterator[str]:
        """Yield what experiments cannot be run with."""
        if not (isinstance(self.name, str) and NAME.fullmatch(self.name)):
            yield NAME_RULE
        if self.factory is not None and not callable(self.factory):
            yield (
                f"its factory is {self.factory!r}, not a function of a task that returns an "
                "nn.Module"
            )
        yield from hyperparameters.problems(self.hyperparameters)


def _cnn2(task: Task) -> nn.Module:
    from src.models.cnn import CNN2  # torch is slow to import

    return CNN2(task.input_shape, task.n_classes)


def _cnn3(task: Task) -> nn.Module:
    from src.models.cnn import CNN3

    return CNN3(task.input_shape, task.n_classes)


MODELS: dict[str, Model] = {
    model.name: model for model in (Model("cnn2", _cnn2), Model("cnn3", _cnn3), Model("vit", None))
}


def register_model(name: str, factory: Callable[[Task], nn.Module], **given: Any) -> Model:
    """Make a model of one's own known, so that `<name>_<task>_<n>pc` names an experiment.

    Args:
        name: Letters, digits and inner hyphens.
        factory: Takes the task (`task.n_classes` and `task.input_shape` say what its data are) and
            returns a freshly initialised `nn.Module`, drawn from torch's global generator.
        **given: Hyper-parameters of training, by name.

    Raises:
        UserError: The name is taken, or a hyper-parameter is not allowed.
    """
    if name in MODELS:
        raise UserError(f"model {name!r} is there already ({', '.join(MODELS)}): take another name")
    if factory is None:
        raise UserError(f"model {name!r} has no factory: give a function of a task")
    model = Model(name, factory, given)
    MODELS[name] = model
    return model
