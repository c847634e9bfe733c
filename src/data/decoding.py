"""Encoded images as a task takes them: of its size, 8 bits a channel, nothing lost on the way."""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

# Of 8 bits or fewer a channel, whose values Pillow takes over as they are when it makes RGB of
# them: black and white as 0 and 255, a palette's colours, grey as three equal channels.
LOSSLESS_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA"}
_SIXTEEN_BITS = re.compile(r";16[BLN]$")


class UnfitImageError(Exception):
    """An image that a task cannot take; its message completes 'the image ...'."""


def takes(input_shape: tuple[int, int, int]) -> str:
    """Say what images of a shape (C, H, W) look like."""
    channels, height, width = input_shape
    return f"{width}x{height} pixels, 8-bit {'grey' if channels == 1 else 'colour'}"


def decode(file: Path | BytesIO, input_shape: tuple[int, int, int]) -> np.ndarray:
    """Return the pixels of an encoded image, uint8 (C, H, W).

    What loses nothing is done: grey of equal channels or of a palette becomes one channel, grey
    becomes colour of equal channels, an alpha channel that is opaque throughout is dropped, and
    fewer than 8 bits are stretched to 0 to 255. Nothing is resized, weighted or cut.

    Args:
        file: The encoded image.
        input_shape: (C, H, W) that the task takes, C 1 or 3.

    Raises:
        UnfitImageError: It cannot be read, or has another size, more bits, transparent pixels,
            several frames, or colour where the task takes grey.
    """
    try:
        image = Image.open(file)
        is_deep, n_frames = _has_more_than_8_bits(image), getattr(image, "n_frames", 1)
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
    except Exception as error:  # damaged bytes make the decoders raise errors of many kinds
        raise UnfitImageError(f"cannot be read ({_first_line(error)})") from error
    channels, height, width = input_shape
    if is_deep:
        raise UnfitImageError(f"has more than 8 bits a channel (mode {image.mode})")
    if image.mode not in LOSSLESS_MODES:
        raise UnfitImageError(f"is in mode {image.mode}")
    if n_frames > 1:
        raise UnfitImageError(f"has {n_frames} frames")
    if image.size != (width, height):
        raise UnfitImageError(f"is {image.width}x{image.height} pixels")
    if image.has_transparency_data and image.convert("RGBA").getextrema()[3][0] < 255:
        raise UnfitImageError(f"has transparent pixels (mode {image.mode})")
    pixels = np.asarray(image.convert("RGB"))
    if channels == 1 and (pixels != pixels[..., :1]).any():
        raise UnfitImageError(f"is in colour (mode {image.mode})")
    return pixels[..., :channels].transpose(2, 0, 1)


def shape_of(file: Path | BytesIO) -> tuple[int, int, int]:
    """Return (C, H, W) that `decode` can be given for an encoded image: C 1 if it is grey, else 3.

    Raises:
        UnfitImageError: It cannot be read.
    """
    try:
        image = ImageOps.exif_transpose(Image.open(file))
        is_grey = image.mode in ("1", "L", "LA")
    except Exception as error:
        raise UnfitImageError(f"cannot be read ({_first_line(error)})") from error
    return 1 if is_grey else 3, image.height, image.width


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _has_more_than_8_bits(image: Image.Image) -> bool:
    """Look at how the pixels are stored, before they are read.

    Afterwards it is too late: of 16-bit colour, Pillow keeps 8 bits and says so nowhere.
    """
    if image.mode.startswith(("I", "F")):
        return True
    for tile in getattr(image, "tile", ()):
        codec, arguments = tile[0], tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        if any(isinstance(a, str) and _SIXTEEN_BITS.search(a) for a in arguments):
            return True
        if codec.startswith("ppm") and arguments[-1] > 255:  # the value of white
            return True
    return False
