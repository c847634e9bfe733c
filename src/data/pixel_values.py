"""Images as a pre-trained ViT takes them: the settings of its image processor, on tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from src.errors import UserError

_FILTERS = (0, 2, 3)  # nearest, bilinear, bicubic: of Pillow's, those that work on tensors


@dataclass(frozen=True)
class PixelValues:
    """Makes inputs of images: three channels, resized, scaled, normalised.

    Attributes:
        size: (height, width) of the inputs.
        mean: Subtracted, per channel.
        std: Divided by afterwards, per channel.
        scale: What 0 to 255 is multiplied with beforehand.
        interpolation: torchvision's name of the filter for resizing.
        random_crop: Whether each image is a random resized crop (8 % to all of its area, drawn
            from torch's global generator) instead of resized as a whole.
    """

    size: tuple[int, int]
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    scale: float = 1 / 255
    interpolation: str = "bilinear"
    random_crop: bool = False

    @classmethod
    def of_processor(cls, processor: Any, *, random_crop: bool = False) -> PixelValues:  # noqa: ANN401
        """Return the settings of a transformers image processor.

        Raises:
            UserError: It does something else with images than to resize and scale them.
        """
        from PIL.Image import Resampling

        allowed = {
            "do_resize": (True,),
            "do_center_crop": (None, False),
            "do_pad": (None, False),
            "resample": _FILTERS,
        }
        for name, values in allowed.items():
            value = getattr(processor, name, values[0])
            if value not in values:
                raise UserError(
                    f"preprocessor_config.json: {name} is {value}, but images can only be resized "
                    f"as a whole (resample {', '.join(map(str, _FILTERS))}), scaled and normalised"
                )
        edges = dict(processor.size)
        edge = edges.get("shortest_edge")
        normalises = processor.do_normalize
        return cls(
            size=(edges.get("height") or edge, edges.get("width") or edge),
            mean=tuple(processor.image_mean) if normalises else (0.0,) * 3,
            std=tuple(processor.image_std) if normalises else (1.0,) * 3,
            scale=processor.rescale_factor if processor.do_rescale else 1.0,
            interpolation=Resampling(int(processor.resample)).name.lower(),
            random_crop=random_crop,
        )

    def __call__(self, images: Tensor) -> Tensor:
        """Return inputs float32 (N, 3, height, width) of images uint8 (N, C, H, W), C 1 or 3."""
        from torchvision.transforms.v2 import RandomResizedCrop
        from torchvision.transforms.v2.functional import InterpolationMode, resize

        interpolation = InterpolationMode(self.interpolation)
        if self.random_crop:
            crop = RandomResizedCrop(list(self.size), interpolation=interpolation, antialias=True)
            images = torch.stack([crop(image) for image in images])
        elif images.shape[-2:] != self.size:
            images = resize(images, list(self.size), interpolation, antialias=True)
        mean, std = (images.new_tensor(v, dtype=torch.float32) for v in (self.mean, self.std))
        pixels = images.expand(-1, 3, -1, -1).float() * self.scale
        return (pixels - mean[:, None, None]) / std[:, None, None]
