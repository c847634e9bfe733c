"""What is computed of a network in memory: trainings, scores and models on subsets, each once."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from src.ensemble.members import State
from src.ensemble.setup import Setup
from src.errors import DivergedError
from src.experiments import METHODS, TRUTH
from src.progress import progress
from src.subsets.masks import Subsets
from src.subsets.training import train_subsets
from src.tda.estimator import Draws, Estimator, compute
from src.tda.pieces import Pieces
from src.tda.scoring import score_content, score_settings
from src.tda.timing import stopwatch


class InMemory:
    """Trainings of a network and what is computed of them, kept and not computed again.

    A computation that was interrupted goes on from where it was.

    Args:
        setup: What is trained.
        given: Checkpoints of each training, by number; None: seeds are trained here.

    Attributes:
        is_given: Whether the trainings were given.
    """

    def __init__(self, setup: Setup, given: dict[int, list[State]] | None = None) -> None:
        self._setup = setup
        self.is_given = given is not None
        self._trained = given or {}
        self._pieces: dict[Hashable, Pieces] = {}
        self._done: dict[Hashable, Any] = {}
        self._seconds: dict[tuple[Estimator, int], float] = {}

    def checkpoints(self, seed: int) -> list[State]:
        """Return the checkpoints of a seed, in order of epochs."""
        if seed not in self._trained:
            experiment, kept = self._setup.experiment, []
            with progress(f"training seed {seed}", "epochs", experiment.epochs) as advance:
                for state in self._setup.training(seed):
                    if state.epoch in experiment.kept_epochs:
                        kept.append(state.params)
                    advance(1)
            self._trained[seed] = kept
        return self._trained[seed]

    def scores(self, estimator: Estimator, seed: int) -> dict[str, dict]:
        """Return what score files would hold, by method of the estimator.

        Raises:
            UserError: The estimator, or a training that it needs, refuses or diverges.
        """

        def computed(pieces: Pieces) -> dict[str, dict]:
            checkpoints, kind = self.checkpoints(seed), METHODS[estimator.methods[0]].subsets
            subsets = None
            if kind is not None:
                subsets = self.on_subsets(Subsets.of(kind), seed, estimator.chunk_size)
            settings = score_settings(
                self._setup, estimator, checkpoints, given=self.is_given, subsets=subsets
            )
            goes_on, seconds = bool(pieces.done), stopwatch()
            results = compute(estimator, Draws(self._setup, seed, checkpoints, pieces, subsets))
            self._seconds[estimator, seed] = math.nan if goes_on else seconds()
            return {
                method: score_content(self._setup, method, seed, result, settings)
                for method, result in results.items()
            }

        return self._once((estimator, seed), computed)

    def mean_seconds(self, estimator: Estimator, seeds: Sequence[int]) -> float:
        """Return the mean seconds of the seeds' scores; NaN where one was interrupted."""
        return sum(self._seconds[estimator, seed] for seed in seeds) / len(seeds)

    def on_subsets(self, subsets: Subsets, seed: int, chunk_size: int | None = None) -> dict:
        """Return what a file of one seed's models on subsets would hold.

        Args:
            subsets: What is drawn.
            seed: The seed.
            chunk_size: Models trained at once; None: what fits.

        Raises:
            UserError: The subsets cannot be drawn, or a training refuses or diverges.
        """

        def computed(pieces: Pieces) -> dict:
            draws = Draws(self._setup, seed, self.checkpoints(seed), pieces)
            return {
                **train_subsets(draws, subsets, chunk_size),
                "train_idx": self._setup.train.indices,
                "test_idx": self._setup.test.indices,
                "settings": subsets.settings(),
            }

        return self._once((subsets, seed), computed)

    def truth(self, n_subsets: int, seeds: Sequence[int]) -> dict[int, dict]:
        """Return `on_subsets`, by seed, of the subsets that accuracy is measured by."""
        return {seed: self.on_subsets(Subsets.of(TRUTH, n_subsets), seed) for seed in seeds}

    def _once(self, key: Hashable, computed: Callable[[Pieces], Any]) -> Any:
        if key not in self._done:
            pieces = self._pieces.setdefault(key, Pieces())
            try:
                self._done[key] = computed(pieces)
            except DivergedError:
                del self._pieces[key]
                raise
            del self._pieces[key]
        return self._done[key]
