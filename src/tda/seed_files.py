"""Files that are computed of one seed: found finished, or computed and saved, by one process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

from src.ensemble.setup import Setup
from src.storage.files import remove_leftovers
from src.storage.locks import holder, lock
from src.tda.pieces import PartialFile, Pieces


class SeedFiles(ABC):
    """Files that are computed together.

    Args:
        setup: What they are computed from.
        paths: The files.
        partial: Holds finished pieces while they are computed.
        lock: Of the process that computes them.
        overwrite: Whether to compute them again where they are there.
    """

    def __init__(
        self, setup: Setup, paths: Sequence[Path], partial: Path, lock: Path, *, overwrite: bool
    ) -> None:
        self.setup = setup
        self.overwrite = overwrite
        self._files = paths
        self._partial = partial
        self._lock = lock

    @abstractmethod
    def _are_sound(self) -> bool:
        """Say whether all files are there; raise UserError where one is not as it should be."""

    @abstractmethod
    def _compute(self) -> Iterator[str]:
        """Compute and save the files; yield a line for each."""

    @abstractmethod
    def _partial_file(self) -> PartialFile:
        """Return the finished pieces of earlier processes."""

    def check(self) -> None:
        """Check what is there already.

        Raises:
            UserError: A file is another, is not sound or has other settings, and is not to be
                overwritten.
        """
        # The partial file of a process at work is its own affair.
        if not self._are_finished() and holder(self._lock) is None:
            self._pieces()

    def run(self) -> Iterator[str]:
        """Compute and save the files unless they are there; yield a line for each.

        Raises:
            UserError: As `check`, or a file cannot be written.
            DivergedError: A number is not finite, or a solver or a training diverged; nothing is
                kept.
            HeldError: Another process computes these files.
        """
        if not self._are_finished() or self._partial.exists():
            with lock(self._lock):
                for path in self._files:
                    remove_leftovers(path)
                # Nor by a process that has let go of the lock just now.
                if not self._are_finished():
                    yield from self._compute()
                    return
                self._partial.unlink(missing_ok=True)  # of a process killed before it did so itself
        for path in self._files:
            yield f"{path}: finished before"

    def _are_finished(self) -> bool:
        return not self.overwrite and self._are_sound()

    def _pieces(self) -> Pieces:
        if self.setup.experiment.random_crop:
            # They come from one stream over all pieces, which a later process cannot go on with.
            return Pieces()
        return self._partial_file()
