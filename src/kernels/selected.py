"""Convolutions at one element of each window of 2x2, which max-pooling leaves, and derivatives.

The elements are S(images, weight), for each channel of a window the one at its position: linear in
the images and in the weight. With a number for each element, the inner product ⟨numbers, S⟩ is
linear in three operands, and leaving one of them out gives

    images left out:   the gradient of ⟨numbers, S⟩ by the images,
    weight left out:   the gradient by the weight,
    numbers left out:  S.

Each of them is linear in the two others, with derivatives that are again of these three: so they
can be differentiated any number of times, forwards and backwards. Each takes a fourth of the
operations that it would take for all elements of the windows.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from src.kernels.library import call, pointer

IMAGES, WEIGHT, NUMBERS = range(3)
VECTOR = 16  # numbers, or a divisor of it: rows of a kernel are whole vectors


class Contraction(torch.autograd.Function):
    """What two of the three operands give where the third is left out.

    Every operand has a first dimension of K different ones, or 1 for one that is shared:

        images     (K, B, H, W, C): `length` numbers from a pixel on are a row of a kernel
        weight     (K, O, kernel, length)
        numbers    (K, B, h, w, O)
        positions  (K, B, h, w, O), uint8: 0 to 3, row by row in a window
    """

    @staticmethod
    def forward(
        left_out: int,
        first: Tensor,
        second: Tensor,
        positions: Tensor,
        shape: torch.Size,
    ) -> Tensor:
        """Return the operand that is left out, (K, *shape).

        Args:
            left_out: Which operand.
            first: The first of the two others.
            second: The second.
            positions: The positions.
            shape: Shape of one of those that are left out.
        """
        n = max(len(first), len(second), len(positions))
        result = first.new_empty(n, *shape)
        first, second = first.contiguous(), second.contiguous()
        given = iter((first, second))
        operands = [result if slot == left_out else next(given) for slot in range(3)]
        images, weight, numbers = operands
        sizes = (
            n,
            *numbers.shape[1:],
            *weight.shape[2:],
            *images.shape[2:],
            *(0 if len(x) == 1 else x[0].numel() for x in (*operands, positions)),
        )
        arguments = (ctypes.c_int64 * len(sizes))(*sizes)
        name = ("selected_by_images", "selected_by_weight", "selected_elements")[left_out]
        if left_out == IMAGES:
            first, second = second, first  # the kernel's order: numbers, weight
        call(
            name,
            result.dtype,
            ctypes.addressof(arguments),
            *(pointer(x) for x in (first, second, positions.contiguous(), result)),
        )
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        """Keep what the derivatives need."""
        ctx.left_out, first, second, positions, ctx.shape = inputs
        ctx.save_for_backward(first, second, positions)
        ctx.save_for_forward(first, second, positions)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, Tensor, None, None]:
        """Return the gradients of the two operands that were given."""
        *operands, positions = ctx.saved_tensors
        slots = [slot for slot in range(3) if slot != ctx.left_out]
        given = dict(zip(slots, operands, strict=True))

        def of(wanted: int, other: int) -> Tensor | None:
            if not ctx.needs_input_grad[1 + slots.index(wanted)]:
                return None
            others = {other: given[other], ctx.left_out: gradient}
            return gradient_by(wanted, given[wanted], others, positions)

        return None, of(*slots), of(*reversed(slots)), None, None

    @staticmethod
    def jvp(ctx: Any, _: None, first: Tensor | None, second: Tensor | None, *__: None) -> Tensor:
        """Return the tangent for tangents of the two operands, None where one does not move."""
        of_first, of_second, positions = ctx.saved_tensors
        terms = []
        if first is not None:
            terms.append((first, of_second))
        if second is not None:
            terms.append((of_first, second))
        return sum(Contraction.apply(ctx.left_out, *pair, positions, ctx.shape) for pair in terms)

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple,
        left_out: int,
        first: Tensor,
        second: Tensor,
        positions: Tensor,
        shape: torch.Size,
    ) -> tuple[Tensor, int]:
        """Return what batches of operands give, by one call for all."""
        operands, n = merge(info.batch_size, in_dims[1:4], (first, second, positions))
        found = Contraction.apply(left_out, *operands, shape)
        return found.unflatten(0, (info.batch_size, n)), 0


def merge(
    batch_size: int, in_dims: tuple[int | None, ...], tensors: tuple[Tensor, ...]
) -> tuple[list[Tensor], int]:
    """Merge a batch dimension into the first dimension, of n or, for what is shared, 1.

    Returns:
        The tensors, with a first dimension of `batch_size` times n, or still 1, and n.
    """
    batched = [
        x if dim is None else x.movedim(dim, 0) for x, dim in zip(tensors, in_dims, strict=True)
    ]
    n = max(x.shape[0 if dim is None else 1] for x, dim in zip(batched, in_dims, strict=True))
    merged = []
    for x, dim in zip(batched, in_dims, strict=True):
        if dim is not None:
            x = x.expand(batch_size, n, *x.shape[2:]).flatten(0, 1)
        elif len(x) > 1:
            x = x.expand(batch_size, *x.shape).flatten(0, 1)
        merged.append(x)
    return merged, n


def rows_are_vectors(n_channels: int, n_columns: int) -> bool:
    """Say whether rows of a kernel are whole vectors without anything added to them."""
    return n_channels * n_columns % VECTOR == 0


def as_rows(images: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return images and weight as a `Contraction` takes them, with derivatives of any order.

    Args:
        images: (K, B, H, W, C).
        weight: (K, O, C, k, k).

    Returns:
        Images and weight (K, O, k, length) of rows.
    """
    rows = weight.permute(0, 1, 3, 4, 2).flatten(3)  # (K, O, k, k * C)
    if not rows_are_vectors(*weight.shape[2::2]):
        # Of few channels, each pixel gets all that a row of the kernel is multiplied with.
        kernel, length = weight.shape[3], rows.shape[3]
        width = images.shape[3] - kernel + 1
        shifted = [images[:, :, :, x : x + width] for x in range(kernel)]
        missing = -length % VECTOR
        images = torch.nn.functional.pad(torch.cat(shifted, 4), (0, missing))
        rows = torch.nn.functional.pad(rows, (0, missing))
    return images, rows


