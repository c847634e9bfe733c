"""One seed's scores by one estimator: computed, or found computed, and saved."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from src.ensemble.checkpoints import Checkpoints
from src.ensemble.setup import Setup
from src.errors import DivergedError
from src.storage.files import check_settings, digest, remove_leftovers, save
from src.storage.locks import HeldError, holder, lock
from src.tda.estimator import Draws, Estimator, Scores, naming, require_finite
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
    experiment, options = setup.experiment, estimator.settings()
    if experiment.random_crop:  # which crops are drawn depends on how much is computed at once
        options["chunk_size"] = estimator.chunk_size
    trainer = holder(at.training_lock(experiment, seed))
    if trainer is not None:
        raise HeldError(str(trainer))
    checkpoints = trained.load(seed, seed_id)
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
                # For inputs that are random crops; without them nothing here depends on it.
                torch.manual_seed(seed)
                try:
                    results = estimator(Draws(setup, seed, checkpoints, pieces))
                    for method, result in results.items():
                        with naming(f"{method} seed {seed}"):
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
