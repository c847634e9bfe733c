"""Grad-dot and grad-cos: how alike the loss gradients of two samples are.

    gd: τ(z_j, z) = g(z)ᵀ g(z_j)        gc: τ(z_j, z) = cos(g(z), g(z_j))

Positive: z_j helps z.
"""

from __future__ import annotations

import torch
from torch import Tensor

from src.data.samples import Samples
from src.members import Params, PerSampleLoss
from src.memory import gradient_batch
from src.tda.gradients import per_sample_gradients


def gradient_similarity(
    loss: PerSampleLoss, params: Params, train: Samples, test: Samples, *, chunk_size: int
) -> tuple[Tensor, Tensor]:
    """Return grad-dot and grad-cos of all pairs at one checkpoint, each (n_train, n_test).

    The cosine with a gradient that is zero is 0.

    Args:
        loss: The per-sample loss.
        params: Parameters θ of the checkpoint.
        train: The training samples.
        test: The test samples.
        chunk_size: Training samples whose gradients are held at once.
    """
    batch_size = min(chunk_size, gradient_batch(loss, params, train))
    dots, cosines = [], []
    for positions in torch.arange(len(train)).split(chunk_size):
        chunk = [
            per_sample_gradients(loss, params, *train[batch])
            for batch in positions.split(batch_size)
        ]
        train_norms = torch.cat([g.norms() for g in chunk])
        for test_batch in test.batches(batch_size):
            g_test = per_sample_gradients(loss, params, *test_batch)
            dot = torch.cat([g.inner(g_test) for g in chunk])
            norms = train_norms[:, None] * g_test.norms()
            dots.append(dot)
            cosines.append(torch.where(norms > 0, dot / norms, 0))
    n_test_batches = -(-len(test) // batch_size)
    return _grid(dots, n_test_batches), _grid(cosines, n_test_batches)


def _grid(blocks: list[Tensor], n_columns: int) -> Tensor:
    """Return the matrix whose blocks are given row by row."""
    rows = [blocks[i : i + n_columns] for i in range(0, len(blocks), n_columns)]
    return torch.cat([torch.cat(row, 1) for row in rows])
