"""The two convolutional networks; parameter names as in the paper's checkpoints."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def pooled(size: int, kernel_size: int, padding: int = 0) -> int:
    """Return the rows (or columns) of a map of so many, convolved and pooled by 2."""
    return (size + 2 * padding - kernel_size + 1) // 2


class CNN2(nn.Module):
    """Two convolutions (32, 64) and two linear layers (128, n_classes).

    Kernels are 3x3 on one channel, else 5x5: from (1, 28, 28) and (3, 32, 32) to 64x5x5.
    """

    def __init__(self, image_shape: tuple[int, int, int], n_classes: int, width: int = 128) -> None:
        super().__init__()
        channels, *sizes = image_shape
        kernel = 3 if channels == 1 else 5
        height, width_of_map = (pooled(pooled(size, kernel), kernel) for size in sizes)
        self.conv1 = nn.Conv2d(channels, 32, kernel)
        self.conv2 = nn.Conv2d(32, 64, kernel)
        self.fc1 = nn.Linear(64 * height * width_of_map, width)
        self.fc2 = nn.Linear(width, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, n_classes) of images (B, C, H, W)."""
        x = F.max_pool2d(F.gelu(self.conv1(images)), 2)
        x = F.max_pool2d(F.gelu(self.conv2(x)), 2)
        return self.fc2(F.gelu(self.fc1(x.flatten(1))))


class CNN3(nn.Module):
    """Three 3x3 convolutions (32, 64, 128) and two linear layers (256, n_classes).

    Paddings are 0, 2, 2 on one channel, else 0, 0, 2: from (1, 28, 28) and (3, 32, 32) to 128x4x4.
    """

    def __init__(self, image_shape: tuple[int, int, int], n_classes: int) -> None:
        super().__init__()
        channels, *sizes = image_shape
        padding = 2 if channels == 1 else 0
        height, width = (pooled(pooled(pooled(size, 3), 3, padding), 3, 2) for size in sizes)
        self.conv1 = nn.Conv2d(channels, 32, 3)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=padding)
        self.conv3 = nn.Conv2d(64, 128, 3, padding=2)
        self.fc1 = nn.Linear(128 * height * width, 256)
        self.fc2 = nn.Linear(256, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, n_classes) of images (B, C, H, W)."""
        x = F.max_pool2d(F.gelu(self.conv1(images)), 2)
        x = F.max_pool2d(F.gelu(self.conv2(x)), 2)
        x = F.max_pool2d(F.gelu(self.conv3(x)), 2)
        return self.fc2(F.gelu(self.fc1(x.flatten(1))))
