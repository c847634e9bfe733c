"""What an estimator of attribution is: given one seed's checkpoints, it returns scores.

Estimators are small objects that hold their options, one in each module of `src.tda` that defines a
method. What takes long they compute in pieces, by `collect`, `each_checkpoint` or `each_epoch`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, TypeVar

import torch
from torch import Tensor

from src.data.samples import Samples
from src.ensemble.members import State
from src.ensemble.setup import Setup
from src.errors import DivergedError, UserError
from src.progress import progress
from src.tda.pieces import Pieces

Items = TypeVar("Items", Samples, Sequence)
Piece = TypeVar("Piece")


@dataclass(frozen=True)
class Draws:
    """What an estimator is given of one seed.

    Attributes:
        setup: Where it comes from.
        seed: The seed.
        checkpoints: Its checkpoints.
        pieces: What is done.
        subsets: What the file of trainings on subsets holds (`src.subsets.files`), of the
            kind that the estimator's methods need (`Method.needs`); None: they need none.
    """

    setup: Setup
    seed: int
    checkpoints: list[State]
    pieces: Pieces = field(default_factory=Pieces)
    subsets: dict | None = None


@dataclass
class Scores:
    """What an estimator returns of one method.

    Attributes:
        scores: (C, n_scored, n_test).
        extra: What is saved beside the scores: tensors by name.
        message: What is printed of the scores; empty: nothing.
    """

    scores: Tensor
    extra: dict[str, Tensor] = field(default_factory=dict)
    message: str = ""


class Estimator(Protocol):
    """Computes the scores of methods that share their computation.

    Attributes:
        methods: Their names.
        retrains: Whether it repeats the training of the checkpoints.
        chunk_size: How much it computes at once; None: what fits.
    """

    methods: ClassVar[tuple[str, ...]]
    chunk_size: int | None

    @property
    def retrains(self) -> bool: ...

    def settings(self) -> dict:
        """Return every option that changes the numbers, as its script's arguments name it."""

    def __call__(self, draws: Draws) -> dict[str, Scores]:
        """Return the scores of all pairs at all checkpoints, by method."""


def compute(estimator: Estimator, draws: Draws) -> dict[str, Scores]:
    """Return an estimator's scores by method, all of them finite.

    Raises:
        DivergedError: One is not, or a solver or a retraining diverged.
        UserError: They are not of all pairs.
    """
    # For inputs that are random crops; without them nothing here depends on it.
    torch.manual_seed(draws.seed)
    results = estimator(draws)
    setup = draws.setup
    shape = len(draws.checkpoints), len(setup.scored), len(setup.test)
    for method, result in results.items():
        if result.scores.shape != shape:
            raise UserError(
                f"{type(estimator).__name__} returns {method} scores of shape "
                f"{tuple(result.scores.shape)}, not {shape}: checkpoints, training samples that "
                "are scored, test samples"
            )
        with naming(f"{method} seed {draws.seed}"):
            require_finite(result.scores.float())
    return results


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
        for chunk in kept(draws, checked(draws, chunks, description)):
            advance(chunk.shape[1])
    return torch.cat(pieces.done, 1)


def each_checkpoint(
    draws: Draws, compute: Callable[[State], Piece], description: str
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
        for _ in kept(draws, results()):
            advance(1)
    return draws.pieces.done


def stacked(
    results: list[tuple[Tensor, dict[str, Tensor]]],
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the scores of all checkpoints, (C, ...), and what is known beside them, by name.

    Args:
        results: Scores, and what is known beside them, of each checkpoint.
    """
    scores, known = zip(*results, strict=True)
    return torch.stack(scores), {k: torch.stack([own[k] for own in known]) for k in known[0]}


def each_epoch(
    draws: Draws, compute: Callable[[int], Iterator[Piece]], description: str
) -> list[Piece]:
    """Return, on the CPU, what is computed of each epoch of a training that is repeated.

    Args:
        draws: What the scores are computed from; its pieces are epochs.
        compute: Yields the pieces of one epoch after another from the given one (0-based) on: a
            tensor of scores and, in a dictionary, what is known beside them.
        description: What is computed, for people.
    """
    n_done, n_epochs = len(draws.pieces.done), draws.setup.experiment.epochs

    def results() -> Iterator[Piece]:
        with naming(description):
            for epoch, piece in enumerate(compute(n_done), n_done):
                with naming(f"epoch {epoch}"):
                    require_finite(piece[0])
                yield piece

    with progress(description, "epochs", n_epochs, n_done) as advance:
        if n_done < n_epochs:
            for _ in kept(draws, results()):
                advance(1)
    return draws.pieces.done


def checked(draws: Draws, chunks: Iterator[Tensor], description: str) -> Iterator[Tensor]:
    """Yield chunks of scores (C, M, n_test), all of whose scores are finite."""
    with naming(description):
        for chunk in chunks:
            for epoch, scores in zip(draws.setup.experiment.kept_epochs, chunk, strict=True):
                with naming(f"epoch {epoch}"):
                    require_finite(scores)
            yield chunk


def kept(draws: Draws, results: Iterator[Piece]) -> Iterator[Piece]:
    """Yield results and keep each as a finished piece, all of them also when interrupted."""
    try:
        for result in results:
            draws.pieces.add(result)
            yield result
    except (KeyboardInterrupt, SystemExit):
        draws.pieces.write()
        raise
