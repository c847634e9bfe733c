"""Gradients of a convolution's weight by each image, of what max-pooling leaves of its map."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from src.kernels import pool, selected
from src.kernels.convolution import as_many, elements_of_many
from src.kernels.library import are_for


class Elements(NamedTuple):
    """Of a convolution's map, the elements that GELU and max-pooling leave.

    Attributes:
        elements: (1, B, h, w, O), where O may be more than the convolution has.
        positions: Of each in its window, uint8 of the same shape.
        images: What is convolved, as `selected.as_rows` gives it.
        weight_shape: Of the convolution's weight, (O, C, k, k).
    """

    elements: Tensor
    positions: Tensor
    images: Tensor
    weight_shape: torch.Size

    def pooled(self) -> Tensor:
        """Return what `convolve_and_pool` does, (B, h, w, O)."""
        return F.gelu(self.elements)[0, ..., : self.weight_shape[0]]

    def weight_gradients(self, gradient: Tensor) -> Tensor:
        """Return the weight's gradient by each image, (B, O, C, k, k), from the elements'."""
        by_image = (x.transpose(0, 1) for x in (self.images, gradient, self.positions))
        return selected.weight_gradients(*by_image, self.weight_shape)


def elements(images: Tensor, weight: Tensor, bias: Tensor) -> Elements:
    """Return what pooling leaves of a convolution's map.

    Where the images have a gradient, weight and bias get none: whoever asks for the elements has
    their gradients of these.

    Args:
        images: (B, H, W, C), with any C.
        weight: (O, C, k, k).
        bias: (O,).
    """
    shape = weight.shape
    if images.requires_grad:
        weight, bias = weight.detach(), bias.detach()
    found, positions, rows = elements_of_many(*as_many(images, weight, bias))
    return Elements(found, positions, rows.detach(), shape)


def per_image_weight_gradients(
    images: Tensor, gradient: Tensor, kernel: tuple[int, int]
) -> Tensor | None:
    """Return the gradient of a convolution's weight by each image, from that of its maps.

    Args:
        images: (B, H, W, C).
        gradient: Of the maps, (B, H', W', O), as max-pooling leaves it: of each window, one element
            alone has one, and what fills no window has none.
        kernel: Rows and columns of the kernel.

    Returns:
        (B, O, C, *kernel); None: there is no kernel for it, or the gradient is another.
    """
    _, height, width, n_outputs = gradient.shape
    if (
        not are_for(images, gradient)
        or not pool.take(n_outputs)
        or not selected.rows_are_vectors(images.shape[3], kernel[1])
    ):
        return None
    rows, columns = height // 2 * 2, width // 2 * 2
    if gradient[:, rows:].any() or gradient[:, :, columns:].any():
        return None
    found = pool.gather(gradient[:, :rows, :columns])
    if found is None:
        return None
    shape = torch.Size((n_outputs, images.shape[3], *kernel))
    return selected.weight_gradients(*(x[:, None] for x in (images, *found)), shape)
