"""Finished pieces of a computation that takes long, in memory or in a partial file.

A partial file lies beside the final one, so that an interrupted computation goes on from it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from torch import Tensor

from src.storage.files import check_finite, check_settings, load, save

# Of the time of a computation, what writing its partial file may take.
SHARE_FOR_PARTIAL_FILE = 0.02


class Pieces:
    """The finished pieces of a computation, on the CPU: nested tuples and dictionaries of tensors.

    Attributes:
        done: The pieces, in the order in which they were finished.
    """

    def __init__(self) -> None:
        self.done: list[Any] = []

    def add(self, piece: Any) -> None:
        """Keep one more piece."""
        self.done.append(_on_cpu(piece))

    def write(self) -> None:
        """Bring what is kept to where a later process finds it: with pieces in memory, nowhere."""


class PartialFile(Pieces):
    """Pieces that are also kept in a file.

    Args:
        path: The partial file.
        identity: What it says that it is.
        settings: What decides the numbers in it.
        make: The command that starts anew, for error messages.
        overwrite: Whether to leave aside what is there.

    Raises:
        UserError: The partial file is another, has other settings, is damaged, or holds a score
            that is not finite, and `overwrite` is False.
    """

    def __init__(
        self, path: Path, identity: dict, settings: dict, *, make: str, overwrite: bool
    ) -> None:
        super().__init__()
        self.path = path
        self.identity = identity
        self.settings = settings
        if path.exists() and not overwrite:
            content = load(path, make, identity=identity, holds=("pieces", "settings"))
            check_settings(path, content["settings"], settings, make)
            self.done = content["pieces"]
            for number, piece in enumerate(self.done):
                for part in [piece] if isinstance(piece, Tensor) else piece:
                    if isinstance(part, Tensor):  # rather than what is known beside the scores
                        check_finite(path, f"scores of piece {number}", part, make)
        self._n_written = len(self.done)
        self._next_write = 0.0

    def add(self, piece: Any) -> None:
        """Keep one more piece.

        Raises:
            UserError: The partial file cannot be written.
        """
        super().add(piece)
        if time.monotonic() >= self._next_write:
            self.write()

    def write(self) -> None:
        """Write what the partial file does not have yet."""
        if self._n_written == len(self.done):
            return
        start = time.monotonic()
        save(self.path, {"pieces": self.done, "settings": self.settings, **self.identity})
        end = time.monotonic()
        self._n_written = len(self.done)
        self._next_write = end + (end - start) / SHARE_FOR_PARTIAL_FILE


def _on_cpu(piece: Any) -> Any:
    if isinstance(piece, Tensor):
        return piece.cpu()
    if isinstance(piece, dict):
        return {key: _on_cpu(value) for key, value in piece.items()}
    return tuple(_on_cpu(part) for part in piece)
