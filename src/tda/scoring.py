"""The score files of one seed: found computed, or computed and saved."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from src.ensemble.checkpoint_files import GIVEN, are_given, require_trained_here
from src.ensemble.checkpoints import Checkpoints
from src.ensemble.members import State
from src.ensemble.setup import Setup
from src.errors import DivergedError, UserError
from src.experiments import METHODS
from src.storage.files import check_settings, digest, save
from src.subsets.files import subsets_of
from src.subsets.masks import OPTIONS
from src.tda.estimator import Draws, Estimator, Scores, compute
from src.tda.pieces import PartialFile
from src.tda.score_files import load_scores_of, score_command, score_identity
from src.tda.seed_files import SeedFiles
from src.tda.timing import record_seconds, stopwatch


class Scoring(SeedFiles):
    """The scores of one seed by one estimator: found computed, or computed.

    Args:
        trained: The experiment's checkpoints.
        seed: The seed, for names.
        seed_id: Its number, for commands.
        estimator: Computes the scores.
        overwrite: Whether to compute files again that are there.

    Raises:
        UserError: Checkpoints, or trainings on subsets that the estimator needs, are missing or not
            sound, or the checkpoints were not trained here and the estimator repeats their
            training.
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
        self.at = at = trained.paths
        self.seed = seed
        self.seed_id = seed_id
        self.estimator = estimator
        setup, experiment, methods = trained.setup, trained.setup.experiment, estimator.methods
        if estimator.retrains:
            others = ""
            if "protocol" in estimator.settings():
                settings = {"protocol": "continue", **setup.scored_settings()}
                continued = score_command(at, experiment, methods[0], seed_id, settings)
                others = f", or train the checkpoints on with: {continued}"
            require_trained_here(experiment, at, seed, seed_id, others)
        given = are_given(experiment, at, seed, seed_id)
        self._checkpoints = trained.load(seed, seed_id, given=given)
        kind = METHODS[methods[0]].subsets
        self._subsets = None
        if kind is not None:
            if at.on_itself:
                raise UserError(
                    f"{methods[0]} is computed from losses on the test samples of models trained "
                    "on subsets, so that --self has no meaning for it"
                )
            self._subsets = subsets_of(at, setup, kind, seed, self._checkpoints)
        self._settings = score_settings(
            setup, estimator, self._checkpoints, given=given, subsets=self._subsets
        )
        self._paths = {method: at.scores(experiment, method, seed) for method in methods}
        self._wanted = {**_options(setup, estimator), "device": setup.device}
        self._make = score_command(at, experiment, methods[0], seed_id, self._wanted)
        super().__init__(
            setup,
            [*self._paths.values()],
            at.partial_scores(experiment, methods[0], seed),
            at.scores_lock(experiment, methods[0], seed),
            overwrite=overwrite,
        )

    def _are_sound(self) -> bool:
        at, experiment = self.at, self.setup.experiment
        there = {method: path for method, path in self._paths.items() if path.exists()}
        for method, path in there.items():  # every one is checked, also behind one that is missing
            content = load_scores_of(at, experiment, method, self.seed, self.seed_id, self._wanted)
            check_settings(path, content["settings"], self._settings, self._make)
        return len(there) == len(self._paths)

    def _partial_file(self) -> PartialFile:
        identity = score_identity(self.setup.experiment, self.estimator.methods[0], self.seed)
        return PartialFile(
            self._partial, identity, self._settings, make=self._make, overwrite=self.overwrite
        )

    def _compute(self) -> Iterator[str]:
        draws = Draws(self.setup, self.seed, self._checkpoints, self._pieces(), self._subsets)
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
    setup: Setup,
    estimator: Estimator,
    checkpoints: list[State],
    *,
    given: bool,
    subsets: dict | None = None,
) -> dict:
    """Return what decides the numbers of scores, and what computed them.

    Args:
        setup: The experiment.
        estimator: Computes them.
        checkpoints: The checkpoints that they are of.
        given: Whether these were not trained here. The digest of those that were follows from the
            hyper-parameters; these may change without the given ones, and with them the steps that
            are taken from there.
        subsets: What the file of trainings on subsets holds, where they are computed from these.
    """
    origin = {"origin": GIVEN, "hyperparameters": digest(setup.experiment.training_settings())}
    return {
        **_options(setup, estimator),
        **(origin if given else {}),
        **({} if subsets is None else _of_subsets(subsets)),
        **setup.sources(checkpoints),
    }


def _of_subsets(subsets: dict) -> dict:
    settings = subsets["settings"]
    drawn = {key: settings[key] for key in OPTIONS if key in settings}
    return {"subsets": digest(subsets), **drawn}


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
