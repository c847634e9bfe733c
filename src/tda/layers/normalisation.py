"""Normalisations: Σ_p b_p x̂_p of the weight, x̂ the normalised input, and Σ_p b_p of the bias."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from src.tda.layers.parts import Formed
from src.tda.layers.rules import rule


@rule(nn.LayerNorm)
def layer_norm(
    layer: nn.LayerNorm, wanted: frozenset[str], inputs: Tensor, gradient: Tensor
) -> Formed:
    """Return the gradients; inputs and gradient (N, ..., *normalized_shape)."""
    shape = layer.normalized_shape
    return _per_element(layer, wanted, F.layer_norm(inputs, shape, eps=layer.eps), gradient)


@rule(nn.RMSNorm)
def rms_norm(layer: nn.RMSNorm, wanted: frozenset[str], inputs: Tensor, gradient: Tensor) -> Formed:
    """Return the gradients; inputs and gradient (N, ..., *normalized_shape)."""
    shape = layer.normalized_shape
    return _per_element(layer, wanted, F.rms_norm(inputs, shape, eps=layer.eps), gradient)


@rule(nn.GroupNorm)
def group_norm(
    layer: nn.GroupNorm, wanted: frozenset[str], inputs: Tensor, gradient: Tensor
) -> Formed:
    """Return the gradients; inputs and gradient (N, C, ...)."""
    normalised = F.group_norm(inputs, layer.num_groups, eps=layer.eps)
    return _per_channel(wanted, normalised, gradient)


@rule(
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    covers=lambda layer: layer.running_mean is not None and not layer.training,
)
def batch_norm(
    layer: nn.modules.batchnorm._BatchNorm,
    wanted: frozenset[str],
    inputs: Tensor,
    gradient: Tensor,
) -> Formed:
    """Return the gradients where running statistics normalise; inputs and gradient (N, C, ...)."""
    normalised = F.batch_norm(inputs, layer.running_mean, layer.running_var, eps=layer.eps)
    return _per_channel(wanted, normalised, gradient)


def _per_element(
    layer: nn.LayerNorm | nn.RMSNorm, wanted: frozenset[str], normalised: Tensor, gradient: Tensor
) -> Formed:
    shape = (len(gradient), -1, *layer.normalized_shape)
    of = {"weight": gradient * normalised, "bias": gradient}
    return Formed({name: of[name].reshape(shape).sum(1) for name in of if name in wanted})


def _per_channel(wanted: frozenset[str], normalised: Tensor, gradient: Tensor) -> Formed:
    of = {"weight": gradient * normalised, "bias": gradient}
    shape = (*gradient.shape[:2], -1)
    return Formed({name: of[name].reshape(shape).sum(2) for name in of if name in wanted})
