"""What the trained models of all seeds predict for a few samples."""

from __future__ import annotations

import numpy as np
import torch

from src.checkpoints import Setup, as_trained
from src.data.samples import Samples
from src.draws import load_seeds
from src.evaluation import predict
from src.experiments import Experiment, Paths


def load_predictions(
    paths: Paths, experiment: Experiment, seeds: list[int], train: set[int], test: set[int]
) -> dict[str, dict[int, np.ndarray]]:
    """Compute what the last checkpoint of each seed predicts for some samples.

    Args:
        paths: Every path below the root.
        experiment: The experiment.
        seeds: The seeds.
        train: Positions of train samples.
        test: Positions of test samples.

    Returns:
        Predicted labels (T,), int64, by sample's position, of "train" and of "test".

    Raises:
        UserError: A checkpoint is missing or does not belong to the experiment.
    """
    ids = {seed: seed_id for seed_id, seed in enumerate(load_seeds())}
    trained = as_trained(experiment, paths, seeds[0], ids[seeds[0]])
    setup = Setup.load(trained, paths, torch.device("cpu"))
    last = [setup.load_checkpoints(seed, ids[seed])[-1] for seed in seeds]

    def of_all_seeds(samples: Samples, positions: set[int]) -> dict[int, np.ndarray]:
        ordered = sorted(positions)
        chosen = samples.at(torch.tensor(ordered, dtype=torch.int64))
        predicted = [predict(setup.loss, params, chosen).numpy() for params in last]
        return dict(zip(ordered, np.stack(predicted, axis=1), strict=True))

    return {"train": of_all_seeds(setup.train, train), "test": of_all_seeds(setup.test, test)}
