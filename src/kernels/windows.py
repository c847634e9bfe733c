"""GELU and max-pooling over windows of 2x2 by the compiled kernels, as functions of tensors.

Maps are (B, H, W, C), channels last, with H and W even and C a multiple of 32. Convolutions are of
stride 1 and without padding. Their maps are never in memory, since on a CPU it takes about as long
to write and read a map as to compute it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from src.kernels.library import kernels

NUMBERS = {torch.float32: "float", torch.float64: "double"}
# Or a divisor, by processor and type of numbers.
CHANNELS_AT_ONCE = 32
VECTOR = 16


def are_for(*tensors: Tensor) -> bool:
    """Say whether there are kernels for some tensors: on a CPU, of one type of floats.

    Tensors within a transformation of torch.func have no memory of their own that a kernel could
    read.
    """
    first = tensors[0]
    if first.device.type != "cpu" or first.dtype not in NUMBERS:
        return False
    if kernels(NUMBERS[first.dtype]) is None:
        return False
    try:
        for tensor in tensors:
            tensor.data_ptr()
    except RuntimeError:
        return False
    return all(tensor.dtype == first.dtype for tensor in tensors)


def take(channels: int) -> bool:
    """Say whether kernels take maps of so many channels."""
    return channels % CHANNELS_AT_ONCE == 0


def pool(maps: Tensor) -> Tensor:
    """Return GELU of maps (B, H, W, C), max-pooled: (B, H / 2, W / 2, C)."""
    if _gradients_are_wanted(maps):
        return _Pool.apply(maps)
    maps = maps.contiguous()
    pooled = maps.new_empty(_pooled_shape(maps))
    _kernel("pool", maps)(_pointer(maps), *_windows(pooled), _pointer(pooled))
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
    if _gradients_are_wanted(images, weight, bias):
        return _ConvolveAndPool.apply(images, weight, bias)
    of = _Convolution(images, weight, bias)
    pooled = images.new_empty(of.pooled_shape)
    _kernel("convolve_and_pool", images)(*of.arguments, _pointer(pooled))
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


class _Pool(torch.autograd.Function):
    """`pool`, with gradients: max-pooling passes them to the largest element of a window alone."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> Tensor:
        kept = _Kept(maps, _pooled_shape(maps))
        contiguous = maps.contiguous()
        _kernel("pool_with_slope", maps)(
            _pointer(contiguous), *_windows(kept.pooled), *kept.arguments
        )
        ctx.save_for_backward(maps, kept.slopes, kept.positions)
        return kept.pooled

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor | None:
        maps, slopes, positions = ctx.saved_tensors
        if torch.is_grad_enabled():  # to differentiate the gradient, too
            (of_maps,) = _gradients(ctx, pool_by_torch, (maps,), gradient)
            return of_maps
        return _scatter((gradient * slopes).contiguous(), positions)


class _ConvolveAndPool(torch.autograd.Function):
    """`convolve_and_pool`, with gradients."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        of = _Convolution(images, weight, bias)
        kept = _Kept(images, of.pooled_shape)
        _kernel("convolve_and_pool_with_slope", images)(*of.arguments, *kept.arguments)
        ctx.save_for_backward(images, weight, bias, kept.slopes, kept.positions)
        return kept.pooled

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, weight, bias, slopes, positions = ctx.saved_tensors
        if torch.is_grad_enabled():  # to differentiate the gradient, too
            return _gradients(ctx, _convolve_and_pool_by_torch, (images, weight, bias), gradient)
        of_selected = (gradient * slopes).contiguous()
        of_images = of_weight = None
        if _rows_are_vectors(weight):
            if ctx.needs_input_grad[0]:
                of_images = _image_gradient(images, weight, of_selected, positions)
            if ctx.needs_input_grad[1]:
                of_weight = weight_gradients(images, weight, of_selected, positions, 1)[0]
        else:
            of_images, of_weight, _ = torch.ops.aten.convolution_backward(
                _scatter(of_selected, positions).permute(0, 3, 1, 2),
                images.permute(0, 3, 1, 2),
                weight,
                bias_sizes=None,
                stride=[1, 1],
                padding=[0, 0],
                dilation=[1, 1],
                transposed=False,
                output_padding=[0, 0],
                groups=1,
                output_mask=[*ctx.needs_input_grad[:2], False],
            )
            if of_images is not None:
                of_images = of_images.permute(0, 2, 3, 1)
        return of_images, of_weight, of_selected.sum((0, 1, 2))


def _rows_are_vectors(weight: Tensor) -> bool:
    """Say whether the rows of a convolution's kernel, of all channels, are whole vectors."""
    return weight.shape[1] * weight.shape[3] % VECTOR == 0


