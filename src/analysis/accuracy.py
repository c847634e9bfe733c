"""Reliability and accuracy of all methods, in tables.

Accuracy is how far scores agree with the losses of models trained on subsets, and with
leave-one-out of other seeds (`src.analysis.lds`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from src.analysis.bootstrap import Estimate
from src.analysis.draws_bought import accuracy_by_draws
from src.analysis.lds import Agreement, agreement_with, datamodelling_scores
from src.analysis.scores import ExperimentScores
from src.analysis.significance import false_discoveries_controlled
from src.analysis.stats import pvalues
from src.analysis.subsets import SubsetLosses

REFERENCE = "loo"  # whose mean over other seeds is a second truth


@dataclass(frozen=True)
class Accuracy:
    """What accuracy is known by.

    Attributes:
        samples: The scores of each draw, (T, n_train, n_test), by method.
        masks: Which training samples are in each subset, bool (K, n_train).
        truth: Losses of models trained on subsets, (T, K, n_test).
        by_subsets: Linear datamodelling scores, by method.
        by_loo: Agreement with leave-one-out of other seeds, by method; empty without it.
    """

    samples: dict[str, np.ndarray]
    masks: np.ndarray
    truth: np.ndarray
    by_subsets: dict[str, Agreement]
    by_loo: dict[str, Agreement]

    @classmethod
    def of(cls, scores: ExperimentScores, losses: SubsetLosses) -> Accuracy:
        """Return the accuracy of scores of the same seeds as losses."""
        samples, truth = scores.samples(), losses.samples()
        return cls(
            samples,
            losses.masks,
            truth,
            datamodelling_scores(samples, losses.masks, truth),
            agreement_with(samples, REFERENCE) if REFERENCE in samples else {},
        )

    @property
    def ceiling(self) -> Estimate:
        """The losses of one half of the seeds against those of the other."""
        return next(iter(self.by_subsets.values())).ceiling

    def by_method(self, alpha: float) -> pd.DataFrame:
        """Return reliability and accuracy, a row for each method.

        Args:
            alpha: False discovery rate of the pairs that count as reliable.
        """
        rows = {}
        for method, own in self.by_subsets.items():
            reliable = false_discoveries_controlled(pvalues(self.samples[method]), alpha).mean()
            rows[method] = {"reliability": reliable}
            rows[method] |= {version: e.value for version, e in own.versions.items()}
            if self.by_loo:
                rows[method]["loo_of_other"] = self.by_loo[method].versions["mean_other"].value
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")

    def by_draws(self, trainings: dict[str, int], seconds: dict[str, float]) -> pd.DataFrame:
        """Return what means over draws reach, and what they take; see `accuracy_by_draws`."""
        return accuracy_by_draws(self.samples, self.masks, self.truth, trainings, seconds)

    def with_limits(self) -> pd.DataFrame:
        """Return all numbers with their confidence limits, a row for each."""
        rows = [
            (statistic, version, method, estimate)
            for statistic, by_method in (("lds", self.by_subsets), ("loo", self.by_loo))
            for method, own in by_method.items()
            for version, estimate in own.versions.items()
        ]
        rows.append(("lds", "ceiling", "losses", self.ceiling))
        return pd.DataFrame(
            [(*key, e.value, *e.interval(-1.0, 1.0)) for *key, e in rows],
            columns=["statistic", "version", "method", "value", "low", "high"],
        )
