"""The networks of the paper, by experiment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from src.experiments import Experiment

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
    return experiment.model.factory(experiment.task)
