"""Convolutions: the gradient of the weight is Σ_p b_p a_pᵀ, a_p the patch under the kernel at p."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from src.kernels.elements import Elements, per_image_weight_gradients
from src.kernels.patches import padding
from src.tda.layers.parts import Formed
from src.tda.layers.rules import rule

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d


@rule(nn.Conv1d, nn.Conv2d, nn.Conv3d)
def convolution(
    layer: Convolution, wanted: frozenset[str], inputs: Tensor | Elements, gradient: Tensor
) -> Formed | None:
    """Return the gradients; inputs (N, C, ...), gradient (N, O, ...), or those of elements."""
    if isinstance(inputs, Elements):
        by_name = {
            "weight": inputs.weight_gradients,
            "bias": lambda g: g[0, ..., : layer.out_channels].sum((1, 2)),
        }
        return Formed({name: of(gradient) for name, of in by_name.items() if name in wanted})
    if inputs.ndim != 2 + len(layer.kernel_size):
        return None  # one sample without a dimension for the batch
    formed = {}
    if "weight" in wanted:
        padded = pad(layer, inputs)
        by_kernel = _of_pooled_maps(layer, padded, gradient)
        formed["weight"] = _by_patches(layer, padded, gradient) if by_kernel is None else by_kernel
    if "bias" in wanted:
        formed["bias"] = gradient.sum([*range(2, gradient.ndim)])
    return Formed(formed)


def pad(layer: Convolution, inputs: Tensor) -> Tensor:
    """Return inputs with what a convolution adds at their sides."""
    sides = [side for pair in reversed(padding(layer)) for side in pair]
    if not any(sides):
        return inputs
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return F.pad(inputs, sides, mode)


def _of_pooled_maps(layer: Convolution, padded: Tensor, gradient: Tensor) -> Tensor | None:
    """Return the gradient of the weight where there is a kernel for it, of maps that are pooled."""
    if (layer.stride, layer.dilation, layer.groups) != ((1, 1), (1, 1), 1):
        return None
    return per_image_weight_gradients(
        padded.permute(0, 2, 3, 1), gradient.permute(0, 2, 3, 1), layer.kernel_size
    )


def _by_patches(layer: Convolution, padded: Tensor, gradient: Tensor) -> Tensor:
    """Return the gradient of the weight (N, O, C / groups, k...) as one matrix product a group."""
    # (N, groups, C / groups * k..., positions)
    a = patches(layer, padded).unflatten(1, (layer.groups, -1))
    b = gradient.flatten(2).unflatten(1, (layer.groups, -1))  # (N, groups, O / groups, positions)
    return (b @ a.mT).reshape(len(padded), *layer.weight.shape)


def patches(layer: Convolution, padded: Tensor) -> Tensor:
    """Return what is under the kernel at each position, (N, C * k..., positions)."""
    windows = padded
    for d, (size, stride, dilation) in enumerate(
        zip(layer.kernel_size, layer.stride, layer.dilation, strict=True), start=2
    ):
        windows = windows.unfold(d, dilation * (size - 1) + 1, stride)[..., ::dilation]
    n_dims = len(layer.kernel_size)
    positions, kernel = range(2, 2 + n_dims), range(2 + n_dims, 2 + 2 * n_dims)
    windows = windows.permute(0, 1, *kernel, *positions)
    return windows.flatten(2 + n_dims).flatten(1, 1 + n_dims)
