"""Which samples are used: index files, and the tensors made from them and a source."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from src.data.scored import balanced_order
from src.data.sources import Split, load_splits
from src.data.texts import text_of
from src.errors import UserError
from src.experiments import Paths, Task
from src.experiments.experiment import ALL
from src.storage.files import digest, load, save, write_atomically

SUBSET_SEED = 2023  # of the committed index files
SCORED = "train_scored"  # the split of all samples: which of them are scored


def split_names(task: Task) -> list[str]:
    """Return the names of a task's splits: test, and train for each number per class, or all."""
    whole = [] if task.n_scored is None else [ALL]
    return ["test", *(f"train_{n}pc" for n in task.n_per_class), *whole]


def index_file(split: str) -> str:
    """Return the name of a split's index file: that of all samples says which are scored."""
    return SCORED if split == ALL else split


def draw_indices(task: Task, split: str, labels: np.ndarray, seed: int) -> np.ndarray:
    """Draw a balanced subset of a split: indices (n,), class by class; of values just n samples.

    What is scored of all samples (SCORED) is as balanced as its number allows, and ascending.

    Every split of every task has a generator of its own, seeded by `seed` and its name, so that
    train sets of different sizes are drawn independently. Where train and test come from one
    pool, the test set is drawn first and the train sets from what it leaves.

    Raises:
        UserError: A class has fewer samples than are to be drawn.
    """
    rng = np.random.default_rng([seed, zlib.crc32(f"{task.name}/{split}".encode())])
    available = np.ones(len(labels), dtype=bool)
    if split != "test" and task.one_pool:
        available[draw_indices(task, "test", labels, seed)] = False
    if split == SCORED:
        candidates = np.flatnonzero(available & _belong(task, labels))
        if len(candidates) < task.n_scored:
            raise UserError(
                f"{task.name} {ALL}: there are {len(candidates)} training samples, fewer than the "
                f"{task.n_scored} to be scored"
            )
        return np.sort(candidates[balanced_order(labels[candidates], rng)[: task.n_scored]])
    n_per_class = (
        task.n_test_per_class
        if split == "test"
        else int(split.removeprefix("train_").removesuffix("pc"))
    )
    drawn = []
    for c in (None,) if task.has_values else task.classes:
        of_class = np.flatnonzero(available if c is None else available & (labels == c))
        if len(of_class) < n_per_class:
            left = " that the test set leaves" if not available.all() else ""
            whose = "the source" if c is None else f"class {c}"
            raise UserError(
                f"{task.name} {split}: {whose} has {len(of_class)} samples{left}, fewer than the "
                f"{n_per_class} to be drawn"
            )
        drawn.append(rng.choice(of_class, n_per_class, replace=False))
    return np.concatenate(drawn)


def _belong(task: Task, labels: np.ndarray) -> np.ndarray:
    """Return which samples (N,) are of a class of the task; of values all."""
    if task.has_values:
        return np.ones(len(labels), dtype=bool)
    return np.isin(labels, task.classes)


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
        if not task.has_values and labels[index] not in task.classes:
            raise UserError(
                f"{where}: sample {index} is of class {labels[index]}, which {task.name} "
                f"does not have ({', '.join(map(str, task.classes))})"
            )
        seen[index] = number
    if not seen:
        raise UserError(f"{path} is empty: it must hold one index a line")
    return np.fromiter(seen, dtype=np.int64)


@dataclass(frozen=True)
class Subset:
    """One split of a task, ready to be written.

    Attributes:
        name: Task and split.
        drawn: The index file to write and its text; None: it is there.
        tensors: The tensors' file and its content; None: it is there.
        said: What of it is told.
    """

    name: str
    drawn: tuple[Path, str] | None
    tensors: tuple[Path, dict] | None
    said: str

    def write(self) -> str:
        """Write what is not there yet and return a line that says what it is.

        Raises:
            UserError: A file cannot be written.
        """
        if self.drawn is not None:
            path, text = self.drawn
            write_atomically(path, lambda file: file.write_text(text))
        if self.tensors is not None:
            save(*self.tensors)
        return f"{self.name}: {self.said}"


