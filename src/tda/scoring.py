"""The score files of one seed: found computed, or computed and saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from src.ensemble.checkpoint_files import GIVEN, are_given, training_command
from src.ensemble.checkpoints import Setup
from src.errors import DivergedError, UserError
from src.experiments import Experiment
from src.storage.files import check_settings, digest, remove_leftovers, save
from src.storage.locks import holder, lock
from src.tda.score_files import load_scores_of, score_command, score_identity
from src.tda.scores import Draws, Pieces, Scores, naming, require_finite


class Scoring:
    """The scores of methods that are computed together, of one seed: found computed, or computed.

    Args:
        setup: The experiment.
        seed: The seed, for names.
        seed_id: Its number, for commands.
        methods: The methods.
        options: Every option that changes the numbers, as the script's arguments name it.
        overwrite: Whether to compute files again that are there.
        retrains: Whether the methods repeat the training of the checkpoints.

    Raises:
        UserError: Checkpoints are missing or not sound, or were not trained here and `retrains`.
    """

    def __init__(
        self,
        setup: Setup,
        seed: int,
        seed_id: int,
        methods: tuple[str, ...],
        options: dict,
        *,
        overwrite: bool,
        retrains: bool = False,
    ) -> None:
        self.setup = setup
        self.seed = seed
        self.seed_id = seed_id
        self.methods = methods
        self.overwrite = overwrite
        at, experiment = setup.paths, setup.experiment
        given = are_given(experiment, at, seed, seed_id)
        if given and retrains:
            raise UserError(
                f"{at.checkpoint(experiment, seed, 0).parent} was given by --checkpoints, and how "
                "it was trained is not known here, so that it cannot be trained again without a "
                f"sample: train here with: {training_command(at, experiment, seed_id)} "
                "--overwrite, or train the checkpoints on with: "
                + score_command(at, experiment, methods[0], seed_id, {"protocol": "continue"})
            )
        self._checkpoints = setup.load_checkpoints(seed, seed_id)
        self._settings = {
            **options,
            **(_of_given(experiment) if given else {}),
            **setup.network_settings(),
            **setup.environment(),
            "checkpoints": digest(self._checkpoints),
            "train_samples": setup.train.digest(),
            "test_samples": setup.test.digest(),
        }
        self._paths = {method: at.scores(experiment, method, seed) for method in methods}
        self._partial = at.partial_scores(experiment, methods[0], seed)
        self._lock = at.scores_lock(experiment, methods[0], seed)
        self._wanted = {**options, "device": setup.device}
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

    def run(self, compute: Callable[[Draws], dict[str, Scores]]) -> Iterator[str]:
        """Compute and save the scores unless they are there; yield a line per file.

        Args:
            compute: Computes the scores of all pairs at all checkpoints, by method.

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
                    yield from self._compute(compute)
                    return
                self._partial.unlink(missing_ok=True)  # of a process killed before it did so itself
        for path in self._paths.values():
            yield f"{path}: finished before"

    def _is_finished(self) -> bool:
        if self.overwrite:
            return False
        at, experiment = self.setup.paths, self.setup.experiment
        there = {method: path for method, path in self._paths.items() if path.exists()}
        for method, path in there.items():  # every one is checked, also behind one that is missing
            content = load_scores_of(at, experiment, method, self.seed, self.seed_id, self._wanted)
            check_settings(path, content["settings"], self._settings, self._make)
        return len(there) == len(self._paths)

    def _pieces(self) -> Pieces:
        identity = score_identity(self.setup.experiment, self.methods[0], self.seed)
        return Pieces(
            self._partial, identity, self._settings, make=self._make, overwrite=self.overwrite
        )

    def _compute(self, compute: Callable[[Draws], dict[str, Scores]]) -> Iterator[str]:
        draws = Draws(self.setup, self.seed, self._checkpoints, self._pieces())
        # For inputs that are random crops; without them nothing here depends on it.
        torch.manual_seed(self.seed)
        try:
            results = compute(draws)
            for method, result in results.items():
                with naming(f"{method} seed {self.seed}"):
                    require_finite(result.scores.float())
        except DivergedError:
            self._partial.unlink(missing_ok=True)  # other settings must not find it in their way
            raise
        for method, result in results.items():
            content = _content(self.setup, method, self.seed, result, self._settings)
            save(self._paths[method], content)
            message = f": {result.message}" if result.message else ""
            yield f"{self._paths[method]}{message}"
        self._partial.unlink(missing_ok=True)


def _of_given(experiment: Experiment) -> dict:
    """Return what the settings of scores say of checkpoints that were given.

    The digest of those trained here follows from the hyper-parameters; these may change without
    the given ones, and with them the steps that are taken from there.
    """
    return {"origin": GIVEN, "hyperparameters": digest(experiment.training_settings())}


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
