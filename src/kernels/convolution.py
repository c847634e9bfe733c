"""Convolutions whose maps become GELU and are max-pooled over windows of 2x2, by the kernels.

Images are (B, H, W, C), channels last; convolutions are of stride 1 and without padding, and their
maps are of even height and width. These are never in memory, since on a CPU it takes about as long
to write and read a map as to compute it.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import jvp

from src.kernels import pool, selected
from src.kernels.library import call, pointer

# Convolutions by transformed weights: into how many pieces a kernel of so many rows is cut, and how
# many channels, times pieces, there may be.
PIECES = {3: 1, 5: 4}
TRANSFORMED = 128


def take(weight: Tensor) -> bool:
    """Say whether kernels take a convolution's weight (O, C, k, k).

    Where the channels do not fill the kernels' blocks, zeros do: half of them at most.
    """
    n_outputs = len(weight)
    return -n_outputs % pool.CHANNELS_AT_ONCE <= n_outputs


def convolve_and_pool(images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return GELU of a convolution, max-pooled.

    Args:
        images: (B, H, W, C), with any C.
        weight: (O, C, k, k).
        bias: (O,).

    Returns:
        (B, (H - k + 1) / 2, (W - k + 1) / 2, O).
    """
    of_many = _differentiable if torch.is_grad_enabled() else _Pooled.apply
    return of_many(*as_many(images, weight, bias))[0, ..., : len(weight)]


def as_many(images: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return images, weight and bias as one convolution of many, with channels that fill blocks."""
    missing = -len(weight) % pool.CHANNELS_AT_ONCE
    if missing > 0:
        weight, bias = F.pad(weight, (*[0] * 7, missing)), F.pad(bias, (0, missing))
    return images[None], weight[None], bias[None]


def _differentiable(images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return what K convolutions give, with derivatives of any order."""
    found, _, _ = elements_of_many(images, weight, bias)
    return F.gelu(found)


def elements_of_many(images: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return elements of K convolutions, their positions, and the images as rows."""
    row_images, rows = selected.as_rows(images, weight)
    found, positions = _LargestOfConvolution.apply(
        images.detach(), weight.detach(), row_images, rows, bias
    )
    return found, positions, row_images


class _Pooled(torch.autograd.Function):
    """What K convolutions give where no gradient is asked for."""

    @staticmethod
    def forward(images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return GELU of the convolutions, max-pooled, (K, B, h, w, O)."""
        of = _Convolution(images, weight, bias)
        pooled = images.new_empty(of.pooled_shape)
        call("convolve_and_pool", images.dtype, *of.arguments, pointer(pooled))
        return pooled

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Keep what the tangent needs."""
        ctx.save_for_forward(*inputs)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        """Return the tangent."""
        operands = ctx.saved_tensors
        moving = [i for i, tangent in enumerate(tangents) if tangent is not None]

        def of_moving(*moved: Tensor) -> Tensor:
            at = [*operands]
            for i, operand in zip(moving, moved, strict=True):
                at[i] = operand
            return _differentiable(*at)

        primals = tuple(operands[i] for i in moving)
        return jvp(of_moving, primals, tuple(tangents[i] for i in moving))[1]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *operands: Tensor) -> tuple[Tensor, int]:
        """Return what batches of operands give, by one call for all."""
        merged, n = selected.merge(info.batch_size, in_dims, operands)
        return _Pooled.apply(*merged).unflatten(0, (info.batch_size, n)), 0


class _LargestOfConvolution(torch.autograd.Function):
    """The elements S + bias of K convolutions that `_Largest` finds, and their positions.

    They are found in all of the convolution; their derivatives are those of `selected`, in its
    operands, so images and weight are there twice: as `_Convolution` takes them, and as rows.
    """

    @staticmethod
    def forward(
        images: Tensor, weight: Tensor, row_images: Tensor, rows: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return elements (K, B, h, w, O) and positions."""
        of = _Convolution(images, weight, bias)
        elements, positions = pool.empty_elements(images, of.pooled_shape)
        call(
            "largest_of_convolution",
            images.dtype,
            *of.arguments,
            pointer(elements),
            pointer(positions),
        )
        return elements, positions

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        """Keep what the derivatives need."""
        _, _, row_images, rows, bias = inputs
        _, positions = output
        ctx.mark_non_differentiable(positions)
        ctx.n_biases = len(bias)
        ctx.save_for_backward(row_images, rows, positions)
        ctx.save_for_forward(row_images, rows, positions)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: None) -> tuple[Tensor | None, ...]:
        """Return the gradients of row_images, rows and bias."""
        row_images, rows, positions = ctx.saved_tensors
        _, _, for_images, for_rows, for_bias = ctx.needs_input_grad
        of_images = of_rows = of_bias = None
        if for_images:
            others = {selected.WEIGHT: rows, selected.NUMBERS: gradient}
            of_images = selected.gradient_by(selected.IMAGES, row_images, others, positions)
        if for_rows:
            others = {selected.IMAGES: row_images, selected.NUMBERS: gradient}
            of_rows = selected.gradient_by(selected.WEIGHT, rows, others, positions)
        if for_bias:
            of_bias = gradient.sum((1, 2, 3))
            if ctx.n_biases < len(of_bias):
                of_bias = of_bias.sum(0, keepdim=True)
        return None, None, of_images, of_rows, of_bias

    @staticmethod
    def jvp(
        ctx: Any,
        _: None,
        __: None,
        of_images: Tensor | None,
        of_rows: Tensor | None,
        of_bias: Tensor | None,
    ) -> tuple[Tensor, None]:
        """Return the elements' tangent."""
        row_images, rows, positions = ctx.saved_tensors
        tangent = 0 if of_bias is None else of_bias[:, None, None, None]
        if of_images is not None:
            tangent = tangent + selected.elements(of_images, rows, positions)
        if of_rows is not None:
            tangent = tangent + selected.elements(row_images, of_rows, positions)
        return tangent, None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], *operands: Tensor
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        """Return what batches of operands give, by one call for all."""
        merged, n = selected.merge(info.batch_size, in_dims, operands)
        found = _LargestOfConvolution.apply(*merged)
        return tuple(x.unflatten(0, (info.batch_size, n)) for x in found), (0, 0)


