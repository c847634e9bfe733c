"""The networks of the paper, by experiment."""

from __future__ import annotations

from torch import nn

from src.experiments import Experiment
from src.models.cnn import CNN2, CNN3


def build(experiment: Experiment) -> nn.Module:
    """Return a freshly initialised model; draws from torch's global generator."""
    return {"cnn2": CNN2, "cnn3": CNN3}[experiment.model](experiment.task.image_shape[0])
