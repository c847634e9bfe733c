"""How well the models fit that the scores are about, as their checkpoints say."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from src.analysis.scores import ExperimentScores
from src.errors import UserError
from src.experiments import Paths
from src.storage.files import digest, load

QUANTITIES = ("train_accuracy", "test_accuracy", "train_loss", "test_loss")


@dataclass(frozen=True)
class Fit:
    """Accuracy and loss of the models at the last kept epoch.

    Attributes:
        by_seed: Columns of QUANTITIES, a row for each seed of which they are known; there are no
            accuracies where targets are values.
        unknown: The other seeds, by why it is so.
    """

    by_seed: pd.DataFrame
    unknown: dict[str, list[int]]

    @classmethod
    def of(cls, paths: Paths, scores: ExperimentScores) -> Fit:
        """Read the checkpoints that an experiment's scores were computed from."""
        known, unknown = {}, {}
        for seed, expected in scores.checkpoints.items():
            reason, last = _last_checkpoint(paths, scores, seed, expected)
            if reason:
                unknown.setdefault(reason, []).append(seed)
            else:
                known[seed] = {name: last[name] for name in QUANTITIES if name in last}
        return cls.known(known, unknown)

    @classmethod
    def known(
        cls, by_seed: dict[int, dict[str, float]], unknown: dict[str, list[int]] | None = None
    ) -> Fit:
        """Return what is known of each seed, QUANTITIES by name, and why of others it is not."""
        columns = [name for name in QUANTITIES if any(name in known for known in by_seed.values())]
        rows = {seed: [known.get(name) for name in columns] for seed, known in by_seed.items()}
        frame = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
        return cls(frame.rename_axis("seed"), unknown or {})

    def table(self) -> pd.DataFrame:
        """Return the numbers by seed, and below them mean and standard deviation (T − 1)."""
        return pd.concat([self.by_seed, self.by_seed.agg(["mean", "std"])]).rename_axis("seed")


def _last_checkpoint(
    paths: Paths, scores: ExperimentScores, seed: int, expected: str
) -> tuple[str, dict]:
    """Return why a seed's accuracy and loss are not known, or nothing, and its last checkpoint."""
    epochs = scores.experiment.kept_epochs
    try:
        # What makes a checkpoint is not asked for here: without one the page goes on.
        found = [load(paths.checkpoint(scores.experiment, seed, e), make="") for e in epochs]
    except UserError:
        return "their checkpoints are missing or damaged", {}
    if digest([content.get("model_state_dict") for content in found]) != expected:
        return "their checkpoints are not those that the scores were computed from", {}
    if not {"train_loss", "test_loss"} <= found[-1].keys():
        return "their checkpoints were saved without them", {}
    return "", found[-1]
