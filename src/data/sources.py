"""Where images come from: the hub, a folder of clones of the hub's repositories, scikit-learn.

A task is one entry in `src.experiments.TASKS` and one loader here.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from src.errors import UserError
from src.experiments import Task

SOURCE_VARIABLE = "TDA_DATASETS"


@dataclass(frozen=True)
class Split:
    """One full split of a source.

    Attributes:
        labels: Class of every sample, int64 (N,).
        images: Returns the images of the samples at given indices, uint8 (n, C, H, W).
        origin: Where it came from, for people.
    """

    labels: np.ndarray
    images: Callable[[Sequence[int]], Tensor]
    origin: str


def load_split(task: Task, split: str, source: Path | None) -> Split:
    """Return a full split ("train" or "test") of a task's source.

    Args:
        task: The task.
        split: "train" or "test"; tasks of one pool have the same pool for both.
        source: Folder that holds clones of the hub's data set repositories; None: the folder named
            by the environment variable TDA_DATASETS if it is set, else the hub.

    Raises:
        UserError: The source cannot be reached or read.
    """
    if task.repository is None:
        return _digits(task)
    if source is None and os.environ.get(SOURCE_VARIABLE):
        source = Path(os.environ[SOURCE_VARIABLE])
    return _hub_split(task, split, source)


def _digits(task: Task) -> Split:
    from sklearn.datasets import load_digits

    digits = load_digits()

    def images(indices: Sequence[int]) -> Tensor:
        small = torch.from_numpy(digits.images[list(indices)])[:, None]  # 0 to 16, 8x8
        large = interpolate(
            (small * (255 / 16)).float(),
            task.input_shape[1:],
            mode="bilinear",
            antialias=True,
            align_corners=False,
        )
        return large.round().clamp(0, 255).to(torch.uint8)

    return Split(digits.target.astype(np.int64), images, "scikit-learn's bundled digits")


def _hub_split(task: Task, split: str, source: Path | None) -> Split:
    if source is not None:
        folder = source / task.repository
        if not folder.is_dir():
            raise UserError(
                f"{folder} does not exist: --source (or {SOURCE_VARIABLE}) is a folder with clones "
                f"of the hub's data sets, here {task.repository}"
            )
        location, origin = str(folder), str(folder)
    else:
        location, origin = task.repository, f"hub, {task.repository}"

    import datasets

    datasets.disable_progress_bars()
    # Its warnings about every retry would bury the one line that says what to do.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        data = datasets.load_dataset(location, split=split)
    except Exception as error:  # its libraries raise errors of many kinds for the same cause
        if source is not None:
            raise UserError(f"cannot read {location}: {_first_line(error)}") from error
        raise UserError(
            f"cannot load {task.repository} from the hub ({_first_line(error)}): give a folder "
            f"with a clone of it by --source DIR or {SOURCE_VARIABLE}, or use the task digits3, "
            "which needs no download"
        ) from error
    image_column = next(
        name for name, feature in data.features.items() if isinstance(feature, datasets.Image)
    )
    n_channels = task.input_shape[0]

    def images(indices: Sequence[int]) -> Tensor:
        pictures = data.select(indices)[image_column]
        arrays = [np.asarray(p.convert({1: "L", 3: "RGB"}[n_channels])) for p in pictures]
        stacked = torch.from_numpy(np.stack(arrays)).reshape(-1, *task.input_shape[1:], n_channels)
        return stacked.permute(0, 3, 1, 2).contiguous()

    return Split(np.asarray(data.with_format("numpy")["label"], dtype=np.int64), images, origin)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
