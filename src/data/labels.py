"""The labels of a data set, and what they mean."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from src.errors import UserError
from src.experiments import Task

if TYPE_CHECKING:
    import datasets


def labels_of(
    data: datasets.Dataset, where: str, named: str | None = None
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Return the labels of a data set, int64 (N,), and its class names by label.

    They stand in the column that is `named`, or else in the column `label` or, if there is none, in
    the only one of class labels. Names that are but the labels' own numbers are none.

    Raises:
        UserError: There is no such column, it holds something else, or a sample has no label.
    """
    import datasets

    classes = [n for n, f in data.features.items() if isinstance(f, datasets.ClassLabel)]
    if named is not None:
        if named not in data.features:
            raise UserError(f"{where}: there is no column {named!r}: {columns_of(data)}")
        column = named
    elif "label" in data.features:
        column = "label"
    elif len(classes) == 1:
        column = classes[0]
    else:
        raise UserError(
            f"{where}: it must have a column 'label' or one column of class labels, or the task "
            f"names one in label_column: {columns_of(data)}"
        )
    feature = data.features[column]
    if not isinstance(feature, datasets.ClassLabel) and not re.fullmatch(
        r"u?int\d+", str(getattr(feature, "dtype", ""))
    ):
        raise UserError(
            f"{where}: the column {column!r} must hold class labels or whole numbers: "
            f"{columns_of(data)}"
        )
    held = data.select_columns([column]).with_format("arrow")[:][column]
    missing = held.is_null().to_numpy()
    if missing.any():
        raise UserError(f"{where}: sample {missing.argmax()} has no label in {column!r}")
    labels = held.to_numpy().astype(np.int64)
    if (labels < 0).any():
        first = int((labels < 0).argmax())
        raise UserError(f"{where}: sample {first} has the label {labels[first]}, which is below 0")
    names = tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else ()
    return labels, None if names == tuple(map(str, range(len(names)))) else names


def check_class_names(class_names: tuple[str, ...], where: str, task: Task) -> None:
    """Raise UserError unless labels mean what the task says or, if it does not, what they seem to.

    Folders are sorted as text, so that of eleven numbered ones label 2 is "10".
    """
    if task.names_classes:
        for label in task.classes or range(max(len(class_names), len(task.class_names))):
            name, called = (
                names[label] if label < len(names) else "no class"
                for names in (class_names, task.class_names)
            )
            if name != called:
                raise UserError(
                    f"{where}: label {label} is {name!r}, and {task.name} calls it {called!r}"
                )
        return
    if all(name.isdecimal() for name in class_names):
        wrong = [label for label, name in enumerate(class_names) if int(name) != label]
    else:
        by_number = sorted(class_names, key=_by_number)
        is_text_order = list(class_names) == sorted(class_names)
        wrong = [
            label
            for label, name in enumerate(class_names)
            if is_text_order and name != by_number[label]
        ]
    if wrong:
        raise UserError(
            f"{where}: label {wrong[0]} is the class {class_names[wrong[0]]!r}: number classes "
            "from 0 on with leading zeros (00, 01, ...), or give the task their names, by label, "
            "in class_names"
        )


def _by_number(name: str) -> list[tuple[int, str]]:
    """Sort a name's numbers as numbers."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)
    ]


def columns_of(data: datasets.Dataset) -> str:
    """Name the columns of a data set with their types."""
    import datasets

    kinds = {
        name: feature.dtype if isinstance(feature, datasets.Value) else type(feature).__name__
        for name, feature in data.features.items()
    }
    return ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
