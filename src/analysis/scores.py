"""The scores of an experiment as arrays: all methods and seeds, and what they were made with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np
import torch

from src.analysis.rows import Rows
from src.analysis.significance import false_discovery_rates
from src.analysis.stats import draw_samples, pvalues
from src.errors import UserError
from src.experiments import METHODS, Experiment, Scored
from src.storage.files import digest


def shared(seeds: Iterable[list[int]]) -> list[int]:
    """Return the seeds that stand in each of several lists, in the first one's order."""
    first, *others = seeds
    return [seed for seed in first if all(seed in other for other in others)]


@dataclass(frozen=True)
class ExperimentScores:
    """All scores of an experiment.

    Attributes:
        experiment: The experiment.
        scores: Scores float32 (T, C, n_scored, n_test), by method.
        seeds: The T seeds of each method.
        train_idx: Index of each training sample that is scored in its full split, (n_scored,).
        test_idx: Index of each test sample in its full split, (n_test,).
        options: What the scores of each method were computed with, apart from the machine.
        machines: Versions of torch and kinds of device that computed them.
        digests: SHA-256 of the "train" and "test" samples that they were computed from.
        checkpoints: SHA-256 of each seed's checkpoints, by seed.
        floors: Leave-one-out's numerical floor (C, n_test), by seed; empty without it.
        bases: Losses L(z; θ) (C, n_test) that leave-one-out's are compared with, by seed.
        n_scored_of: Number of training samples of the models, of which the scored ones are a random
            sample; None: they are all.
        unused: Seeds that there are scores of, but not of all that is compared, by method.
        missing: Methods that are not shown: they were asked for and have no scores or too few, or
            were not, and lack some of the seeds.
    """

    experiment: Experiment
    scores: dict[str, np.ndarray]
    seeds: dict[str, list[int]]
    train_idx: np.ndarray
    test_idx: np.ndarray
    options: dict[str, dict]
    machines: list[str]
    digests: dict[str, str]
    checkpoints: dict[int, str]
    floors: dict[int, np.ndarray]
    bases: dict[int, np.ndarray]
    n_scored_of: int | None = None
    unused: dict[str, list[int]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    @cached_property
    def digest(self) -> str:
        """Digest of all that a page is made from: two pages of one digest show the same scores."""
        arrays = {method: torch.from_numpy(scores) for method, scores in self.scores.items()}
        indices = [torch.from_numpy(found) for found in (self.train_idx, self.test_idx)]
        of_loo = [
            {seed: torch.from_numpy(own) for seed, own in by_seed.items()}
            for by_seed in (self.floors, self.bases)
        ]
        made_with = [self.options, self.machines, self.checkpoints]
        of = [self.experiment.name, self.seeds, self.n_train]
        return digest([*of, arrays, indices, of_loo, made_with])

    @property
    def n_train(self) -> int:
        """Number of training samples of the models."""
        return self.n_scored_of or len(self.train_idx)

    @cached_property
    def rows(self) -> Rows:
        """The training samples that are scored."""
        whose = [self.experiment.task.name, self.experiment.size, self.train_idx.tolist()]
        return Rows(len(self.train_idx), self.n_train, int(digest(whose)[:16], 16))

    @property
    def n_checkpoints(self) -> int:
        """Number of checkpoints C."""
        return next(iter(self.scores.values())).shape[1]

    @property
    def n_draws(self) -> int:
        """Number of seeds T, the same for all methods."""
        return len(self.common_seeds)

    @property
    def common_seeds(self) -> list[int]:
        """The seeds that all methods have."""
        return shared(self.seeds.values())

    @property
    def are_given(self) -> bool:
        """Whether the checkpoints were trained elsewhere, so that nothing is known of how."""
        return any("origin" in options for options in self.options.values())

    @property
    def draws(self) -> str:
        """How many seeds there are, and what is left out for it, for people."""
        words = f"{self.n_draws} seeds"
        for shown, why in (
            (True, ", those that all have; left out: "),
            (False, "; not shown, since others are missing: "),
        ):
            if unused := self.unused_of(shown=shown):
                words += why + ", ".join(f"{len(own)} of {m}" for m, own in unused.items())
        return words

    def unused_of(self, *, shown: bool) -> dict[str, list[int]]:
        """Return the unused seeds of the methods that are compared, or of the others."""
        return {m: own for m, own in self.unused.items() if (m in self.scores) == shown}

    def at_seeds(self, seeds: list[int]) -> ExperimentScores:
        """Return the scores of these seeds alone, of the methods that have them all."""
        kept, unused = {}, dict(self.unused)
        for method, own in self.seeds.items():
            complete = set(seeds) <= set(own)
            if complete:
                at = [own.index(seed) for seed in seeds]
                whole = self.scores[method]
                kept[method] = whole if own == seeds else whole[at]
            if left := [seed for seed in own if not complete or seed not in seeds]:
                unused[method] = unused.get(method, []) + left
        return replace(
            self,
            scores=kept,
            seeds={method: list(seeds) for method in kept},
            options={method: self.options[method] for method in kept},
            checkpoints={seed: self.checkpoints[seed] for seed in seeds},
            floors={seed: self.floors[seed] for seed in seeds if "loo" in kept},
            bases={seed: self.bases[seed] for seed in seeds if "loo" in kept},
            unused=unused,
        )

    def trainings(self) -> dict[str, int]:
        """Return how many trainings a draw of each method takes (`Method.trainings`)."""
        scored = partial(Scored, len(self.train_idx), self.n_checkpoints)
        return {m: METHODS[m].trainings(scored(self.options[m])) for m in self.scores}

    def training_settings(self) -> dict[str, object]:
        """Return the hyper-parameters that the experiment's name stands for.

        A backbone, and whether it saw crops, are not among them: `options` know which it was.
        """
        unknown = {"experiment", "backbone", "random_crop"}
        settings = self.experiment.training_settings()
        return {key: value for key, value in settings.items() if key not in unknown}

    def settings(self) -> dict[str, object]:
        """Return what the scores were made with, for people."""
        what = "steps from the given checkpoints" if self.are_given else "training"
        return {
            what: self.training_settings(),
            **{method: options for method, options in self.options.items() if options},
            "computed with": self.machines,
            "seeds": self.common_seeds,
            **({"seeds left out": self.unused} if self.unused else {}),
        }

    def test_position(self, index: int) -> int:
        """Return the position of a test sample, given its index in its full split.

        Raises:
            UserError: The subset does not hold it.
        """
        positions = np.flatnonzero(self.test_idx == index)
        if len(positions) == 0:
            some = ", ".join(map(str, self.test_idx[:5]))
            raise UserError(
                f"test sample {index} is not in the test subset of {self.experiment.task.name}, "
                f"whose {len(self.test_idx)} indices begin with {some}"
            )
        return int(positions[0])

    def samples(self, n_checkpoints: int | None = None) -> dict[str, np.ndarray]:
        """Return the samples (T, n_scored, n_test) of each method over its last checkpoints."""
        if n_checkpoints in (None, self.n_checkpoints):
            return self._over_all_checkpoints
        return {m: draw_samples(scores, n_checkpoints) for m, scores in self.scores.items()}

    @cached_property
    def _over_all_checkpoints(self) -> dict[str, np.ndarray]:
        return {m: draw_samples(scores, self.n_checkpoints) for m, scores in self.scores.items()}

    @cached_property
    def pvalues(self) -> dict[str, np.ndarray]:
        """The t-test's p-values (n_scored, n_test) over all checkpoints, by method."""
        return {method: pvalues(samples) for method, samples in self.samples().items()}

    @cached_property
    def rates(self) -> dict[str, np.ndarray]:
        """The least false discovery rates (n_scored, n_test) that keep each pair, by method."""
        return {method: false_discovery_rates(p) for method, p in self.pvalues.items()}