def weight_gradients(
    images: Tensor, weight: Tensor, gradient: Tensor, positions: Tensor, n_parts: int
) -> Tensor:
    """Return the gradient of a convolution's weight, a sum over images, in parts of that sum.

    Args:
        images: (B, H, W, C).
        weight: (O, C, k, k).
        gradient: Of the one element of each window that has one, (B, h, w, O).
        positions: Where in its window each is, uint8 (B, h, w, O).
        n_parts: Parts, each of as many images; B: one for each image.

    Returns:
        (n_parts, O, C, k, k).
    """
    n_outputs, channels, *kernel = weight.shape
    parts = images.new_empty(n_parts, n_outputs, *kernel, channels)
    of = _Convolution(images, weight, gradient)
    _kernel("weight_gradient", images)(
        *of.arguments,
        _pointer(gradient),
        _pointer(positions),
        ctypes.c_int64(n_parts),
        _pointer(parts),
    )
    return parts.permute(0, 1, 4, 2, 3)


def _image_gradient(images: Tensor, weight: Tensor, gradient: Tensor, positions: Tensor) -> Tensor:
    """Return the gradient of a convolution's images; see `weight_gradients`."""
    of_images = images.new_empty(images.shape)
    of = _Convolution(images, weight, gradient, (0, 2, 3, 1))
    _kernel("image_gradient", images)(
        *of.arguments,
        _pointer(gradient),
        _pointer(positions),
        *(ctypes.c_int64(size) for size in images.shape[1:3]),
        _pointer(of_images),
    )
    return of_images


def _convolve_and_pool_by_torch(images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    maps = F.conv2d(images.permute(0, 3, 1, 2), weight, bias).permute(0, 2, 3, 1)
    return pool_by_torch(maps)


def _gradients(
    ctx: Any, function: Callable[..., Tensor], inputs: tuple[Tensor, ...], gradient: Tensor
) -> tuple[Tensor | None, ...]:
    """Return gradients of a function that can be differentiated themselves, None where unasked."""
    asked = [x for x, needed in zip(inputs, ctx.needs_input_grad, strict=True) if needed]
    found = iter(torch.autograd.grad(function(*inputs), asked, gradient, create_graph=True))
    return tuple(next(found) if needed else None for needed in ctx.needs_input_grad)


class _Convolution:
    """A convolution as the kernels take it; keeps alive what their pointers point to.

    Attributes:
        pooled_shape: (B, (H - k + 1) / 2, (W - k + 1) / 2, O).
        arguments: For a kernel; the weight's order there is by default (k, k, C, O).
    """

    def __init__(
        self,
        images: Tensor,
        weight: Tensor,
        bias: Tensor,
        order: tuple[int, ...] = (2, 3, 1, 0),
    ) -> None:
        n, height, width, channels = images.shape
        # Rows, and images, may lie apart, as those of a part of larger images do.
        if images.stride(2) != channels or (channels > 1 and images.stride(3) != 1):
            images = images.contiguous()
        n_outputs, _, kernel, _ = weight.shape
        weight = weight.permute(order).contiguous()
        bias = bias.contiguous()
        self.pooled_shape = (n, (height - kernel + 1) // 2, (width - kernel + 1) // 2, n_outputs)
        self.arguments = (
            _pointer(images),
            *(ctypes.c_int64(images.stride(dim)) for dim in (0, 1)),
            _pointer(weight),
            _pointer(bias),
            *(ctypes.c_int64(size) for size in (channels, kernel, n_outputs)),
            *(ctypes.c_int64(size) for size in self.pooled_shape[:3]),
        )
        self._alive = (images, weight, bias)


class _Kept:
    """What a kernel keeps of each window where gradients are wanted.

    Attributes:
        pooled: GELU of the element of which it is largest, the first of equals.
        slopes: The derivative of GELU there.
        positions: Where the element is: 0 to 3, row by row.
        arguments: For a kernel.
    """

    def __init__(self, like: Tensor, pooled_shape: tuple[int, ...]) -> None:
        self.pooled, self.slopes = like.new_empty(pooled_shape), like.new_empty(pooled_shape)
        self.positions = torch.empty(pooled_shape, dtype=torch.uint8)
        self.arguments = (_pointer(self.pooled), _pointer(self.slopes), _pointer(self.positions))


def _scatter(gradient: Tensor, positions: Tensor) -> Tensor:
    """Return maps with the gradient of each window at its position, and 0 elsewhere."""
    n, height, width, channels = gradient.shape
    maps = gradient.new_empty(n, 2 * height, 2 * width, channels)
    _kernel("scatter", gradient)(
        _pointer(gradient), _pointer(positions), *_windows(gradient), _pointer(maps)
    )
    return maps


def _gradients_are_wanted(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def _kernel(name: str, of: Tensor) -> Callable[..., None]:
    return getattr(kernels(NUMBERS[of.dtype]), name)


def _pointer(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def _pooled_shape(maps: Tensor) -> tuple[int, ...]:
    n, height, width, channels = maps.shape
    return n, height // 2, width // 2, channels


def _windows(pooled: Tensor) -> tuple[ctypes.c_int64, ...]:
    """Return how many windows there are, how many in a row, and the channels."""
    n, height, width, channels = pooled.shape
    return tuple(ctypes.c_int64(size) for size in (n * height * width, width, channels))
