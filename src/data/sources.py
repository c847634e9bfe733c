"""Where samples come from: the hub, folders, scikit-learn, or a function of one's own."""

from __future__ import annotations

import errno
import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from src.data.decoding import UnfitImageError, decode, shape_of, takes
from src.data.labels import check_class_names, columns_of, labels_of
from src.data.loaded import load_own
from src.errors import UserError
from src.experiments import SOURCE_VARIABLE, Task

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True)
class Split:
    """One full split of a source.

    Attributes:
        labels: Class of every sample, int64 (N,), or its value, float32 (N, ...).
        inputs: Returns the inputs of the samples at given indices, (n, ...), uint8 of images (n, C,
            H, W). Raises UserError, naming the first image that does not fit the task.
        origin: Where it came from, for people.
        class_names: What the source calls each label; None if it does not, or by its number.
    """

    labels: np.ndarray
    inputs: Callable[[Sequence[int]], Tensor]
    origin: str
    class_names: tuple[str, ...] | None = None


def load_splits(task: Task, source: Path | None) -> tuple[Task, dict[str, Split]]:
    """Return the full splits "train" and "test" of a task's source.

    Args:
        task: The task.
        source: Folder that holds clones of the hub's data set repositories; None: the folder named
            by the environment variable TDA_DATASETS if it is set, else the hub.

    Returns:
        The task, which says what its data are like, and the splits. Of one pool both are the same
        one, a repository's "train".

    Raises:
        UserError: The source cannot be reached or read, or does not fit the task.
    """
    if task.load is not None:
        splits = {
            split: Split(targets, _rows_of(inputs), f"load of {task.name}")
            for split, (inputs, targets) in load_own(task).items()
        }
    elif task.repository is None and task.folder is None:
        splits = {"pool": _digits(task)}
    else:
        splits = _repository(task, source)
    if task.one_pool and "pool" not in splits:
        splits = {"pool": splits["train"]}
    task = _described(replace(task, one_pool="pool" in splits), splits)
    if task.one_pool:
        return task, {"train": splits["pool"], "test": splits["pool"]}
    return task, splits


def _rows_of(inputs: Tensor) -> Callable[[Sequence[int]], Tensor]:
    return lambda indices: inputs[list(indices)]


def _described(task: Task, splits: dict[str, Split]) -> Task:
    """Return a task that says what its data are like, where it did not say so itself.

    Raises:
        UserError: What it says is not so.
    """
    first = next(iter(splits.values()))
    for name, split in splits.items():
        if not len(split.labels):
            raise UserError(f"{split.origin} has no samples in its split {name!r}")
    input_shape = tuple(first.inputs([0]).shape[1:])
    if task.input_shape not in (None, input_shape):
        raise UserError(
            f"{first.origin} has inputs of {input_shape}; {task.name} takes {task.input_shape}"
        )
    if task.text is None and task.feature_names and input_shape != (len(task.feature_names),):
        raise UserError(
            f"{first.origin} has inputs of {input_shape}; {task.name} names "
            f"{len(task.feature_names)} features"
        )
    if first.labels.dtype != np.int64:
        if task.classes or task.class_names or task.n_classes:
            raise UserError(
                f"{first.origin} has targets that are values, and {task.name} speaks of classes"
            )
        return replace(task, input_shape=input_shape, target_shape=first.labels.shape[1:])
    labels = np.unique(np.concatenate([split.labels for split in splits.values()]))
    names = task.class_names or first.class_names or ()
    n_classes = task.n_classes or max(len(names), int(labels[-1]) + 1)
    classes = task.classes or tuple(np.unique(first.labels).tolist())
    if max(classes) >= n_classes:
        raise UserError(
            f"{first.origin} has the label {max(classes)}; {task.name} has {n_classes} classes, "
            "numbered from 0"
        )
    if names and len(names) <= max(classes):
        raise UserError(
            f"{first.origin} has the label {max(classes)}, which has no name in class_names of "
            f"{task.name}"
        )
    return replace(
        task, input_shape=input_shape, n_classes=n_classes, classes=classes, class_names=names
    )


