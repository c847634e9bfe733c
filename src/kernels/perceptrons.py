"""Full-batch gradient descent of stacks of perceptrons by the compiled kernel.

A step of a small network is a score of torch's operations, each of which takes longer to be called
than to be computed. The kernel takes all steps of a network in one call.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from src.kernels.library import call, pointer

SAMPLES_AT_ONCE = 32


def take_steps(
    layers: Sequence[Tensor],
    inputs: Tensor,
    kept: Tensor,
    targets: Tensor,
    anchor: Sequence[Tensor],
    factors: tuple[float, float, float],
    n_steps: int,
    *,
    is_tanh: bool,
) -> None:
    """Take steps w ← shrink w − scale Σ_i ∂F_i/∂w + pull a of networks w, in place.

    `src.fragility.descent` has the definitions. All tensors are of one type of floats.

    Args:
        layers: w, of each layer (M, out, in + 1), contiguous.
        inputs: (features, n).
        kept: k, (M, n).
        targets: t, (M, classes, n).
        anchor: a, as layers.
        factors: scale, shrink and pull.
        n_steps: Number of steps.
        is_tanh: Whether the hidden units are those of tanh, and not of ReLU.
    """
    widths = [len(inputs), *(layer.shape[1] for layer in layers)]
    # Samples that fill the last block up have k = 0 and t = 0.
    blocks = [_blocks(tensor) for tensor in (inputs, kept[:, None], targets)]
    towards = [a.contiguous() for a in anchor]
    held = [
        torch.tensor(widths),
        *blocks,
        torch.tensor([pointer(layer) for layer in layers]),
        torch.tensor([pointer(a) for a in towards]),
        torch.tensor(factors, dtype=inputs.dtype),
    ]
    at_widths, *at = map(pointer, held)
    call(
        "descend",
        inputs.dtype,
        len(layers[0]),
        n_steps,
        len(layers),
        at_widths,
        len(blocks[0]),
        int(is_tanh),
        *at,
    )


def _blocks(rows: Tensor) -> Tensor:
    """Return rows (..., R, n) of n samples as (..., blocks, R, 32), with zeros at the end."""
    rows = F.pad(rows, (0, -rows.shape[-1] % SAMPLES_AT_ONCE))
    return rows.unflatten(-1, (-1, SAMPLES_AT_ONCE)).transpose(-3, -2).contiguous()
