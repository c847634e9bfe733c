"""Additional training step: how the test loss moves when a sample is trained on once more.

    τ(z_j, z) = L(z; θ_+j) − L(z; θ)

θ_+j is θ after one step of a fresh Adam on z_j alone, in eval mode. Negative: z_j helps z.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from src.data.samples import Samples
from src.evaluation import evaluate
from src.members import Params, PerSampleLoss, repeat, stack
from src.memory import in_chunks
from src.training import AdamSettings, Trainer


def additional_step(
    loss: PerSampleLoss,
    checkpoints: list[Params],
    train: Samples,
    test: Samples,
    *,
    adam: AdamSettings,
    chunk_size: int,
) -> Iterator[Tensor]:
    """Yield the scores of one chunk of training samples after another.

    Args:
        loss: The per-sample loss.
        checkpoints: Parameters θ of each of the C checkpoints.
        train: The training samples.
        test: The test samples.
        adam: Settings of the fresh optimiser.
        chunk_size: Members, each with its step on one sample, held at once.

    Yields:
        Scores (C, M, n_test) with M at most `chunk_size`.
    """
    loss.model.eval()
    base = evaluate(loss, stack(checkpoints), test)  # (C, n_test)

    def scores(positions: Tensor) -> Tensor:
        losses = []
        for checkpoint in checkpoints:
            members = repeat(checkpoint, len(positions))
            Trainer(loss, members, train, adam).step(positions[:, None])
            losses.append(evaluate(loss, members, test))
        return torch.stack(losses) - base[:, None]

    yield from in_chunks(torch.arange(len(train), device=train.device), chunk_size, scores)
