"""Which samples are used: index files, and the tensors made from them and a source."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from src.data.sources import Split, load_split
from src.errors import UserError
from src.experiments import Paths, Task
from src.storage import load, save, write_atomically

SUBSET_SEED = 2023  # of the committed index files


def split_names(task: Task) -> list[str]:
    """Return the names of a task's splits: test, and train for each number per class."""
    return ["test", *(f"train_{n}pc" for n in task.n_per_class)]


def draw_indices(task: Task, split: str, labels: np.ndarray, seed: int) -> np.ndarray:
    """Draw a balanced subset of a split: indices (n,), class by class.

    Every split of every task has a generator of its own, seeded by `seed` and its name, so that
    train sets of different sizes are drawn independently. Where train and test come from one
    pool, the test set is drawn first and the train sets from what it leaves.
    """
    rng = np.random.default_rng([seed, zlib.crc32(f"{task.name}/{split}".encode())])
    available = np.ones(len(labels), dtype=bool)
    if split == "test":
        n_per_class = task.n_test_per_class
    else:
        n_per_class = int(split.removeprefix("train_").removesuffix("pc"))
        if task.one_pool:
            available[draw_indices(task, "test", labels, seed)] = False
    return np.concatenate(
        [
            rng.choice(np.flatnonzero(available & (labels == c)), n_per_class, replace=False)
            for c in task.classes
        ]
    )


def read_indices(path: Path, task: Task, labels: np.ndarray) -> np.ndarray:
    """Read and check an index file: one index into the full split a line.

    Args:
        path: The file.
        task: Its task.
        labels: Class of every sample of the full split.

    Raises:
        UserError: A line is no whole number, out of range, a duplicate, or of a class that is not
            the task's; the message names file and line.
    """
    seen: dict[int, int] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    for number, line in enumerate(lines, start=1):
        where, text = f"{path}, line {number}", line.strip()
        if not (text.isascii() and text.isdecimal()):
            raise UserError(f"{where}: {text[:40]!r} is not an index (one whole number a line)")
        index = int(text)
        if index >= len(labels):
            raise UserError(f"{where}: index {index} is not below {len(labels)}, the split's size")
        if index in seen:
            raise UserError(f"{where}: index {index} stands in line {seen[index]} already")
        if labels[index] not in task.classes:
            raise UserError(
                f"{where}: sample {index} is of class {labels[index]}, which {task.name} "
                f"does not have ({', '.join(map(str, task.classes))})"
            )
        seen[index] = number
    if not seen:
        raise UserError(f"{path} is empty: it must hold one index a line")
    return np.fromiter(seen, dtype=np.int64)


def generate(
    task: Task,
    paths: Paths,
    source: Path | None,
    *,
    new_seed: int | None = None,
    overwrite: bool = False,
) -> Iterator[str]:
    """Write a task's index files where there are none, then its tensors; yield a line per split.

    Everything is read and checked before the first file is written.

    Args:
        task: The task.
        paths: Every path below the root.
        source: See `load_split`.
        new_seed: Draw new indices with this seed, also where there are index files.
        overwrite: Write tensors again that are up to date.

    Raises:
        UserError: The source cannot be reached, an index file is wrong, or a file cannot be
            written.
    """
    full = {name: load_split(task, name, source) for name in ("train", "test")}
    subsets: dict[str, tuple[Split, np.ndarray, bool]] = {}
    for split in split_names(task):
        whole = full["test" if split == "test" else "train"]
        path = paths.indices(task.name, split)
        is_new = new_seed is not None or not path.exists()
        if is_new:
            seed = SUBSET_SEED if new_seed is None else new_seed
            indices = draw_indices(task, split, whole.labels, seed)
        else:
            indices = read_indices(path, task, whole.labels)
        subsets[split] = (whole, indices, is_new)
    if task.one_pool:
        _check_disjoint(task, paths, {split: indices for split, (_, indices, _) in subsets.items()})
    for split, (whole, indices, is_new) in subsets.items():
        if is_new:
            text = "".join(f"{index}\n" for index in indices)
            write_atomically(
                paths.indices(task.name, split),
                lambda file, text=text: file.write_text(text, encoding="utf-8"),
            )
        labels = torch.from_numpy(whole.labels[indices])
        path = paths.tensors(task.name, split)
        up_to_date = not overwrite and _holds(path, task, split, indices)
        if not up_to_date:
            save(
                path,
                {
                    "task": task.name,
                    "split": split,
                    "images": whole.images(indices.tolist()),
                    "labels": labels,
                    "indices": torch.from_numpy(indices),
                    "origin": whole.origin,
                },
            )
        counts = labels.bincount(minlength=max(task.classes) + 1)
        per_class = ", ".join(f"{c}: {counts[c]}" for c in task.classes)
        drawn = "drawn" if is_new else "from its index file"
        state = "up to date" if up_to_date else f"from {whole.origin}"
        yield f"{task.name} {split}: {len(indices)} samples {drawn} ({per_class}), images {state}"


def _holds(path: Path, task: Task, split: str, indices: np.ndarray) -> bool:
    """Say whether a tensor file is there, whole, of this split and of these indices."""
    try:
        held = load(path, make="", identity={"task": task.name, "split": split})["indices"]
    except (UserError, KeyError):
        return False
    return torch.equal(held, torch.from_numpy(indices))


def _check_disjoint(task: Task, paths: Paths, subsets: dict[str, np.ndarray]) -> None:
    test = set(subsets["test"].tolist())
    for split, indices in subsets.items():
        common = sorted(test.intersection(indices.tolist())) if split != "test" else []
        if common:
            raise UserError(
                f"{paths.indices(task.name, split)}: index {common[0]} is in the test set too; "
                f"{task.name} draws both from one pool, so they must be disjoint"
            )
