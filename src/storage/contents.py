"""Whether a file holds what it should: tensors of the right kind, indices, epochs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from src.errors import UserError
from src.messages import kind_of
from src.storage.files import check_finite


class Content:
    """What a loaded file holds, whose parts are checked one after another.

    Args:
        path: The file.
        content: What it holds.
        make: The command that makes it and takes --overwrite, for error messages.
    """

    def __init__(self, path: Path, content: dict, make: str) -> None:
        self._path = path
        self._content = content
        self._make = make

    def refuse(self, what: str) -> None:
        """Raise UserError and say what is wrong."""
        raise UserError(f"{self._path}: {what}: make it again with: {self._make} --overwrite")

    def check(self, key: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        """Check that a part is a tensor of this kind.

        Raises:
            UserError: It is not.
        """
        found = self._content[key]
        if not isinstance(found, Tensor):
            self.refuse(f"{key} is no tensor")
        if found.dtype != dtype or found.shape != shape:
            self.refuse(
                f"{key} is {kind_of(found.dtype, found.shape)}, where {kind_of(dtype, shape)} "
                "belongs"
            )

    def check_finite(self, key: str, what: str, axes: dict[str, Sequence]) -> None:
        """Check that the numbers of a part are finite; `axes` as in `storage.files.check_finite`.

        Raises:
            UserError: One is not.
        """
        check_finite(self._path, what, self._content[key], self._make, axes)

    def length(self, key: str) -> int:
        """Return the number of elements of a part, 0 where it is no tensor."""
        found = self._content[key]
        return found.numel() if isinstance(found, Tensor) else 0

    def indices(self, key: str) -> list[int]:
        """Return indices of samples.

        Raises:
            UserError: They are no int64 tensor, none, or one stands there twice.
        """
        n = self.length(key)
        self.check(key, torch.int64, (n,))
        indices = self._content[key].tolist()
        if n == 0 or len(set(indices)) != n:
            self.refuse(f"{key} holds no index, or one twice")
        return indices

    def check_epochs(self, expected: Sequence[int]) -> None:
        """Check the epochs.

        Raises:
            UserError: They are others.
        """
        self.check("epochs", torch.int64, (len(expected),))
        found = self._content["epochs"].tolist()
        if found != list(expected):
            self.refuse(f"the epochs are {found}, where {list(expected)} belong")
