"""The two convolutional networks; parameter names as in the paper's checkpoints."""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.experiments import N_CLASSES
from src.kernels import windows
from src.kernels.library import are_there


class Conv2d(nn.Conv2d):
    """A convolution of stride 1, without padding, on a GPU also of a stack of M members.

    With a weight for each member, a convolution turns into a grouped one, which is slow. On a GPU
    it is a product of patches and weight instead, which for a stack is one batched matrix product.
    It also keeps full float32 precision, where cuDNN's convolutions may round to TF32.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Return the convolution (B, O, H', W') of images (B, C, H, W).

        Where weight and bias are those of a stack it is (M, B, O, H', W'), of images that the
        members share or of images (M, B, C, H, W).
        """
        if images.device.type == "cpu":
            return super().forward(images)
        return convolve_patches(images, self.weight, self.bias)


class Linear(nn.Linear):
    """A linear layer of one member or of a stack of M."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs (B, O) of x (B, I), or (M, B, O) of (M, B, I) for a stack."""
        if self.weight.ndim == 2:
            return super().forward(x)
        if torch.is_grad_enabled():
            # In this order, the gradient of the weight is contiguous.
            return torch.baddbmm(self.bias[:, :, None], self.weight, x.mT).mT
        return torch.baddbmm(self.bias[:, None], x, self.weight.mT)


def convolve_patches(images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return a convolution of stride 1, without padding, as a product of all patches and weight.

    Args:
        images: (B, C, H, W), or (M, B, C, H, W) for a stack.
        weight: (O, C, kH, kW), or (M, O, C, kH, kW).
        bias: (O,), or (M, O).

    Returns:
        (B, O, H', W'), or (M, B, O, H', W') for a stack, in memory channels last.
    """
    kernel_size = weight.shape[-2:]
    n = images.shape[:-3]
    patches = Patches.apply(images.flatten(0, -4), kernel_size)  # (M * B, H' * W', C * kH * kW)
    rows = patches.reshape(*n[:-1], -1, patches.shape[2])
    products = rows @ weight.flatten(-3).mT + bias.unsqueeze(-2)
    height = images.shape[-2] - kernel_size[0] + 1
    return products.unflatten(-2, (n[-1], height, -1)).movedim(-1, -3)


class Patches(torch.autograd.Function):
    """All windows of images (B, C, H, W) as rows (B, H'·W', C·kH·kW).

    torch has the parts, but `unfold` of a tensor has no derivative that it can batch over vectors,
    and its `F.unfold` is an operation for each image on a GPU; `F.fold` is neither.
    """

    @staticmethod
    def forward(images: Tensor, kernel_size: torch.Size) -> Tensor:
        """Return the windows."""
        windows = images.unfold(2, kernel_size[0], 1).unfold(3, kernel_size[1], 1)
        return windows.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, torch.Size], output: Tensor) -> None:
        """Keep what the derivatives need."""
        images, ctx.kernel_size = inputs
        ctx.size = images.shape[2:]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Return the gradient: every pixel's sum over the windows that it is in."""
        return F.fold(gradient.mT, ctx.size, ctx.kernel_size), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        """Return the windows of the tangent."""
        return Patches.apply(tangent, ctx.kernel_size)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int, None], images: Tensor, kernel_size: torch.Size
    ) -> tuple[Tensor, int]:
        """Return the windows of a batch of batches, as one batch."""
        images = images.movedim(in_dims[0], 0)
        rows = Patches.apply(images.flatten(0, 1), kernel_size)
        return rows.unflatten(0, images.shape[:2]), 0


def gelu_and_pool(maps: Tensor) -> Tensor:
    """Return the GELU of maps (..., C, H, W), max-pooled over windows of 2x2.

    H and W are even. The maps are in memory channels last, and so is the result
    (..., C, H / 2, W / 2).
    """
    batch = maps.shape[:-3]
    maps = maps.flatten(0, -4).permute(0, 2, 3, 1)  # (B, H, W, C)
    by_kernels = windows.are_for(maps) and windows.take(maps.shape[3])
    pool = windows.pool if by_kernels else windows.pool_by_torch
    return pool(maps).permute(0, 3, 1, 2).unflatten(0, batch)


