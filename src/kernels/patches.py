"""Convolutions as products of patches and weight, which on a GPU a batch over members needs.

With a weight for each member, a convolution turns into a grouped one, which is slow; the product of
all patches and the weights is one batched matrix product. It also keeps full float32 precision,
where cuDNN's convolutions may round to TF32.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Conv2d(nn.Conv2d):
    """A convolution whose members have weights of their own: by patches on a GPU."""

    @staticmethod
    def takes(layer: nn.Module) -> bool:
        """Say whether a layer may become one of this class."""
        return (
            type(layer) is nn.Conv2d
            and layer.weight.requires_grad
            and layer.groups == 1
            and layer.dilation == (1, 1)
            and layer.padding_mode == "zeros"
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return the maps (B, O, H', W') of images (B, C, H, W)."""
        if not are_for(images) or images.ndim != 4:
            return super().forward(images)
        rows, columns = padding(self)
        padded = F.pad(images, (*columns, *rows)) if any((*rows, *columns)) else images
        return convolve_patches(padded, self.weight, self.bias, self.stride)


def are_for(images: Tensor) -> bool:
    """Say whether convolutions of images are products of patches: where they are not on a CPU."""
    return images.device.type != "cpu"


def padding(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> list[tuple[int, int]]:
    """Return how much is added before and behind each dimension of a convolution's input."""
    if layer.padding == "valid":
        return [(0, 0)] * len(layer.kernel_size)
    if layer.padding == "same":
        totals = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        return [(total // 2, total - total // 2) for total in totals]
    return [(added, added) for added in layer.padding]


def convolve(images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return a convolution of stride 1, without padding, as suits the device."""
    way = convolve_patches if are_for(images) else F.conv2d
    return way(images, weight, bias)


def convolve_patches(
    images: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int] = (1, 1)
) -> Tensor:
    """Return a convolution without padding as a product of all patches and weight.

    Args:
        images: (B, C, H, W).
        weight: (O, C, kH, kW).
        bias: (O,), or none.
        stride: Over rows and columns.

    Returns:
        (B, O, H', W'), in memory channels last.
    """
    kernel = weight.shape[2:]
    patches = Patches.apply(images, kernel, stride)  # (B, H' * W', C * kH * kW)
    products = patches @ weight.flatten(1).mT
    if bias is not None:
        products = products + bias
    height = (images.shape[2] - kernel[0]) // stride[0] + 1
    return products.unflatten(1, (height, -1)).movedim(3, 1)


class Patches(torch.autograd.Function):
    """All windows of images (B, C, H, W) as rows (B, H'·W', C·kH·kW).

    torch has the parts, but `unfold` of a tensor has no derivative that it can batch over vectors,
    and its `F.unfold` is an operation for each image on a GPU; `F.fold` is neither.
    """

    @staticmethod
    def forward(images: Tensor, kernel: torch.Size, stride: tuple[int, int]) -> Tensor:
        """Return the windows."""
        windows = images.unfold(2, kernel[0], stride[0]).unfold(3, kernel[1], stride[1])
        return windows.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        """Keep what the derivatives need."""
        images, ctx.kernel, ctx.stride = inputs
        ctx.size = images.shape[2:]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient: every pixel's sum over the windows that it is in."""
        return F.fold(gradient.mT, ctx.size, ctx.kernel, stride=ctx.stride), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None, __: None) -> Tensor:
        """Return the windows of the tangent."""
        return Patches.apply(tangent, ctx.kernel, ctx.stride)

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[int, None, None],
        images: Tensor,
        kernel: torch.Size,
        stride: tuple[int, int],
    ) -> tuple[Tensor, int]:
        """Return the windows of a batch of batches, as one batch."""
        images = images.movedim(in_dims[0], 0)
        rows = Patches.apply(images.flatten(0, 1), kernel, stride)
        return rows.unflatten(0, images.shape[:2]), 0