def _repository(task: Task, source: Path | None) -> dict[str, Split]:
    """Return the splits of a repository of the hub or in its layout, or of class folders."""
    if source is None and os.environ.get(SOURCE_VARIABLE):
        source = Path(os.environ[SOURCE_VARIABLE])
    if task.folder is not None:
        folder = Path(task.folder).expanduser().absolute()
        if not folder.is_dir():
            raise UserError(f"folder of task {task.name!r}: {folder} does not exist")
    elif source is not None:
        folder = source.absolute() / task.repository
        if not folder.is_dir():
            raise UserError(
                f"{folder} does not exist: --source (or {SOURCE_VARIABLE}) is a folder with clones "
                f"of the hub's data sets, here {task.repository}"
            )
    else:
        folder = None
    origin = f"hub, {task.repository}" if folder is None else str(folder)
    whole = _load_from_hub(task) if folder is None else _load_from_folder(folder)
    names = ("train",) if task.one_pool else ("train", "test")
    if task.folder is not None and len(whole) == 1:  # as of class folders without train/ and test/
        names = tuple(whole)
    for name in names:
        if name not in whole:
            raise UserError(f"{origin} has no split {name!r}; it has {', '.join(whole)}")
    splits = {}
    for name in names:
        where = f"{origin}, split {name}"
        if task.input_shape is None:
            task = replace(task, input_shape=_shape_of_first(whole[name], where))
        splits[name] = _checked_split(whole[name], where, origin, task)
    return splits if len(names) > 1 else {"pool": splits[names[0]]}


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


def _load_from_folder(folder: Path) -> datasets.DatasetDict:
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


def _encoded_images(data: datasets.Dataset, where: str) -> datasets.Dataset:
    """Return the one column of images, not decoded."""
    import datasets

    columns = [n for n, f in data.features.items() if isinstance(f, datasets.Image)]
    if len(columns) != 1:
        raise UserError(
            f"{where}: it must have one column of images, and has {len(columns)}: "
            f"{columns_of(data)}"
        )
    images = data.select_columns(columns)
    if columns != ["image"]:  # which it is called from here on
        images = images.rename_column(columns[0], "image")
    return images.cast_column("image", datasets.Image(decode=False))


def _shape_of_first(data: datasets.Dataset, where: str) -> tuple[int, int, int]:
    row = next(iter(_encoded_images(data, where)))["image"]
    try:
        return shape_of(_file_of(row))
    except UnfitImageError as error:
        raise UserError(f"{where}: image 0 {error}") from error


def _checked_split(data: datasets.Dataset, where: str, origin: str, task: Task) -> Split:
    encoded = _encoded_images(data, where)

    def images(indices: Sequence[int]) -> Tensor:
        rows = encoded.select(indices)["image"]
        return torch.from_numpy(
            np.stack(
                [
                    _pixels(row, f"{where}: image {index}", task)
                    for index, row in zip(indices, rows, strict=True)
                ]
            )
        )

    labels, class_names = labels_of(data, where, task.label_column)
    if class_names is not None:
        check_class_names(class_names, where, task)
    return Split(labels, images, origin, class_names)


def _file_of(row: dict) -> Path | BytesIO:
    return Path(row["path"]) if row["bytes"] is None else BytesIO(row["bytes"])


def _pixels(row: dict | None, image: str, task: Task) -> np.ndarray:
    if row is None:
        raise UserError(f"{image} is missing; {task.name} takes {takes(task.input_shape)}")
    try:
        return decode(_file_of(row), task.input_shape)
    except UnfitImageError as error:
        file = f" ({row['path']})" if row["path"] else ""
        raise UserError(
            f"{image}{file} {error}; {task.name} takes {takes(task.input_shape)}"
        ) from error
