"""GELU and max-pooling over windows of 2x2 by the compiled kernels, as functions of tensors.

Maps are (B, H, W, C), channels last, with H and W even and C a multiple of 32. Convolutions are of
stride 1 and without padding. Their maps are never in memory, since on a CPU it takes about as long
to write and read a map as to compute it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from src.kernels import selected
from src.kernels.library import are_there, call, pointer

CHANNELS_AT_ONCE = 32  # or a divisor of it, by processor and type of numbers


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


def pool(maps: Tensor) -> Tensor:
    """Return GELU of maps (B, H, W, C), max-pooled: (B, H / 2, W / 2, C)."""
    if not have_memory(maps):
        return pool_by_torch(maps)
    if _gradients_are_wanted(maps):
        return _Pool.apply(maps)
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
    if not have_memory(images, weight, bias):
        # For torch.func, of which the transformations find a derivative in every operation.
        positions = _Positions.apply(images[None], weight[None], bias[None])[0]
        return F.gelu(selected.elements(images, weight, positions) + bias)
    if _gradients_are_wanted(images, weight, bias):
        return _ConvolveAndPool.apply(images, weight, bias)
    of = _Convolution(images, weight, bias)
    pooled = images.new_empty(of.pooled_shape)
    call("convolve_and_pool", images.dtype, *of.arguments, pointer(pooled))
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
        call(
            "pool_with_slope",
            maps.dtype,
            pointer(contiguous),
            *_windows(kept.pooled),
            *kept.arguments,
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
        call("convolve_and_pool_with_slope", images.dtype, *of.arguments, *kept.arguments)
        ctx.save_for_backward(images, weight, bias, kept.slopes, kept.positions)
        return kept.pooled

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, weight, bias, slopes, positions = ctx.saved_tensors
        if torch.is_grad_enabled():  # to differentiate the gradient, too
            return _gradients(ctx, _convolve_and_pool_by_torch, (images, weight, bias), gradient)
        of_selected = (gradient * slopes).contiguous()
        of_images = of_weight = None
        if selected.rows_are_vectors(*weight.shape[1::2]):
            if ctx.needs_input_grad[0]:
                of_images = selected.image_gradient(of_selected, weight, positions, images.shape)
            if ctx.needs_input_grad[1]:
                of_weight = selected.weight_gradients(
                    images[None], of_selected[None], positions[None], weight.shape[2:]
                )[0].permute(0, 3, 1, 2)
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


class _Positions(torch.autograd.Function):
    """Where in each window of a convolution's map the element is whose GELU is largest.

    Every operand has a first dimension of K different ones, or 1: images (K, B, H, W, C), weight
    (K, O, C, k, k), bias (K, O). The positions, uint8 (K, B, h, w, O), have no derivatives.
    """

    @staticmethod
    def forward(images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        n = max(len(images), len(weight), len(bias))
        operands = zip(*(x.expand(n, *x.shape[1:]) for x in (images, weight, bias)), strict=True)
        positions = []
        for of_one in operands:
            of = _Convolution(*of_one)
            kept = _Kept(of_one[0], of.pooled_shape)
            call("convolve_and_pool_with_slope", images.dtype, *of.arguments, *kept.arguments)
            positions.append(kept.positions)
        return torch.stack(positions)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, None]:
        return None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> None:
        return None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *operands: Tensor) -> tuple[Tensor, int]:
        merged, n = selected.merge(info.batch_size, in_dims, operands)
        return _Positions.apply(*merged).unflatten(0, (info.batch_size, n)), 0


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
        arguments: For a kernel; the weight's order there is (k, k, C, O).
    """

    def __init__(
        self,
        images: Tensor,
        weight: Tensor,
        bias: Tensor,
    ) -> None:
        n, height, width, channels = images.shape
        # Rows, and images, may lie apart, as those of a part of larger images do.
        if images.stride(2) != channels or (channels > 1 and images.stride(3) != 1):
            images = images.contiguous()
        n_outputs, _, kernel, _ = weight.shape
        weight = weight.permute(2, 3, 1, 0).contiguous()
        bias = bias.contiguous()
        self.pooled_shape = (n, (height - kernel + 1) // 2, (width - kernel + 1) // 2, n_outputs)
        self.arguments = (
            pointer(images),
            *(images.stride(dim) for dim in (0, 1)),
            pointer(weight),
            pointer(bias),
            channels,
            kernel,
            n_outputs,
            *self.pooled_shape[:3],
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
        self.arguments = (pointer(self.pooled), pointer(self.slopes), pointer(self.positions))


def _scatter(gradient: Tensor, positions: Tensor) -> Tensor:
    """Return maps with the gradient of each window at its position, and 0 elsewhere."""
    n, height, width, channels = gradient.shape
    maps = gradient.new_empty(n, 2 * height, 2 * width, channels)
    call(
        "scatter",
        gradient.dtype,
        pointer(gradient),
        pointer(positions),
        *_windows(gradient),
        pointer(maps),
    )
    return maps


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
    of_elements = gradient.new_empty(_pooled_shape(gradient))
    positions = torch.empty(of_elements.shape, dtype=torch.uint8)
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


def _gradients_are_wanted(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def _pooled_shape(maps: Tensor) -> tuple[int, ...]:
    n, height, width, channels = maps.shape
    return n, height // 2, width // 2, channels


def _windows(pooled: Tensor) -> tuple[int, ...]:
    """Return how many windows there are, how many in a row, and the channels."""
    n, height, width, channels = pooled.shape
    return n * height * width, width, channels
