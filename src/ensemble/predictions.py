"""What the trained models of all seeds predict for a few samples."""

from __future__ import annotations

import numpy as np
import torch

from src.data.samples import Samples
from src.ensemble.checkpoint_files import as_trained
from src.ensemble.checkpoints import Checkpoints
from src.ensemble.draws import load_seeds
from src.ensemble.evaluation import predict
from src.ensemble.members import State
from src.ensemble.setup import Setup
from src.errors import UserError
from src.experiments import Experiment, Paths
from src.storage.files import digest


def load_predictions(
    paths: Paths,
    experiment: Experiment,
    checkpoints: dict[int, str],
    train: set[int],
    test: set[int],
) -> dict[str, dict[int, np.ndarray]]:
    """Compute what the last checkpoint of each seed predicts for some samples.

    Args:
        paths: Every path below the root.
        experiment: The experiment.
        checkpoints: SHA-256 of the checkpoints of each of the T seeds, by seed.
        train: Indices of train samples in their full split.
        test: Indices of test samples.

    Returns:
        Predicted labels (T,), int64, by sample's index, of "train" and of "test".

    Raises:
        UserError: A checkpoint is missing, does not belong to the experiment or is another.
        KeyError: There is no such sample.
    """
    ids = {seed: seed_id for seed_id, seed in enumerate(load_seeds())}
    first = next(iter(checkpoints))
    trained = as_trained(experiment, paths, first, ids[first])
    setup = Setup.load(trained, paths, torch.device("cpu"))
    last = []
    for seed, expected in checkpoints.items():
        found = Checkpoints(setup, paths).load(seed, ids[seed])
        if digest(found) != expected:
            raise UserError(
                f"{paths.checkpoint(experiment, seed, 0).parent} holds other checkpoints than the "
                "scores were computed from"
            )
        last.append(found[-1])

    return predictions(setup, last, train, test)


def predictions(
    setup: Setup, models: list[State], train: set[int], test: set[int]
) -> dict[str, dict[int, np.ndarray]]:
    """Compute what trained models predict for some samples.

    Args:
        setup: The experiment.
        models: The parameters of each of T models.
        train: Indices of train samples in their full split.
        test: Indices of test samples.

    Returns:
        Predicted labels (T,), int64, by sample's index, of "train" and of "test".

    Raises:
        KeyError: There is no such sample.
    """

    def of_all_models(samples: Samples, indices: set[int]) -> dict[int, np.ndarray]:
        ordered = sorted(indices)
        chosen = samples.at(samples.positions(torch.tensor(ordered, dtype=torch.int64)))
        predicted = [predict(setup.loss, params, chosen).cpu().numpy() for params in models]
        return dict(zip(ordered, np.stack(predicted, axis=1), strict=True))

    return {"train": of_all_models(setup.train, train), "test": of_all_models(setup.test, test)}
