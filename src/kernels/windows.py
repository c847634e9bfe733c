"""GELU and max-pooling over windows of 2x2 by the compiled kernels, as functions of tensors.

Maps are (B, H, W, C), channels last, with H and W even and C a multiple of 32. Convolutions are of
stride 1 and without padding. Their maps are never in memory, since on a CPU it takes about as long
to write and read a map as to compute it.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import jvp

from src.kernels import selected
from src.kernels.library import are_there, call, pointer

CHANNELS_AT_ONCE = 32  # or a divisor of it, by processor and type of numbers
# Convolutions by transformed weights: into how many pieces a kernel of so many rows is cut, and how
# many channels, times pieces, there may be.
PIECES = {3: 1, 5: 4}
TRANSFORMED = 128


def are_for(*tensors: Tensor) -> bool:
    """Say whether there are kernels for some tensors: on a CPU, of one type of floats."""
    first = tensors[0]
    return (
        first.device.type == "cpu"
        and all(tensor.dtype == first.dtype for tensor in tensors)
        and are_there(first.dtype)
    )


def have_memory(*tensors: Tensor) -> bool:
    """Say whether kernels can read tensors, as they cannot in a transformation of torch.func."""
    try:
        for tensor in tensors:
            tensor.data_ptr()
    except RuntimeError:
        return False
    return True


def take(channels: int) -> bool:
    """Say whether kernels take maps of so many channels."""
    return channels % CHANNELS_AT_ONCE == 0


def take_convolution(weight: Tensor) -> bool:
    """Say whether kernels take a convolution's weight (O, C, k, k).

    Where the channels do not fill the kernels' blocks, zeros do: half of them at most.
    """
    n_outputs = len(weight)
    return -n_outputs % CHANNELS_AT_ONCE <= n_outputs


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


def convolve_and_pool(images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return GELU of a convolution, max-pooled.

    Args:
        images: (B, H, W, C), with any C.
        weight: (O, C, k, k).
        bias: (O,).

    Returns:
        (B, (H - k + 1) / 2, (W - k + 1) / 2, O).
    """
    n_outputs = len(weight)
    missing = -n_outputs % CHANNELS_AT_ONCE
    if missing > 0:
        weight, bias = F.pad(weight, (*[0] * 7, missing)), F.pad(bias, (0, missing))
    of_many = _differentiable if torch.is_grad_enabled() else _Pooled.apply
    return of_many(images[None], weight[None], bias[None])[0, ..., :n_outputs]


def _differentiable(images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return what K convolutions give, with derivatives of any order."""
    row_images, rows = selected.as_rows(images, weight)
    elements, _ = _LargestOfConvolution.apply(
        images.detach(), weight.detach(), row_images, rows, bias
    )
    return F.gelu(elements)


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
        elements, positions = _empty(maps, _pooled_shape(maps))
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
        elements, positions = _empty(images, of.pooled_shape)
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


def _empty(like: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return memory for elements and their positions."""
    return like.new_empty(shape), torch.empty(shape, dtype=torch.uint8)


def per_image_weight_gradients(
    images: Tensor, gradient: Tensor, kernel: tuple[int, int]
) -> Tensor | None:
    """Return the gradient of a convolution's weight by each image, from that of its maps.

    Args:
        images: (B, H, W, C).
        gradient: Of the maps, (B, H', W', O), as max-pooling leaves it: of each window, one element
            alone has one.
        kernel: Rows and columns of the kernel.

    Returns:
        (B, O, *kernel, C); None: there is no kernel for it, or the gradient is another.
    """
    n, height, width, n_outputs = gradient.shape
    if (
        not are_for(images, gradient)
        or not take(n_outputs)
        or not selected.rows_are_vectors(images.shape[3], kernel[1])
        or height % 2 != 0
        or width % 2 != 0
    ):
        return None
    gradient = gradient.contiguous()
    of_elements, positions = _empty(gradient, _pooled_shape(gradient))
    one_each = call(
        "gather",
        gradient.dtype,
        pointer(gradient),
        *_windows(of_elements),
        pointer(of_elements),
        pointer(positions),
    )
    if not one_each:
        return None
    operands = (x[:, None] for x in (images, of_elements, positions))
    return selected.weight_gradients(*operands, kernel)


def _pooled_shape(maps: Tensor) -> tuple[int, ...]:
    n, height, width, channels = maps.shape
    return n, height // 2, width // 2, channels


def _windows(pooled: Tensor) -> tuple[int, ...]:
    """Return how many windows there are, how many in a row, and the channels."""
    n, height, width, channels = pooled.shape
    return n * height * width, width, channels