def elements(images: Tensor, weight: Tensor, positions: Tensor) -> Tensor:
    """Return the elements S(images, weight), (K, B, h, w, O)."""
    return Contraction.apply(NUMBERS, images, weight, positions, positions.shape[1:])


def gradient_by(
    wanted: int, operand: Tensor, others: dict[int, Tensor], positions: Tensor
) -> Tensor:
    """Return the gradient by one of the operands, of the inner product ⟨numbers, S⟩.

    Args:
        wanted: Which operand.
        operand: The operand: if it is shared by K others, its gradient is their sum.
        others: The two others.
        positions: The positions.
    """
    given = (others[slot] for slot in sorted(others))
    found = Contraction.apply(wanted, *given, positions, operand.shape[1:])
    return found if len(operand) == len(found) else found.sum(0, keepdim=True)


def weight_gradients(
    images: Tensor, numbers: Tensor, positions: Tensor, shape: torch.Size
) -> Tensor:
    """Return K gradients of a weight, each a sum over B images.

    Args:
        images: (K, B, H, W, C), or as `as_rows` gives them.
        numbers: The gradients of the elements, (K, B, h, w, O), with O or more channels.
        positions: Uint8, of the same shape.
        shape: Of the weight, (O, C, k, k).

    Returns:
        (K, O, C, k, k), in memory (K, O, k, k, C).
    """
    n_outputs, n_channels, n_rows, n_columns = shape
    length = n_columns * n_channels
    rows = torch.Size((numbers.shape[4], n_rows, length + -length % VECTOR))
    found = Contraction.apply(WEIGHT, images, numbers, positions, rows)
    found = found[:, :n_outputs, :, :length].unflatten(3, (n_columns, n_channels))
    return found.permute(0, 1, 4, 2, 3)
