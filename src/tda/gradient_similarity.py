"""Grad-dot and grad-cos: how alike the loss gradients of two samples are.

    gd: τ(z_j, z) = g(z)ᵀ g(z_j)        gc: τ(z_j, z) = cos(g(z), g(z_j))

Positive: z_j helps z.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from src.data.samples import Samples
from src.ensemble.members import PerSampleLoss, State
from src.ensemble.memory import gradient_batch, in_chunks, vectors_at_once
from src.tda.estimator import Draws, Scores, each_checkpoint
from src.tda.gradients import per_sample_gradients


@dataclass(frozen=True)
class GradientSimilarity:
    """The estimators `gd` and `gc`, from the same gradients.

    Attributes:
        chunk_size: Training samples whose gradients are held at once; None: what fits.
    """

    methods: ClassVar[tuple[str, ...]] = ("gd", "gc")
    retrains: ClassVar[bool] = False

    chunk_size: int | None = None

    def settings(self) -> dict:
        """Return every option that changes the numbers."""
        return {}

    def __call__(self, draws: Draws) -> dict[str, Scores]:
        """Return the scores of all pairs at all checkpoints, by method."""
        setup = draws.setup

        def similarity(checkpoint: State) -> tuple[Tensor, Tensor]:
            return gradient_similarity(
                setup.loss,
                checkpoint,
                setup.train,
                setup.test,
                chunk_size=self.chunk_size or vectors_at_once(setup.loss, checkpoint, setup.train),
                measure=setup.measure,
            )

        pairs = each_checkpoint(draws, similarity, f"gd and gc seed {draws.seed}")
        dot, cosine = (torch.stack(scores) for scores in zip(*pairs, strict=True))
        return {"gd": Scores(dot), "gc": Scores(cosine)}


def gradient_similarity(
    loss: PerSampleLoss,
    checkpoint: State,
    train: Samples,
    test: Samples,
    *,
    chunk_size: int,
    measure: PerSampleLoss | None = None,
) -> tuple[Tensor, Tensor]:
    """Return grad-dot and grad-cos of all pairs at one checkpoint, each (n_train, n_test).

    The cosine with a gradient that is zero is 0.

    Args:
        loss: The per-sample loss.
        checkpoint: State θ.
        train: The training samples.
        test: The test samples.
        chunk_size: Training samples whose gradients are held at once.
        measure: What of a test sample is attributed; None: the loss.
    """
    of_test, _ = (measure or loss).at(checkpoint)
    loss, params = loss.at(checkpoint)
    batch_size = min(chunk_size, gradient_batch(loss, params, train))

    def rows(chunk: range) -> tuple[Tensor, Tensor]:
        held = [
            *in_chunks(
                chunk,
                batch_size,
                lambda batch: per_sample_gradients(loss, params, *train[batch.start : batch.stop]),
            )
        ]
        train_norms = torch.cat([g.norms() for g in held])

        def block(batch: range) -> tuple[Tensor, Tensor]:
            g_test = per_sample_gradients(of_test, params, *test[batch.start : batch.stop])
            dot = torch.cat([g.inner(g_test) for g in held])
            norms = train_norms[:, None] * g_test.norms()
            # With a norm that has overflowed the quotient would be 0, and look like a cosine.
            cosine = dot / norms.where(norms.isfinite(), torch.nan)
            return dot, torch.where(norms == 0, 0, cosine.clamp(-1, 1))  # by rounding beyond 1

        return _concatenate(in_chunks(range(len(test)), batch_size, block), dim=1)

    return _concatenate(in_chunks(range(len(train)), chunk_size, rows), dim=0)


def _concatenate(pairs: Iterable[tuple[Tensor, Tensor]], dim: int) -> tuple[Tensor, Tensor]:
    dots, cosines = zip(*pairs, strict=True)
    return torch.cat(dots, dim), torch.cat(cosines, dim)
