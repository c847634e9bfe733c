"""GELU and max-pooling over windows of 2x2 by the compiled kernels, as functions of maps.

Maps are (B, H, W, C), channels last, with H and W even and C a multiple of 32.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from src.kernels.library import are_for, call, have_memory, pointer

CHANNELS_AT_ONCE = 32  # or a divisor of it, by processor and type of numbers


def take(channels: int) -> bool:
    """Say whether kernels take maps of so many channels."""
    return channels % CHANNELS_AT_ONCE == 0


def gelu_and_pool(maps: Tensor) -> Tensor:
    """Return the GELU of maps (B, C, H, W), max-pooled over windows of 2x2.

    H and W are even. The result (B, C, H / 2, W / 2) is in memory channels last.
    """
    maps = maps.permute(0, 2, 3, 1)
    by_kernels = are_for(maps) and take(maps.shape[3])
    return (pool if by_kernels else pool_by_torch)(maps).permute(0, 3, 1, 2)


def pool(maps: Tensor) -> Tensor:
    """Return GELU of maps (B, H, W, C), max-pooled: (B, H / 2, W / 2, C)."""
    if not have_memory(maps):
        return pool_by_torch(maps)
    if torch.is_grad_enabled() and maps.requires_grad:
        return F.gelu(_Largest.apply(maps)[0])
    maps = maps.contiguous()
    pooled = maps.new_empty(_pooled_shape(maps))
    call("pool", maps.dtype, pointer(maps), *_windows(pooled), pointer(pooled))
    return pooled


def pool_by_torch(maps: Tensor) -> Tensor:
    """Return the same as `pool`, on any device, by operations that torch can differentiate."""
    if not torch.is_grad_enabled():
        return F.max_pool2d(F.gelu(maps).permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    # Gradients are those of a window's largest value alone, so only that is kept of each.
    with torch.no_grad():
        # torch's fast GELU for the CPU takes only tensors contiguous in the order of dimensions.
        values = F.gelu(maps.detach()).permute(0, 3, 1, 2)
        _, largest = F.max_pool2d(values, 2, return_indices=True)  # positions in H * W
    largest = largest.permute(0, 2, 3, 1)  # (B, H / 2, W / 2, C)
    kept = maps.flatten(1, 2).gather(1, largest.flatten(1, 2))
    return F.gelu(kept).unflatten(1, largest.shape[1:3])


class _Largest(torch.autograd.Function):
    """Of each window of maps (B, H, W, C), the element whose GELU is largest, and its position.

    Elements are (B, H / 2, W / 2, C). Positions, of the same shape, are uint8, 0 to 3, row by row.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> tuple[Tensor, Tensor]:
        maps = maps.contiguous()
        elements, positions = empty_elements(maps, _pooled_shape(maps))
        call(
            "largest",
            maps.dtype,
            pointer(maps),
            *_windows(elements),
            pointer(elements),
            pointer(positions),
        )
        ctx.mark_non_differentiable(positions)
        ctx.save_for_backward(positions)
        return elements, positions

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: None) -> Tensor:
        (positions,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # to differentiate the gradient, too
            return _scatter_by_torch(gradient, positions)
        n, height, width, channels = gradient.shape
        maps = gradient.new_empty(n, 2 * height, 2 * width, channels)
        gradient = gradient.contiguous()
        call(
            "scatter",
            gradient.dtype,
            pointer(gradient),
            pointer(positions),
            *_windows(gradient),
            pointer(maps),
        )
        return maps


def _scatter_by_torch(gradient: Tensor, positions: Tensor) -> Tensor:
    """Return maps with the gradient of each window at its position, and 0 elsewhere."""
    a, b, c, d = (gradient * (positions == i) for i in range(4))
    above, below = torch.stack((a, b), 3), torch.stack((c, d), 3)  # (B, h, w, 2, C)
    return torch.stack((above, below), 2).flatten(3, 4).flatten(1, 2)


def gather(gradient: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return the one element of each window of a gradient that is not zero, and its position.

    Args:
        gradient: (B, H, W, C), as max-pooling leaves it.

    Returns:
        Elements and positions, (B, H / 2, W / 2, C) as of `_Largest`; None: the gradient is
        another, with several such elements in a window.
    """
    gradient = gradient.contiguous()
    elements, positions = empty_elements(gradient, _pooled_shape(gradient))
    one_each = call(
        "gather",
        gradient.dtype,
        pointer(gradient),
        *_windows(elements),
        pointer(elements),
        pointer(positions),
    )
    return (elements, positions) if one_each else None


def empty_elements(like: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return memory for elements and their positions."""
    return like.new_empty(shape), torch.empty(shape, dtype=torch.uint8)


def _pooled_shape(maps: Tensor) -> tuple[int, ...]:
    n, height, width, channels = maps.shape
    return n, height // 2, width // 2, channels


def _windows(pooled: Tensor) -> tuple[int, ...]:
    """Return how many windows there are, how many in a row, and the channels."""
    n, height, width, channels = pooled.shape
    return n * height * width, width, channels
