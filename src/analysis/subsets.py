"""Losses of models trained on subsets of the training set, as arrays of all seeds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from src.argument_types import seed_ids_text
from src.errors import UserError
from src.experiments import TRUTH, Experiment, Paths
from src.subsets.files import load_subsets, subsets_command


@dataclass(frozen=True)
class SubsetLosses:
    """Losses of models trained on the same subsets by several seeds.

    Attributes:
        masks: Which training samples are in each subset, bool (K, n_train).
        losses: Loss of each test sample, float32 (T, C, K, n_test).
        seeds: The T seeds.
        train_idx: Index of each training sample in its full split, (n_train,).
        test_idx: Index of each test sample in its full split, (n_test,).
    """

    masks: np.ndarray
    losses: np.ndarray
    seeds: list[int]
    train_idx: np.ndarray
    test_idx: np.ndarray

    @classmethod
    def of(cls, files: dict[int, dict]) -> SubsetLosses:
        """Return what the files of several seeds hold of the same subsets and samples."""
        first = next(iter(files.values()))
        return cls(
            first["masks"].numpy(),
            np.stack([content["losses"].numpy() for content in files.values()]),
            list(files),
            first["train_idx"].numpy(),
            first["test_idx"].numpy(),
        )

    def samples(self) -> np.ndarray:
        """Return the mean losses over checkpoints, float64 (T, K, n_test)."""
        return self.losses.mean(axis=1, dtype=np.float64)


def load_truth(paths: Paths, experiment: Experiment, ids: dict[int, int]) -> SubsetLosses:
    """Load the losses on the truth subsets of those of several seeds that have them.

    Args:
        paths: Every path below the root.
        experiment: The experiment.
        ids: Number of each seed that is asked for.

    Raises:
        UserError: Fewer than two seeds have them, a file is not sound, or the subsets or samples
            of two seeds differ.
    """
    there = [s for s in ids if paths.subsets(experiment, TRUTH, s).exists()]
    if len(there) < 2:
        lacking = seed_ids_text(ids[s] for s in ids if s not in there)
        command = subsets_command(paths, experiment, TRUTH)
        raise UserError(
            f"losses of models trained on subsets are there of {len(there)} of the "
            f"{len(ids)} seeds of {experiment.name} that have scores, and two are the least there "
            f"can be (missing: seed_id {lacking}): make them with: {command}"
        )
    files = {seed: load_subsets(paths, experiment, TRUTH, seed) for seed in there}
    first = files[there[0]]
    for seed, content in files.items():
        for key in ("masks", "train_idx", "test_idx"):
            if not content[key].equal(first[key]):
                raise UserError(
                    f"{paths.subsets(experiment, TRUTH, seed)} has other {key} than "
                    f"{paths.subsets(experiment, TRUTH, there[0])}: make it again with: "
                    f"{subsets_command(paths, experiment, TRUTH, ids[seed])} --overwrite"
                )
    return SubsetLosses.of(files)
