"""One method's scores of one seed: computed, or found computed, and saved.

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
from tqdm import tqdm

from src.data.samples import Samples
from src.ensemble.checkpoints import Setup
from src.ensemble.members import State
from src.errors import DivergedError
from src.messages import say
from src.storage.files import check_finite, check_settings, digest, load, remove_leftovers, save
from src.storage.locks import HeldError, holder, lock
from src.tda.score_files import load_scores_of, score_command, score_identity

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
    checkpoints: list[State]
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


def score_seed(
    setup: Setup,
    seed: int,
    seed_id: int,
    methods: tuple[str, ...],
    compute: Callable[[Draws], dict[str, Scores]],
    options: dict,
    *,
    overwrite: bool,
) -> Iterator[str]:
    """Compute and save the scores of methods that are computed together; yield a line per file.

    Args:
        setup: The experiment.
        seed: The seed, for names.
        seed_id: Its number, for commands.
        methods: The methods that `compute` returns.
        compute: Computes the scores of all pairs at all checkpoints, by method.
        options: Every option that changes the numbers, as the script's arguments name it.
        overwrite: Whether to compute files again that are there.

    Raises:
        UserError: Checkpoints are missing, a file is there that is another, is not sound or has
            other settings, or it cannot be written.
        DivergedError: A score is not finite, or a solver or a retraining diverged; nothing is kept.
        HeldError: Another process computes these files, or trains the seed.
    """
    experiment, at = setup.experiment, setup.paths
    trainer = holder(at.training_lock(experiment, seed))
    if trainer is not None:
        raise HeldError(str(trainer))
    checkpoints = setup.load_checkpoints(seed, seed_id)
    settings = {
        **options,
        **setup.network_settings(),
        **setup.environment(),
        "checkpoints": digest(checkpoints),
        "train_samples": setup.train.digest(),
        "test_samples": setup.test.digest(),
    }
    paths = {method: at.scores(experiment, method, seed) for method in methods}
    wanted = {**options, "device": setup.device}
    make = score_command(at, experiment, methods[0], seed_id, wanted)

    def finished() -> bool:
        if overwrite:
            return False
        there = {method: path for method, path in paths.items() if path.exists()}
        for method, path in there.items():  # every one is checked, also behind one that is missing
            found = load_scores_of(at, experiment, method, seed, seed_id, wanted)["settings"]
            check_settings(path, found, settings, make)
        return len(there) == len(paths)

    partial = at.partial_scores(experiment, methods[0], seed)
    if not finished() or partial.exists():
        with lock(at.scores_lock(experiment, methods[0], seed)):
            for path in paths.values():
                remove_leftovers(path)
            if not finished():  # nor by a process that has let go of the lock just now
                identity = score_identity(experiment, methods[0], seed)
                pieces = Pieces(partial, identity, settings, make=make, overwrite=overwrite)
                # For inputs that are random crops; without them nothing here depends on it.
                torch.manual_seed(seed)
                try:
                    results = compute(Draws(setup, seed, checkpoints, pieces))
                    for method, result in results.items():
                        with _naming(f"{method} seed {seed}"):
                            require_finite(result.scores.float())
                except DivergedError:
                    partial.unlink(missing_ok=True)  # other settings must not find it in their way
                    raise
                for method, result in results.items():
                    save(paths[method], _content(setup, method, seed, result, settings))
                    message = f": {result.message}" if result.message else ""
                    yield f"{paths[method]}{message}"
                partial.unlink(missing_ok=True)
                return
            partial.unlink(missing_ok=True)  # of a process killed just before it did so itself
    for path in paths.values():
        yield f"{path}: finished before"


def _content(setup: Setup, method: str, seed: int, result: Scores, settings: dict) -> dict:
    return {
        "scores": result.scores.float().cpu(),
        "epochs": torch.tensor(setup.experiment.kept_epochs),
        "train_idx": setup.train.indices,
        "test_idx": setup.test.indices,
        **score_identity(setup.experiment, method, seed),
        "settings": settings,
        **result.extra,
    }


def require_finite(scores: Tensor) -> None:
    """Raise DivergedError if scores of any shape are not all finite."""
    n_bad = scores.numel() - int(scores.isfinite().sum())
    if n_bad:
        raise DivergedError(
            f"{n_bad:,} of {scores.numel():,} scores are not finite, so nothing is saved: "
            "the network has diverged, or the numbers overflow; look at its training loss"
        )


@contextlib.contextmanager
def _naming(whose: str) -> Iterator[None]:
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
    """Return the scores (C, n_items, n_test) of items, such as left-out samples, under a bar.

    Args:
        draws: What the scores are computed from; its pieces are chunks of items.
        items: What is scored one by one.
        compute: Yields the scores (C, M, n_test) of one chunk after another of the given items.
        description: What the progress bar says.
    """
    pieces = draws.pieces
    n_done = sum(chunk.shape[1] for chunk in pieces.done)
    if n_done < len(items):
        remaining = items.at(slice(n_done, None)) if isinstance(items, Samples) else items[n_done:]
        chunks = compute(remaining)
    else:
        chunks = iter(())
    with _progress(description, "member", len(items), n_done) as bar:
        for chunk in _kept(draws, _checked(draws, chunks, description)):
            bar.update(chunk.shape[1])
    return torch.cat(pieces.done, 1)


def each_checkpoint(
    draws: Draws, compute: Callable[[State], Piece], description: str
) -> list[Piece]:
    """Return, on the CPU, what `compute` returns for each of a seed's checkpoints, under a bar."""
    n_done = len(draws.pieces.done)
    epochs = draws.setup.experiment.kept_epochs

    def results() -> Iterator[Piece]:
        for epoch, params in [*zip(epochs, draws.checkpoints, strict=True)][n_done:]:
            with _naming(f"{description}, epoch {epoch}"):
                piece = compute(params)
                # What is known beside the scores is in a dictionary, and may be infinite.
                for scores in piece if isinstance(piece, tuple) else (piece,):
                    if isinstance(scores, Tensor):
                        require_finite(scores)
            yield piece

    with _progress(description, "checkpoint", len(draws.checkpoints), n_done) as bar:
        for _ in _kept(draws, results()):
            bar.update()
    return draws.pieces.done


def _checked(draws: Draws, chunks: Iterator[Tensor], description: str) -> Iterator[Tensor]:
    """Yield chunks of scores (C, M, n_test), all of whose scores are finite."""
    with _naming(description):
        for chunk in chunks:
            for epoch, scores in zip(draws.setup.experiment.kept_epochs, chunk, strict=True):
                with _naming(f"epoch {epoch}"):
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


def _progress(description: str, unit: str, total: int, done: int) -> tqdm:
    if done:
        say(f"{description}: going on from {done} of {total} {unit}s")
    return tqdm(total=total, initial=done, desc=description, unit=unit, leave=False, disable=None)