class _Convolution:
    """K convolutions as the kernels take them; keeps alive what their pointers point to.

    Args:
        images: (K, B, H, W, C), or with a first dimension of 1 where the K share them.
        weight: (K, O, C, k, k), likewise.
        bias: (K, O), likewise.

    Attributes:
        pooled_shape: (K, B, (H - k + 1) / 2, (W - k + 1) / 2, O).
        arguments: For a kernel; the weight's order there is (k, k, C, O).
    """

    def __init__(self, images: Tensor, weight: Tensor, bias: Tensor) -> None:
        _, n, height, width, channels = images.shape
        # Rows, and images, may lie apart, as those of a part of larger images do.
        if images.stride(3) != channels or (channels > 1 and images.stride(4) != 1):
            images = images.contiguous()
        _, n_outputs, _, kernel, _ = weight.shape
        weight = weight.permute(0, 3, 4, 2, 1).contiguous()
        bias = bias.contiguous()
        self.pooled_shape = (
            max(len(images), len(weight), len(bias)),
            n,
            (height - kernel + 1) // 2,
            (width - kernel + 1) // 2,
            n_outputs,
        )
        operands = (images, weight, bias)
        sizes = (
            *self.pooled_shape,
            kernel,
            kernel,
            channels,
            *(0 if len(x) == 1 else x.stride(0) for x in operands),
            images.stride(1),
            images.stride(2),
        )
        struct = (ctypes.c_int64 * len(sizes))(*sizes)
        self._alive = [struct, *operands]
        transformed = 0  # nothing
        pieces = PIECES.get(kernel)
        if pieces and channels % selected.VECTOR == 0 and channels <= TRANSFORMED // pieces:
            self._alive.append(weight.new_empty(len(weight), pieces, 16, channels, n_outputs))
            transformed = pointer(self._alive[-1])
        self.arguments = (
            ctypes.addressof(struct),
            *(pointer(x) for x in operands),
            transformed,
        )
