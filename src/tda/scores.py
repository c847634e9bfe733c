"""One seed's scores by one estimator: computed, or found computed, and saved."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from src.ensemble.checkpoints import Checkpoints
from src.ensemble.members import Params
from src.ensemble.setup import Setup
from src.errors import DivergedError
from src.storage.files import check_settings, digest, remove_leftovers, save
from src.storage.locks import HeldError, holder, lock
from src.tda.estimator import Draws, Estimator, Scores, compute
from src.tda.pieces import PartialFile, Pieces
from src.tda.score_files import load_scores_of, score_command, score_identity


def score_seed(
    trained: Checkpoints,
    seed: int,
    seed_id: int,
    estimator: Estimator,
    *,
    overwrite: bool,
) -> Iterator[str]:
    """Compute and save the scores of methods that are computed together; yield a line per file.

    Args:
        trained: The experiment's checkpoints.
        seed: The seed, for names.
        seed_id: Its number, for commands.
        estimator: Computes the scores.
        overwrite: Whether to compute files again that are there.

    Raises:
        UserError: Checkpoints are missing, a file is there that is another, is not sound or has
            other settings, or it cannot be written.
        DivergedError: A score is not finite, or a solver or a retraining diverged; nothing is kept.
        HeldError: Another process computes these files, or trains the seed.
    """
    setup, at, methods = trained.setup, trained.paths, estimator.methods
    experiment, options = setup.experiment, options_of(estimator, setup)
    trainer = holder(at.training_lock(experiment, seed))
    if trainer is not None:
        raise HeldError(str(trainer))
    checkpoints = trained.load(seed, seed_id)
    settings = score_settings(estimator, setup, checkpoints)
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
                # Random crops come from one stream over all pieces, which a later process cannot go
                # on with.
                pieces = (
                    Pieces()
                    if experiment.random_crop
                    else PartialFile(
                        partial,
                        score_identity(experiment, methods[0], seed),
                        settings,
                        make=make,
                        overwrite=overwrite,
                    )
                )
                try:
                    results = compute(estimator, Draws(setup, seed, checkpoints, pieces))
                except DivergedError:
                    partial.unlink(missing_ok=True)  # other settings must not find it in their way
                    raise
                for method, result in results.items():
                    save(paths[method], score_content(setup, method, seed, result, settings))
                    message = f": {result.message}" if result.message else ""
                    yield f"{paths[method]}{message}"
                partial.unlink(missing_ok=True)
                return
            partial.unlink(missing_ok=True)  # of a process killed just before it did so itself
    for path in paths.values():
        yield f"{path}: finished before"


def options_of(estimator: Estimator, setup: Setup) -> dict:
    """Return every option that changes the numbers, as the script's arguments name it."""
    options = estimator.settings()
    if (
        setup.experiment.random_crop
    ):  # which crops are drawn depends on how much is computed at once
        options["chunk_size"] = estimator.chunk_size
    return options


def score_settings(estimator: Estimator, setup: Setup, checkpoints: list[Params]) -> dict:
    """Return what decides the numbers of scores, and what computed them."""
    return {
        **options_of(estimator, setup),
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
        "train_idx": setup.train.indices,
        "test_idx": setup.test.indices,
        **score_identity(setup.experiment, method, seed),
        "settings": settings,
        **result.extra,
    }
