"""Embeddings: a row's gradient is the sum of the output's gradients where the row was taken."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from src.tda.layers.parts import Formed
from src.tda.layers.rules import rule


@rule(
    nn.Embedding,
    covers=lambda layer: not layer.scale_grad_by_freq and layer.max_norm is None,
)
def embedding(
    layer: nn.Embedding, wanted: frozenset[str], inputs: Tensor, gradient: Tensor
) -> Formed:
    """Return the gradients; inputs (N, ...) of ids, gradient (N, ..., D)."""
    del wanted  # there is one parameter
    n, (n_rows, width) = len(inputs), (layer.num_embeddings, layer.embedding_dim)
    first_rows = n_rows * torch.arange(n, device=inputs.device)
    rows = inputs.reshape(n, -1) + first_rows[:, None]
    weight = gradient.new_zeros(n * n_rows, width)
    weight.index_add_(0, rows.flatten(), gradient.reshape(-1, width))
    weight = weight.view(n, n_rows, width)
    if layer.padding_idx is not None:
        weight[:, layer.padding_idx] = 0
    return Formed({"weight": weight})
