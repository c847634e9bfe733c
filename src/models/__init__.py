"""The networks of the paper, by experiment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from src.errors import UserError
from src.experiments import Experiment
from src.experiments.definitions import said_by

if TYPE_CHECKING:
    from src.models.backbones import Backbone


def build(experiment: Experiment, backbone: Backbone | None = None) -> nn.Module:
    """Return a freshly initialised model; draws from torch's global generator.

    Args:
        experiment: The experiment.
        backbone: What a ViT is built on; None for a CNN.
    """
    if backbone is not None:
        from src.models.vit import LoraViT  # transformers and peft are slow to import

        return LoraViT(
            backbone,
            experiment.task.n_classes,
            rank=experiment.lora_rank,
            alpha=experiment.lora_alpha,
            dropout=experiment.lora_dropout,
        )
    return _made(experiment)


def _made(experiment: Experiment) -> nn.Module:
    """Return what a model's factory makes for a task.

    Raises:
        UserError: It fails, or makes something else than a network that can be trained.
    """
    what = f"model {experiment.model.name!r} for task {experiment.task.name!r}"
    try:
        model = experiment.model.factory(experiment.task)
    except Exception as error:  # whatever a function of one's own may raise
        raise UserError(said_by(what, error)) from error
    if not isinstance(model, nn.Module):
        raise UserError(f"{what}: its factory returns a {type(model).__name__}, not an nn.Module")
    if not any(p.requires_grad for p in model.parameters()):
        raise UserError(f"{what}: its network has no parameters that can be trained")
    return model
