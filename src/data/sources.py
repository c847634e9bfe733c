"""Where images come from: the hub, a folder of clones of the hub's repositories, scikit-learn.

A task is one entry in `src.experiments.TASKS` and one loader here.
"""

from __future__ import annotations

import errno
import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from src.data.decoding import UnfitImageError, decode, takes
from src.data.labels import check_class_names, columns_of, labels_of
from src.errors import UserError
from src.experiments import SOURCE_VARIABLE, Task

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True)
class Split:
    """One full split of a source.

    Attributes:
        labels: Class of every sample, int64 (N,).
        images: Returns the images of the samples at given indices, uint8 (n, C, H, W). Raises
            UserError, naming the first image that does not fit the task.
        origin: Where it came from, for people.
        class_names: What the source calls each label; None if it does not, or by its number.
    """

    labels: np.ndarray
    images: Callable[[Sequence[int]], Tensor]
    origin: str
    class_names: tuple[str, ...] | None = None


def load_splits(task: Task, source: Path | None) -> dict[str, Split]:
    """Return the full splits "train" and "test" of a task's source.

    Args:
        task: The task. Of one pool, both splits are the same, a repository's "train".
        source: Folder that holds clones of the hub's data set repositories; None: the folder named
            by the environment variable TDA_DATASETS if it is set, else the hub.

    Raises:
        UserError: The source cannot be reached or read, or its labels or class names do not fit.
    """
    if task.repository is None:
        pool = _digits(task)
        return {"train": pool, "test": pool}
    if source is None and os.environ.get(SOURCE_VARIABLE):
        source = Path(os.environ[SOURCE_VARIABLE])
    if source is None:
        origin = f"hub, {task.repository}"
        whole = _load_from_hub(task)
    else:
        folder = source.absolute() / task.repository
        origin = str(folder)
        whole = _load_from_folder(folder, task)
    splits = {}
    for split in ("train", "test"):
        name = "train" if task.one_pool else split
        if name not in whole:
            raise UserError(f"{origin} has no split {name!r}; it has {', '.join(whole)}")
        splits[split] = _checked_split(whole[name], f"{origin}, split {name}", origin, task)
    return splits


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


def _load_from_folder(folder: Path, task: Task) -> datasets.DatasetDict:
    if not folder.is_dir():
        raise UserError(
            f"{folder} does not exist: --source (or {SOURCE_VARIABLE}) is a folder with clones "
            f"of the hub's data sets, here {task.repository}"
        )
    try:
        temporary = tempfile.TemporaryDirectory(prefix="tda-datasets-")
    except OSError as error:
        raise UserError(
            f"cannot make a temporary folder: {error.strerror}; set the environment variable "
            "TMPDIR to a folder that can be written"
        ) from error
    # The library knows a file by its path and time alone, so a cache that lasts could give what
    # another file held. What is mapped into memory stays readable when its folder is gone.
    with temporary as cache:
        try:
            return _load(str(folder), cache)
        except Exception as error:  # its libraries raise errors of many kinds for the same cause
            _refuse_if_not_writable(error, "TMPDIR", folder)
            raise UserError(f"cannot read {folder}: {_reason(error)}") from error


def _load_from_hub(task: Task) -> datasets.DatasetDict:
    if Path(task.repository).is_dir():
        raise UserError(
            f"the folder {task.repository} in {Path.cwd()} would be taken for the hub's: start "
            "from another folder, or read that one by --source ."
        )
    try:
        return _load(task.repository, None)
    except Exception as error:
        _refuse_if_not_writable(error, "HF_HOME")
        raise UserError(
            f"cannot load {task.repository} from the hub ({_reason(error)}): give a folder "
            f"with a clone of it by --source DIR or {SOURCE_VARIABLE}, or use the task digits3, "
            "which needs no download"
        ) from error


def _load(location: str, cache: str | None) -> datasets.DatasetDict:
    import datasets

    datasets.disable_progress_bars()
    # Its warnings about every retry would bury the one line that says what to do.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    return datasets.load_dataset(location, cache_dir=cache)


def _refuse_if_not_writable(error: Exception, variable: str, source: Path | None = None) -> None:
    """Raise UserError where an error is of the cache, whose folder a variable names.

    Of what the library opens, all that does not lie in the source is its own.
    """
    for cause in _causes(error):
        if not isinstance(cause, OSError):
            continue
        path = cause.filename
        in_cache = path is not None and not (source and Path(path).is_relative_to(source))
        if in_cache or cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise UserError(
                f"cannot write {path or 'what is loaded'}: {cause.strerror}; set the environment "
                f"variable {variable} to a folder that can be written and has room"
            ) from error


def _causes(error: BaseException | None) -> list[BaseException]:
    """Return an error and what it was raised for, the first cause last."""
    causes = []
    while error is not None and error not in causes:
        causes.append(error)
        error = error.__cause__ or error.__context__
    return causes


def _reason(error: Exception) -> str:
    """Return the first line of the first cause."""
    cause = _causes(error)[-1]
    return (str(cause).splitlines() or [type(cause).__name__])[0][:200]


def _checked_split(data: datasets.Dataset, where: str, origin: str, task: Task) -> Split:
    import datasets

    image_columns = [n for n, f in data.features.items() if isinstance(f, datasets.Image)]
    if len(image_columns) != 1:
        raise UserError(
            f"{where}: it must have one column of images, and has {len(image_columns)}: "
            f"{columns_of(data)}"
        )
    encoded = data.cast_column(image_columns[0], datasets.Image(decode=False))

    def images(indices: Sequence[int]) -> Tensor:
        rows = encoded.select(indices)[image_columns[0]]
        return torch.from_numpy(
            np.stack(
                [
                    _pixels(row, f"{where}: image {index}", task)
                    for index, row in zip(indices, rows, strict=True)
                ]
            )
        )

    labels, class_names = labels_of(data, where)
    if class_names is not None:
        check_class_names(class_names, where, task)
    return Split(labels, images, origin, class_names)


def _pixels(row: dict | None, image: str, task: Task) -> np.ndarray:
    if row is None:
        raise UserError(f"{image} is missing; {task.name} takes {takes(task.input_shape)}")
    path, content = row["path"], row["bytes"]
    try:
        return decode(Path(path) if content is None else BytesIO(content), task.input_shape)
    except UnfitImageError as error:
        file = f" ({path})" if path else ""
        raise UserError(
            f"{image}{file} {error}; {task.name} takes {takes(task.input_shape)}"
        ) from error
