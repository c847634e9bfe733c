"""Single samples in a figure: an image, a text, or named values."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from torch import Tensor

from src.data.texts import text_of
from src.experiments import Task

N_VALUES = 4  # of a row of more numbers, and lines of a text, beside a label; else one fewer
_CHARACTERS_AN_INCH = 24  # of what is written of a sample that is no image
_GAP = 4  # between an image and what stands beside it, in points


@dataclass(frozen=True)
class Pictures:
    """Samples with what is written beside them.

    Attributes:
        splits: Tensors of "train" and "test": images uint8 (n, C, H, W) or inputs (n, ...), labels,
            indices.
        task: Says what labels, and a row's numbers, are called, and makes texts of inputs.
        predictions: What each of T seeds predicts by sample's index, by split, labels (T,) or
            values (T, ...); None: not known.
    """

    splits: dict[str, dict]
    task: Task
    predictions: dict[str, dict[int, np.ndarray]] | None

    @property
    def width(self) -> float:
        """Width of a sample in a figure, in images; what is written stands in it, not beside."""
        return 1.0 if self._are_images else 2.4

    def readings(self) -> list[str]:
        """Return sentences on what stands beside samples."""
        sentences = []
        if self.predictions is not None:
            what = "mean of what the seeds" if self.task.has_values else "label that most seeds"
            sentences.append(f"→ is the {what} predict.")
        inputs = self._inputs("train")
        if self.task.text is None and inputs.ndim == 2 and inputs.shape[1] >= N_VALUES:
            sentences.append(
                f"Of a sample's {inputs.shape[1]} numbers stand those farthest from the train "
                f"samples' mean in units of their standard deviation, at most {N_VALUES}."
            )
        return sentences

    def show(
        self,
        axis: plt.Axes,
        split: str,
        positions: Sequence[int],
        *,
        size: float,
        width: float,
        named: bool = True,
    ) -> None:
        """Draw samples below each other, at the heights 0, 1, ... of an axis.

        One axis holds them all: matplotlib's time for a figure is that of its axes.

        Args:
            axis: The axis; its limits are the caller's.
            split: "train" or "test".
            positions: The samples' positions.
            size: Of an image's longer side, in points.
            width: That there is for what is written of a sample that is no image, in inches.
            named: Whether label and, of the seeds, the common prediction stand beside the index.
        """
        axis.set_axis_off()
        for height, position in enumerate(positions):
            value = self._inputs(split)[position]
            lines = self._said(split, position, named)
            if self._are_images:
                _draw(axis, height, value, size)
                beside = {"ha": "right", "va": "center", "textcoords": "offset points"}
                axis.annotate("\n".join(lines), (0, height), (-_GAP, 0), fontsize=6.5, **beside)
                continue
            head = [" ".join(lines[:2]), *lines[2:]]
            n_characters = int(width * _CHARACTERS_AN_INCH)
            n_lines = N_VALUES if named else N_VALUES - 1
            text = "\n".join([*head, *self._lines(value, n_lines, n_characters)])
            # Its size is no reason to make the axis smaller.
            axis.text(0, height, text, va="center", fontsize=5, parse_math=False).set_in_layout(
                False
            )

    def _said(self, split: str, position: int, named: bool) -> list[str]:
        """Return a sample's index and, if named, its label and what the seeds predict."""
        tensors = self.splits[split]
        index = int(tensors["indices"][position])
        if not named:
            return [f"{index}"]
        lines = [f"{index}", self._target(tensors["labels"][position].numpy())]
        if self.predictions is not None:
            lines.append(self._predicted(self.predictions[split][index]))
        return lines

    def _inputs(self, split: str) -> Tensor:
        tensors = self.splits[split]
        return tensors["images"] if "images" in tensors else tensors["inputs"]

    @property
    def _are_images(self) -> bool:
        shape = self._inputs("train").shape[1:]
        return self.task.text is None and len(shape) == 3 and shape[0] in (1, 3)

    def _lines(self, value: Tensor, n_lines: int, n_characters: int) -> list[str]:
        """Return a text, or the numbers of a row or of the beginning of what else there is."""
        if self.task.text is not None:
            text = text_of(self.task, value)
        elif value.ndim == 1:
            return self._values(value, n_lines, n_characters)
        else:
            text = ", ".join(f"{number:.3g}" for number in value.reshape(-1)[:30].tolist())
        return textwrap.wrap(text, n_characters, max_lines=n_lines, placeholder=" …")

    @cached_property
    def _moments(self) -> tuple[Tensor, Tensor]:
        rows = self._inputs("train").double()
        return rows.mean(0), rows.std(0, correction=0)

    def _values(self, row: Tensor, n_values: int, n_characters: int) -> list[str]:
        """Return the numbers that are farthest from the mean, in the order of the row."""
        mean, std = self._moments
        far = ((row - mean).abs() / std.where(std > 0, 1)).argsort(descending=True, stable=True)
        names = self.task.feature_names or [f"x{i}" for i in range(len(row))]
        return [
            # A number has up to eight characters.
            f"{textwrap.shorten(names[i], n_characters - 8, placeholder='…')} {row[i].item():.3g}"
            for i in sorted(far[:n_values].tolist())
        ]

    def _target(self, target: np.ndarray) -> str:
        return _numbers(target) if self.task.has_values else self.task.name_of(int(target))

    def _predicted(self, predictions: np.ndarray) -> str:
        if self.task.has_values:
            return f"→ {_numbers(predictions.mean(axis=0))}"
        values, counts = np.unique(predictions, return_counts=True)
        most = counts.argmax()
        return f"→ {self.task.name_of(int(values[most]))} {counts[most]}/{len(predictions)}"


def _numbers(values: np.ndarray) -> str:
    first = [f"{value:.3g}" for value in values.reshape(-1)[:3]]
    return ", ".join(first) + (", …" if values.size > 3 else "")


def _draw(axis: plt.Axes, height: float, image: Tensor, size: float) -> None:
    pixels = image.permute(1, 2, 0).numpy()
    if image.is_floating_point():  # of any scale
        low, high = pixels.min(), pixels.max()
        pixels = (pixels - low) / ((high - low) or 1)
    picture = OffsetImage(
        pixels.squeeze(2) if len(image) == 1 else pixels,
        zoom=size / max(pixels.shape[:2]),
        cmap="gray_r",
        interpolation="nearest",
    )
    axis.add_artist(
        AnnotationBbox(picture, (0, height), box_alignment=(0, 0.5), pad=0, annotation_clip=False)
    )
