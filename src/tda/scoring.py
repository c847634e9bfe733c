"""The score files of one seed: found computed, or computed and saved."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from src.ensemble.checkpoint_files import GIVEN, are_given, training_command
from src.ensemble.checkpoints import Checkpoints
from src.ensemble.members import State
from src.ensemble.setup import Setup
from src.errors import DivergedError, UserError
from src.storage.files import check_settings, digest, remove_leftovers, save
from src.storage.locks import holder, lock
from src.tda.estimator import Draws, Estimator, Scores, compute
from src.tda.pieces import PartialFile, Pieces
from src.tda.score_files import load_scores_of, score_command, score_identity
from src.tda.timing import record_seconds, stopwatch


class Scoring:
    """The scores of one seed by one estimator: found computed, or computed.

    Args:
        trained: The experiment's checkpoints.
        seed: The seed, for names.
        seed_id: Its number, for commands.
        estimator: Computes the scores.
        overwrite: Whether to compute files again that are there.

    Raises:
        UserError: Checkpoints are missing or not sound, or were not trained here and the estimator
            repeats their training.
    """

    def __init__(
        self,
        trained: Checkpoints,
        seed: int,
        seed_id: int,
        estimator: Estimator,
        *,
        overwrite: bool,
    ) -> None:
        self.setup = trained.setup
        self.at = at = trained.paths
        self.seed = seed
        self.seed_id = seed_id
        self.estimator = estimator
        self.overwrite = overwrite
        experiment, methods = self.setup.experiment, estimator.methods
        given = are_given(experiment, at, seed, seed_id)
        if given and estimator.retrains:
            others = ""
            if "protocol" in estimator.settings():
                settings = {"protocol": "continue", **self.setup.scored_settings()}
                continued = score_command(at, experiment, methods[0], seed_id, settings)
                others = f", or train the checkpoints on with: {continued}"
            raise UserError(
                f"{at.checkpoint(experiment, seed, 0).parent} was given by --checkpoints, and how "
                "it was trained is not known here, so that its training cannot be repeated: "
                f"train here with: {training_command(at, experiment, seed_id)} "
                f"--overwrite{others}"
            )
        self._checkpoints = trained.load(seed, seed_id, given=given)
        self._settings = score_settings(self.setup, estimator, self._checkpoints, given=given)
        self._paths = {method: at.scores(experiment, method, seed) for method in methods}
        self._partial = at.partial_scores(experiment, methods[0], seed)
        self._lock = at.scores_lock(experiment, methods[0], seed)
        self._wanted = {**_options(self.setup, estimator), "device": self.setup.device}
        self._make = score_command(at, experiment, methods[0], seed_id, self._wanted)

    def check(self) -> None:
        """Check what is there already.

        Raises:
            UserError: A file is another, is not sound or has other settings, and is not to be
                overwritten.
        """
        # The partial file of a process at work is its own affair.
        if not self._is_finished() and holder(self._lock) is None:
            self._pieces()

    def run(self) -> Iterator[str]:
        """Compute and save the scores unless they are there; yield a line per file.

        Raises:
            UserError: As `check`, or a file cannot be written.
            DivergedError: A score is not finite, or a solver or a retraining diverged; nothing is
                kept.
            HeldError: Another process computes these files.
        """
        if not self._is_finished() or self._partial.exists():
            with lock(self._lock):
                for path in self._paths.values():
                    remove_leftovers(path)
                if not self._is_finished():  # nor by a process that has let go of the lock just now
                    yield from self._compute()
                    return
                self._partial.unlink(missing_ok=True)  # of a process killed before it did so itself
        for path in self._paths.values():
            yield f"{path}: finished before"

    def _is_finished(self) -> bool:
        if self.overwrite:
            return False
        at, experiment = self.at, self.setup.experiment
        there = {method: path for method, path in self._paths.items() if path.exists()}
        for method, path in there.items():  # every one is checked, also behind one that is missing
            content = load_scores_of(at, experiment, method, self.seed, self.seed_id, self._wanted)
            check_settings(path, content["settings"], self._settings, self._make)
        return len(there) == len(self._paths)

    def _pieces(self) -> Pieces:
        if self.setup.experiment.random_crop:
            # They come from one stream over all pieces, which a later process cannot go on with.
            return Pieces()
        identity = score_identity(self.setup.experiment, self.estimator.methods[0], self.seed)
        return PartialFile(
            self._partial, identity, self._settings, make=self._make, overwrite=self.overwrite
        )

    def _compute(self) -> Iterator[str]:
        draws = Draws(self.setup, self.seed, self._checkpoints, self._pieces())
        goes_on, seconds = bool(draws.pieces.done), stopwatch()
        try:
            results = compute(self.estimator, draws)
        except DivergedError:
            self._partial.unlink(missing_ok=True)  # other settings must not find it in their way
            raise
        took = None if goes_on else seconds()
        for method, result in results.items():
            content = score_content(self.setup, method, self.seed, result, self._settings)
            save(self._paths[method], content)
            message = f": {result.message}" if result.message else ""
            yield f"{self._paths[method]}{message}"
        record_seconds(self.at, self.setup.experiment, list(results), self.seed, took)
        self._partial.unlink(missing_ok=True)


def _options(setup: Setup, estimator: Estimator) -> dict:
    options = {**estimator.settings(), **setup.scored_settings()}
    if setup.experiment.random_crop:
        # Which crops are drawn depends on how much is computed at once.
        options["chunk_size"] = estimator.chunk_size
    return options


def score_settings(
    setup: Setup, estimator: Estimator, checkpoints: list[State], *, given: bool
) -> dict:
    """Return what decides the numbers of scores, and what computed them.

    Args:
        setup: The experiment.
        estimator: Computes them.
        checkpoints: The checkpoints that they are of.
        given: Whether these were not trained here. The digest of those that were follows from the
            hyper-parameters; these may change without the given ones, and with them the steps that
            are taken from there.
    """
    origin = {"origin": GIVEN, "hyperparameters": digest(setup.experiment.training_settings())}
    return {
        **_options(setup, estimator),
        **(origin if given else {}),
        **setup.network_settings(),
        **setup.environment(),
        "checkpoints": digest(checkpoints),
        "train_samples": setup.train.digest(),
        "test_samples": setup.test.digest(),
    }


def score_content(setup: Setup, method: str, seed: int, result: Scores, settings: dict) -> dict:
    """Return what a score file holds."""
    return {
        "scores": result.scores.float().cpu(),
        "epochs": torch.tensor(setup.experiment.kept_epochs),
        "train_idx": setup.train.indices[setup.scored],
        "test_idx": setup.test.indices,
        **score_identity(setup.experiment, method, seed),
        "settings": settings,
        **result.extra,
    }
