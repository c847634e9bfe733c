"""Linear layers: Σ_p b_p a_pᵀ over positions p."""

from __future__ import annotations

from torch import Tensor, nn

from src.tda.layers.parts import Formed, OuterProducts, Part
from src.tda.layers.rules import rule


@rule(nn.Linear)
def linear(
    layer: nn.Linear, wanted: frozenset[str], inputs: Tensor, gradient: Tensor
) -> Part | None:
    """Return the gradients; inputs (N, ..., I), gradient (N, ..., O).

    Where there is one position they are not formed; where there are many, that is cheaper.
    """
    if inputs.ndim == 1:
        return None  # one sample without a dimension for the batch
    a = inputs.reshape(len(inputs), -1, layer.in_features)
    b = gradient.reshape(len(gradient), -1, layer.out_features)
    if a.shape[1] == 1 and "weight" in wanted:
        return OuterProducts(b[:, 0], a[:, 0], "bias" in wanted)
    formed = {}
    if "weight" in wanted:
        formed["weight"] = b.mT @ a
    if "bias" in wanted:
        formed["bias"] = b.sum(1)
    return Formed(formed)