def prepare(
    task: Task,
    paths: Paths,
    source: Path | None,
    *,
    new_seed: int | None = None,
    overwrite: bool = False,
) -> list[Subset]:
    """Draw the indices of a task where there are no index files, read its samples, check both.

    Nothing is written.

    Args:
        task: The task.
        paths: Every path below the root.
        source: See `load_splits`.
        new_seed: Draw new indices with this seed, also where there are index files.
        overwrite: Write tensors again that are there, also of other pixels.

    Raises:
        UserError: The source cannot be reached or does not fit the task, an index file is wrong, a
            class has too few samples, or there are tensors with other pixels or labels.
    """
    task, full = load_splits(task, source)
    subsets: dict[str, tuple[Split, np.ndarray, bool]] = {}
    for split in split_names(task):
        whole = full["test" if split == "test" else "train"]
        path = paths.indices(task.name, index_file(split))
        is_new = new_seed is not None or not path.exists()
        if is_new:
            seed = SUBSET_SEED if new_seed is None else new_seed
            indices = draw_indices(task, index_file(split), whole.labels, seed)
        else:
            indices = read_indices(path, task, whole.labels)
        subsets[split] = (whole, indices, is_new)
    if task.one_pool:
        _check_disjoint(task, paths, {split: indices for split, (_, indices, _) in subsets.items()})
    test = subsets["test"][1] if task.one_pool else []
    return [_subset(task, paths, split, *subsets[split], test, overwrite) for split in subsets]


def _subset(
    task: Task,
    paths: Paths,
    split: str,
    whole: Split,
    listed: np.ndarray,
    is_new: bool,
    test: np.ndarray | list[int],
    overwrite: bool,
) -> Subset:
    """Return a split, given what its index file lists and what is not to be trained on."""
    indices = listed
    if split == ALL:
        indices = np.setdiff1d(np.flatnonzero(_belong(task, whole.labels)), test)
    inputs, labels = whole.inputs(indices.tolist()), torch.from_numpy(whole.labels[indices])
    if task.text is not None:
        text_of(task, inputs[0])
    content = {
        "task": task.name,
        "split": split,
        "images" if inputs.dtype == torch.uint8 else "inputs": inputs,
        "labels": labels,
        "indices": torch.from_numpy(indices),
        "origin": whole.origin,
        "n_classes": task.n_classes,
        "classes": None if task.has_values else list(task.classes),
        "class_names": list(task.class_names),
    }
    if split == ALL:
        content["scored"] = torch.from_numpy(listed)
    path = paths.tensors(task.name, split)
    up_to_date = not overwrite and _is_up_to_date(path, content)
    per_class = "" if task.has_values else f" ({_counts(labels, task)})"
    what = "images" if "images" in content else "inputs"
    text = "".join(f"{index}\n" for index in listed)
    scored = f", {len(listed)} to be scored," if split == ALL else ""
    come = "drawn" if is_new else "from its index file"
    return Subset(
        f"{task.name} {split}",
        (paths.indices(task.name, index_file(split)), text) if is_new else None,
        None if up_to_date else (path, content),
        f"{len(indices)} samples{scored} {come}{per_class}, "
        f"{what} {'up to date' if up_to_date else f'from {whole.origin}'}",
    )


def _counts(labels: torch.Tensor, task: Task) -> str:
    counts = labels.bincount(minlength=task.n_classes)
    names = task.class_names or ("",) * task.n_classes
    return ", ".join(f"{c} {names[c]}".rstrip() + f": {counts[c]}" for c in task.classes)


def _is_up_to_date(path: Path, content: dict) -> bool:
    """Say whether a tensor file is there and whole, and holds what it should.

    Where it came from does not matter: the source has been read, and what counts is compared.

    Raises:
        UserError: For the same indices it holds other pixels or labels. What was trained on these
            would be left without them, so that is for the person to decide.
    """
    try:
        held = load(path, make="")
    except UserError:
        return False
    if digest({**held, "origin": ""}) == digest({**content, "origin": ""}):
        return True
    if digest(held.get("indices")) != digest(content["indices"]):
        return False
    differ = [
        f"the {key} of {n} samples"
        for key in ("images", "inputs", "labels")
        if key in content and (n := _n_different(held.get(key), content[key]))
    ]
    if differ:
        raise UserError(
            f"{path} differs from what {content['origin']} gives for the same indices: "
            f"{' and '.join(differ)} of {len(content['indices'])}; it was made from "
            f"{held.get('origin')}: --overwrite writes it anew, and what was trained on it must be "
            "trained again, --root DIR keeps both"
        )
    return False  # made by a version that wrote less into it


def _n_different(held: object, wanted: torch.Tensor) -> int:
    """Return how many samples of `wanted` (N, ...) are not those of what a file holds."""
    if not isinstance(held, torch.Tensor) or held.shape != wanted.shape:
        return len(wanted)
    return int((held != wanted).reshape(len(wanted), -1).any(1).sum())


def _check_disjoint(task: Task, paths: Paths, subsets: dict[str, np.ndarray]) -> None:
    test = set(subsets["test"].tolist())
    for split, indices in subsets.items():
        common = sorted(test.intersection(indices.tolist())) if split != "test" else []
        if common:
            raise UserError(
                f"{paths.indices(task.name, index_file(split))}: index {common[0]} is in the test "
                f"set too; {task.name} draws both from one pool, so they must be disjoint"
            )
