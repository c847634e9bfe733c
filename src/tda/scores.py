"""What computes one seed's scores is given and returns, and the pieces that it works in.

What takes long is computed in pieces. Finished pieces are kept in a partial file beside the final
one, so that an interrupted computation goes on from them; a method need only hand its pieces to
`collect` or `each_checkpoint`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from src.data.samples import Samples
from src.ensemble.checkpoints import Setup
from src.ensemble.members import Params
from src.errors import DivergedError
from src.progress import progress
from src.storage.files import check_finite, check_settings, load, save

# Of the time of a computation, what writing its partial file may take.
SHARE_FOR_PARTIAL_FILE = 0.02

Items = TypeVar("Items", Samples, Sequence)
Piece = TypeVar("Piece")


class Pieces:
    """The finished pieces of a computation, on the CPU and in a partial file.

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
        self.path = path
        self.identity = identity
        self.settings = settings
        self.done: list[Any] = []
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

    def add(self, piece: Piece) -> None:
        """Keep one more piece, nested tuples and dictionaries of tensors.

        Raises:
            UserError: The partial file cannot be written.
        """
        self.done.append(_on_cpu(piece))
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


@dataclass(frozen=True)
class Draws:
    """What a method is given: one seed's checkpoints, where they come from, what is done."""

    setup: Setup
    seed: int
    checkpoints: list[Params]
    pieces: Pieces


@dataclass
class Scores:
    """What a method returns.

    Attributes:
        scores: (C, n_train, n_test).
        extra: What is saved beside the scores: tensors by name.
        message: What is printed of the scores; empty: nothing.
    """

    scores: Tensor
    extra: dict[str, Tensor] = field(default_factory=dict)
    message: str = ""


def require_finite(scores: Tensor) -> None:
    """Raise DivergedError if scores of any shape are not all finite."""
    n_bad = scores.numel() - int(scores.isfinite().sum())
    if n_bad:
        raise DivergedError(
            f"{n_bad:,} of {scores.numel():,} scores are not finite, so nothing is saved: "
            "the network has diverged, or the numbers overflow; look at its training loss"
        )


@contextlib.contextmanager
def naming(whose: str) -> Iterator[None]:
    """Say in a DivergedError whose scores they are."""
    try:
        yield
    except DivergedError as error:
        raise DivergedError(f"{whose}: {error}") from error


def collect(
    draws: Draws,
    items: Items,
    compute: Callable[[Items], Iterator[Tensor]],
    description: str,
) -> Tensor:
    """Return the scores (C, n_items, n_test) of items, such as left-out samples.

    Args:
        draws: What the scores are computed from; its pieces are chunks of items.
        items: What is scored one by one.
        compute: Yields the scores (C, M, n_test) of one chunk after another of the given items.
        description: What is computed, for people.
    """
    pieces = draws.pieces
    n_done = sum(chunk.shape[1] for chunk in pieces.done)
    if n_done < len(items):
        remaining = items.at(slice(n_done, None)) if isinstance(items, Samples) else items[n_done:]
        chunks = compute(remaining)
    else:
        chunks = iter(())
    with progress(description, "members", len(items), n_done) as advance:
        for chunk in _kept(draws, _checked(draws, chunks, description)):
            advance(chunk.shape[1])
    return torch.cat(pieces.done, 1)


def each_checkpoint(
    draws: Draws, compute: Callable[[Params], Piece], description: str
) -> list[Piece]:
    """Return, on the CPU, what `compute` returns for each of a seed's checkpoints."""
    n_done = len(draws.pieces.done)
    epochs = draws.setup.experiment.kept_epochs

    def results() -> Iterator[Piece]:
        for epoch, params in [*zip(epochs, draws.checkpoints, strict=True)][n_done:]:
            with naming(f"{description}, epoch {epoch}"):
                piece = compute(params)
                # What is known beside the scores is in a dictionary, and may be infinite.
                for scores in piece if isinstance(piece, tuple) else (piece,):
                    if isinstance(scores, Tensor):
                        require_finite(scores)
            yield piece

    with progress(description, "checkpoints", len(draws.checkpoints), n_done) as advance:
        for _ in _kept(draws, results()):
            advance(1)
    return draws.pieces.done


def _checked(draws: Draws, chunks: Iterator[Tensor], description: str) -> Iterator[Tensor]:
    """Yield chunks of scores (C, M, n_test), all of whose scores are finite."""
    with naming(description):
        for chunk in chunks:
            for epoch, scores in zip(draws.setup.experiment.kept_epochs, chunk, strict=True):
                with naming(f"epoch {epoch}"):
                    require_finite(scores)
            yield chunk


def _kept(draws: Draws, results: Iterator[Piece]) -> Iterator[Piece]:
    """Yield results and keep each as a finished piece, all of them also when interrupted."""
    # Random crops come from one stream over all pieces, which a later process cannot go on with.
    in_file = not draws.setup.experiment.random_crop
    try:
        for result in results:
            if in_file:
                draws.pieces.add(result)
            else:
                draws.pieces.done.append(_on_cpu(result))
            yield result
    except (KeyboardInterrupt, SystemExit):
        if in_file:
            draws.pieces.write()
        raise
