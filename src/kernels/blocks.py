"""Blocks of convolution, GELU and max-pooling over windows of 2x2, each one operation.

A window that does not fit on a map any more is left out, and so is whatever would be computed for
such windows alone: in cnn2, the last two rows and columns of a 28x28 image reach no logit.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.kernels import convolution, patches
from src.kernels.elements import Elements, elements
from src.kernels.library import are_for
from src.kernels.pool import gelu_and_pool


class Block(NamedTuple):
    """The layers of a block; None: the function that the layer is of."""

    convolution: nn.Conv2d
    gelu: nn.GELU | None
    pool: nn.MaxPool2d | None

    def as_written(self, images: Tensor) -> Tensor:
        """Return what the layers give one after another."""
        maps = self.convolution(images)
        maps = F.gelu(maps) if self.gelu is None else self.gelu(maps)
        return F.max_pool2d(maps, 2) if self.pool is None else self.pool(maps)

    def pooled(self, images: Tensor, height: int, width: int) -> Tensor:
        """Return the first rows and columns of the pooled map, (B, O, height, width)."""
        layer = self.convolution
        weight, bias, hooks = layer.weight, layer.bias, [*layer._forward_hooks.values()]
        by_kernels = convolution.take(weight) and are_for(images, weight)
        if hooks and not (by_kernels and all(isinstance(hook, ElementsHook) for hook in hooks)):
            # They wait for the convolution's map.
            return gelu_and_pool(layer(images)[..., : 2 * height, : 2 * width])
        images = self.padded(images, height, width)
        if not by_kernels:
            return gelu_and_pool(patches.convolve(images, weight, bias))
        if bias is None:
            bias = torch.zeros(len(weight), dtype=weight.dtype)
        images = images.movedim(1, 3)
        if not hooks:
            return convolution.convolve_and_pool(images, weight, bias).movedim(3, 1)
        found = elements(images, weight, bias)
        for hook in hooks:
            hook.of_elements(layer, found)
        return found.pooled().movedim(3, 1)

    def padded(self, images: Tensor, *pooled_sizes: int) -> Tensor:
        """Return what is convolved for a pooled map of the given size: padded and of even map."""
        sides = []
        for (before, _), kernel, pooled, size in zip(
            patches.padding(self.convolution),
            self.convolution.kernel_size,
            pooled_sizes,
            images.shape[2:],
            strict=True,
        ):
            sides = [before, 2 * pooled + kernel - 1 - before - size, *sides]
        return F.pad(images, sides) if any(sides) else images


@runtime_checkable
class ElementsHook(Protocol):
    """A forward hook of a convolution that does not need its map where a block computes it.

    It is called with what pooling leaves of the map in its place.
    """

    def of_elements(self, layer: nn.Conv2d, elements: Elements) -> None:
        """Take what pooling leaves of a layer's map."""


def takes(layer: nn.Module) -> bool:
    """Say whether a layer is a convolution that a block may begin with."""
    return (
        type(layer) in (nn.Conv2d, patches.Conv2d)
        and "forward" not in vars(layer)
        and layer.stride == layer.dilation == (1, 1)
        and layer.groups == 1
        and layer.padding_mode == "zeros"
        and layer.kernel_size[0] == layer.kernel_size[1]
    )


def run(images: Tensor, *layers: tuple[nn.Module | None, ...]) -> Tensor:
    """Return what blocks give, one after another, of which nothing but the last is used elsewhere.

    Args:
        images: (B, C, H, W).
        layers: Of each block.
    """
    blocks = [Block(*of_block) for of_block in layers]
    sizes = [used_sizes(size, blocks, i) for i, size in enumerate(images.shape[-2:])]
    if not (
        images.ndim == 4
        and len(images) > 0
        and images.shape[1] == blocks[0].convolution.in_channels
        and min(map(min, sizes)) > 0
        and not any(map(_asks_for_all, blocks))
    ):
        for block in blocks:
            images = block.as_written(images)
        return images
    heights, widths = sizes
    x = images[..., : heights[0], : widths[0]]
    for block, height, width in zip(blocks, heights[1:], widths[1:], strict=True):
        x = block.pooled(x, height, width)
    return x


def used_sizes(size: int, blocks: list[Block], side: int) -> list[int]:
    """Return how many rows of an image of so many, and of each pooled map, reach the last one.

    Args:
        size: Rows, or columns, of the image.
        blocks: The blocks.
        side: 0 for rows, 1 for columns.
    """
    convolutions = [
        (block.convolution.kernel_size[side], *patches.padding(block.convolution)[side])
        for block in blocks
    ]
    sizes = [size]
    for kernel, before, behind in convolutions:
        sizes.append((sizes[-1] + before + behind - kernel + 1) // 2)
    for i, (kernel, before, _) in reversed([*enumerate(convolutions)]):
        sizes[i] = min(sizes[i], 2 * sizes[i + 1] + kernel - 1 - before)
    return sizes


def _asks_for_all(block: Block) -> bool:
    """Say whether something waits for what happens in a block, beside a convolution's map."""
    first, *others = block
    hooks = [first._forward_pre_hooks, first._backward_hooks, first._backward_pre_hooks]
    for layer in filter(None, others):
        hooks += layer._forward_pre_hooks, layer._forward_hooks
        hooks += layer._backward_pre_hooks, layer._backward_hooks
    return any(hooks)
