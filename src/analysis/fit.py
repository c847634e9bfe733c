"""How well the models fit that the scores are about, as their checkpoints say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from src.analysis.scores import ExperimentScores
from src.errors import UserError
from src.experiments import Paths, Task
from src.storage.files import digest, load

QUANTITIES = ("train_accuracy", "test_accuracy", "train_loss", "test_loss")


def quantities(task: Task) -> list[str]:
    """Return which of QUANTITIES there are of a task."""
    return [name for name in QUANTITIES if not (task.has_values and name.endswith("accuracy"))]


@dataclass(frozen=True)
class Fit:
    """Accuracy and loss of the models at the last kept epoch.

    Attributes:
        by_seed: Columns of QUANTITIES, a row for each seed of which they are known; without
            accuracies where targets are values.
        unknown: The other seeds, by why it is so.
    """

    by_seed: pd.DataFrame
    unknown: dict[str, list[int]]

    @classmethod
    def of(cls, paths: Paths, scores: ExperimentScores) -> Fit:
        """Read the checkpoints that an experiment's scores were computed from."""
        wanted = quantities(scores.experiment.task)
        known, unknown = {}, {}
        for seed, expected in scores.checkpoints.items():
            reason, last = _last_checkpoint(paths, scores, seed, expected)
            if reason:
                unknown.setdefault(reason, []).append(seed)
            else:
                known[seed] = {name: last[name] for name in wanted}
        return cls.known(known, wanted, unknown)

    @classmethod
    def known(
        cls,
        by_seed: dict[int, dict[str, float]],
        quantities: Sequence[str],
        unknown: dict[str, list[int]] | None = None,
    ) -> Fit:
        """Return the named quantities, known of each seed, and why of others they are not."""
        frame = pd.DataFrame.from_dict(by_seed, orient="index", columns=quantities)
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
    if not set(quantities(scores.experiment.task)) <= found[-1].keys():
        return "their checkpoints were saved without them", {}
    return "", found[-1]
