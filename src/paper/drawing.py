"""What an exhibit is drawn from: the scores of its experiments, and what stands on a sheet."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from src.analysis.scores import ExperimentScores
from src.ensemble.predictions import load_predictions
from src.experiments import PAPER_METHODS, Experiment, Paths
from src.reports.pairs import Predict
from src.reports.scores import load_images, load_scores


@dataclass(frozen=True)
class Drawing:
    """The scores of an exhibit's experiments.

    Attributes:
        paths: Every path below the root.
        experiments: The experiments.
        seed_ids: Numbers of the seeds.
        allow_missing: Whether to go on with the seeds and methods that are there.
        alpha: Significance level, and false discovery rate.
    """

    paths: Paths
    experiments: list[Experiment]
    seed_ids: list[int]
    allow_missing: bool
    alpha: float

    def load(self, experiment: Experiment) -> ExperimentScores:
        """Load the scores of an experiment."""
        return load_scores(
            self.paths,
            experiment,
            self.seed_ids,
            allow_missing=self.allow_missing,
            methods=PAPER_METHODS,
        )

    def images(self, scores: ExperimentScores) -> dict[str, dict]:
        """Load the tensors of the samples that scores are of."""
        return load_images(self.paths, scores)

    def predict(self, scores: ExperimentScores) -> Predict:
        """Return what computes predictions of the models that scores are of."""
        return partial(load_predictions, self.paths, scores.experiment, scores.checkpoints)
