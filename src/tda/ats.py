"""Additional training step: how the test loss moves when a sample is trained on once more.

    τ(z_j, z) = L(z; θ_+j) − L(z; θ)

θ_+j is θ after one step of a fresh Adam on z_j alone, in eval mode. Negative: z_j helps z.

All steps begin at θ: their gradients are the per-sample gradients there, from one backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from src.data.samples import Samples
from src.ensemble.evaluation import evaluate
from src.ensemble.members import PerSampleLoss, State, stack
from src.ensemble.memory import in_chunks, steps_at_once
from src.ensemble.optimizer import OptimizerSettings
from src.tda.estimator import Draws, Scores, collect
from src.tda.gradients import per_sample_gradients


@dataclass(frozen=True)
class AdditionalStep:
    """The estimator `ats`.

    Attributes:
        chunk_size: Members, each with its own step, at once; None: what fits.
    """

    methods: ClassVar[tuple[str, ...]] = ("ats",)
    retrains: ClassVar[bool] = False

    chunk_size: int | None = None

    def settings(self) -> dict:
        """Return every option that changes the numbers."""
        return {}

    def __call__(self, draws: Draws) -> dict[str, Scores]:
        """Return the scores of all pairs at all checkpoints, by method."""
        setup = draws.setup
        chunk_size = self.chunk_size or steps_at_once(setup.loss, draws.checkpoints[0], setup.train)

        def chunks(train: Samples) -> Iterator[Tensor]:
            return additional_step(
                setup.loss,
                draws.checkpoints,
                train,
                setup.test,
                optimizer=setup.optimizer,
                chunk_size=chunk_size,
                measure=setup.measure,
            )

        return {"ats": Scores(collect(draws, setup.train, chunks, f"ats seed {draws.seed}"))}


def additional_step(
    loss: PerSampleLoss,
    checkpoints: list[State],
    train: Samples,
    test: Samples,
    *,
    optimizer: OptimizerSettings,
    chunk_size: int,
    measure: PerSampleLoss | None = None,
) -> Iterator[Tensor]:
    """Yield the scores of one chunk of training samples after another.

    Args:
        loss: The per-sample loss.
        checkpoints: States θ of each of the C checkpoints.
        train: The training samples.
        test: The test samples.
        optimizer: Settings of the fresh optimiser.
        chunk_size: Members, each with its step on one sample, held at once: their parameters, no
            moments of an optimiser.
        measure: What of a test sample is attributed; None: the loss.

    Yields:
        Scores (C, M, n_test) with M at most `chunk_size`.
    """
    loss.model.eval()
    # A step moves a confident sample's loss by less than the usual form of it has digits for.
    loss, measure = loss.accurate, (measure or loss).accurate
    base = evaluate(measure, stack(checkpoints), test)  # (C, n_test)

    def scores(chunk: range) -> Tensor:
        losses = []
        for checkpoint in checkpoints:
            samples = train[chunk.start : chunk.stop]
            at, params = loss.at(checkpoint)
            of_test, _ = measure.at(checkpoint)
            gradients = per_sample_gradients(at, params, *samples).stack()
            losses.append(evaluate(of_test, optimizer.first_step(params, gradients), test))
        return torch.stack(losses) - base[:, None]

    yield from in_chunks(range(len(train)), chunk_size, scores)
