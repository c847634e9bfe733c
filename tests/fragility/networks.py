"""Small perceptrons and data for the tests of this package."""

from __future__ import annotations

import torch
from torch import nn

from src.ensemble.members import stack, trainable
from src.fragility.descent import Layers, to_layers
from tests import reference


def perceptron(seed: int, depth: int, activation: type[nn.Module], width: int = 4) -> nn.Module:
    """Return a perceptron of three inputs and three classes."""
    torch.manual_seed(seed)
    layers, n = [], 3
    for _ in range(depth):
        layers += [nn.Linear(n, width), activation()]
        n = width
    return nn.Sequential(*layers, nn.Linear(n, 3)).double()


def data(n: int = 11) -> reference.Data:
    """Return random inputs (n, 3) and labels (n,)."""
    generator = torch.Generator().manual_seed(n)
    inputs = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(3, (n,), generator=generator)


def layers_of(models: list[nn.Module]) -> Layers:
    """Return models as a stack of layers."""
    return to_layers(stack([trainable(model) for model in models]))


def flat_parameters(models: list[nn.Module]) -> torch.Tensor:
    """Return the parameters of models, in torch's order, (M, P)."""
    return torch.stack(
        [torch.cat([p.detach().flatten() for p in model.parameters()]) for model in models]
    )