def convolve_gelu_and_pool(convolution: Conv2d, images: Tensor) -> Tensor:
    """Return `gelu_and_pool` of a convolution, in one go where there is a kernel for that.

    Where a hook waits for the convolution's map, that map is computed by itself.
    """
    weight, bias = convolution.weight, convolution.bias
    in_one_go = (
        not convolution._forward_hooks
        and windows.are_for(images, weight, bias)
        and windows.take(bias.shape[-1])
    )
    if not in_one_go:
        return gelu_and_pool(convolution(images))
    pooled = windows.convolve_and_pool(images.movedim(-3, -1), weight, bias)
    return pooled.movedim(-1, -3)


class CNN(nn.Module):
    """Convolutions, each with GELU and max-pooling over windows of 2x2, and two linear layers.

    A window that does not fit on a map any more is left out, as torch's pooling does, and so is
    whatever would be computed for such windows alone: in cnn2, the last two rows and columns of a
    28x28 image reach no logit.

    Args:
        channels: Of the image and of each convolution's map.
        kernel_size: Of all convolutions.
        padding: Zeros on each side of each convolution's input.
        last_size: Rows and columns of the last pooled map, of which there are as many.
        width: Outputs of the first linear layer.
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        kernel_size: int,
        padding: tuple[int, ...],
        last_size: int,
        width: int,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.padding = padding
        for i, (inputs, outputs) in enumerate(itertools.pairwise(channels), start=1):
            self.add_module(f"conv{i}", Conv2d(inputs, outputs, kernel_size))
        self.fc1 = Linear(channels[-1] * last_size**2, width)
        self.fc2 = Linear(width, N_CLASSES)

    def takes_stacks(self, device: torch.device) -> bool:
        """Say whether the parameters may be those of a stack on a device (see PerSampleLoss).

        On a CPU without kernels, members are faster one by one.
        """
        return device.type != "cpu" or are_there(self.fc1.weight.dtype)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, 10) of images (B, C, H, W).

        Where the parameters are those of M members, each with a first dimension of M, logits are
        (M, B, 10), and so are all maps from the first convolution on.
        """
        heights, widths = (self.used_sizes(size) for size in images.shape[2:])
        x = images[..., : heights[0], : widths[0]]
        for i, padding in enumerate(self.padding):
            convolution = self.get_submodule(f"conv{i + 1}")
            x = self.padded(x, padding, heights[i + 1], widths[i + 1])
            x = convolve_gelu_and_pool(convolution, x)
        x = F.gelu(self.fc1(x.flatten(-3)))
        return self.fc2(x)

    def used_sizes(self, size: int) -> list[int]:
        """Return how many rows of an image of so many, and of each pooled map, reach a logit."""
        sizes = [size]
        for padding in self.padding:
            sizes.append((sizes[-1] + 2 * padding - self.kernel_size + 1) // 2)
        for i, padding in reversed([*enumerate(self.padding)]):
            sizes[i] = min(sizes[i], 2 * sizes[i + 1] + self.kernel_size - 1 - padding)
        return sizes

    def padded(self, maps: Tensor, padding: int, height: int, width: int) -> Tensor:
        """Return the input of a convolution whose map, when pooled, has the given size."""
        if padding == 0:
            return maps
        bottom, right = (
            2 * pooled + self.kernel_size - 1 - padding - size
            for pooled, size in zip((height, width), maps.shape[-2:], strict=True)
        )
        return F.pad(maps, (padding, right, padding, bottom))


class CNN2(CNN):
    """Two convolutions (32, 64) and two linear layers (128, 10).

    Kernels are 3x3 on one channel and 5x5 on three; the last map is then 64x5x5 both on
    (1, 28, 28) and on (3, 32, 32) images.
    """

    def __init__(self, in_channels: int, width: int = 128) -> None:
        super().__init__((in_channels, 32, 64), {1: 3, 3: 5}[in_channels], (0, 0), 5, width)


class CNN3(CNN):
    """Three 3x3 convolutions (32, 64, 128) and two linear layers (256, 10).

    The padding depends on the image's size, so that the last map is 128x4x4 for both.
    """

    def __init__(self, in_channels: int) -> None:
        padding = {1: (0, 2, 2), 3: (0, 0, 2)}[in_channels]
        super().__init__((in_channels, 32, 64, 128), 3, padding, 4, 256)
