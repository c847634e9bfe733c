"""How a network's per-sample gradients are computed, found out by computing.

A layer's rule sees what the layer was given and what it returned. That is not all where a weight is
used without calling its layer, where a layer is called within another's parametrisation, where its
rows are not samples. So before rules are trusted, Σ_n w_n g_n of a few samples, with random w, is
held against what autograd says is the gradient of Σ_n w_n L_n. Since g does not know w, errors in
single samples do not cancel: they would have to be orthogonal to w, which has probability zero. The
parameters are moved by random amounts for this, so that nothing is hidden by one that is zero as
yet, such as a gate or an adapter. A layer whose gradient is zero all the same shows nothing, and is
not trusted.

Parameters without a layer to trust go the general way: `vmap(grad)` of one sample's loss, held
against autograd likewise; and at last one backward pass a sample, which is the definition.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from src.ensemble.independence import few, move, require_independence
from src.ensemble.members import Params, PerSampleLoss
from src.ensemble.memory import is_out_of_memory
from src.messages import say
from src.tda.by_layers import by_layers, layers_with_rules, prefix_of
from src.tda.general import batched, gradient, one_by_one
from src.tda.layers.parts import Formed, Part

N_CHECKED = 4  # samples


@dataclass(frozen=True)
class Way:
    """How the gradients with respect to each parameter are computed.

    Attributes:
        layers: Names of the layers whose rules are used, with the names in them of parameters.
        batched: Whether the gradients with respect to all other parameters are `vmap(grad)`.
    """

    layers: dict[str, frozenset[str]]
    batched: bool


def way_for(loss: PerSampleLoss, params: Params, inputs: Tensor, labels: Tensor) -> Way:
    """Return how to compute per-sample gradients of such a batch, found out once.

    Raises:
        UserError: A sample's loss depends on the other samples of the batch.
    """
    like = next(iter(params.values()))
    # One sample alone does not show whether samples see each other.
    batch = inputs.shape[1:], len(labels) > 1
    key = ("way", loss.criterion, tuple(params), like.dtype, like.device, *batch)
    if key not in loss.found:
        loss.found[key] = _find_way(loss, params, inputs, labels)
    return loss.found[key]


def compute(
    way: Way, loss: PerSampleLoss, params: Params, inputs: Tensor, labels: Tensor
) -> dict[str, Part]:
    """Return the gradients of a batch's losses, by what precedes their parameters' names."""
    parts = by_layers(loss, params, way.layers, inputs, labels)
    covered = {prefix + name for prefix, part in parts.items() for name in part.names}
    others = [name for name in params if name not in covered]
    if others:
        general = batched if way.batched else one_by_one
        gradients = general(loss, params, others, inputs, labels)
        parts |= {name: Formed({"": gradients[name]}) for name in others}
    return parts


def _find_way(loss: PerSampleLoss, params: Params, inputs: Tensor, labels: Tensor) -> Way:
    generator = torch.Generator().manual_seed(0)
    moved = move(params, generator)
    if len(labels) > 1:
        require_independence(loss, moved, inputs, labels)
    positions = few(len(labels), N_CHECKED).to(labels.device)
    batch = inputs[positions], labels[positions]
    weights = torch.randn(len(positions), generator=generator).to(next(iter(moved.values())))
    expected = gradient(loss, moved, list(moved), *batch, weights)
    layers = _trusted_layers(loss, moved, batch, weights, expected)
    covered = {prefix_of(layer) + name for layer, names in layers.items() for name in names}
    others = [name for name in params if name not in covered]
    reason = _why_not_batched(loss, moved, others, batch, weights, expected) if others else ""
    if reason:
        say(
            f"{type(loss.model).__name__}: gradients of {', '.join(others[:3])}"
            f"{f' and {len(others) - 3} more' if len(others) > 3 else ''} are computed one sample "
            f"at a time ({reason[:100]})"
        )
    return Way(layers, batched=not reason)


def _trusted_layers(
    loss: PerSampleLoss,
    params: Params,
    batch: tuple[Tensor, Tensor],
    weights: Tensor,
    expected: Params,
) -> dict[str, frozenset[str]]:
    layers = layers_with_rules(loss.model, params)
    try:
        parts = by_layers(loss, params, layers, *batch)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return {}  # activation checkpointing, for one, takes no gradients of what is in between
    return {
        layer: names
        for layer, names in layers.items()
        if (part := parts.get(prefix_of(layer))) is not None
        and all(g.any() for g in part.formed().values())
        and _agrees(prefix_of(layer), part, weights, expected)
    }


def _why_not_batched(
    loss: PerSampleLoss,
    params: Params,
    names: list[str],
    batch: tuple[Tensor, Tensor],
    weights: Tensor,
    expected: Params,
) -> str:
    """Return why `vmap(grad)` cannot be used; empty: it can."""
    try:
        found = batched(loss, params, names, *batch)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return (str(error).splitlines() or [type(error).__name__])[0]
    agree = all(_agrees(n, Formed({"": g}), weights, expected) for n, g in found.items())
    return "" if agree else "vmap gives other numbers"


def _agrees(prefix: str, part: Part, weights: Tensor, expected: Params) -> bool:
    """Say whether weighted sums of gradients are the expected ones, to rounding."""
    tolerance, rounding = (1e-9, 1e-13) if weights.dtype == torch.float64 else (1e-3, 1e-5)
    formed = {prefix + name: g.reshape(len(g), -1) for name, g in part.formed().items()}
    sizes = {name: (weights.abs() @ g.abs()).max() for name, g in formed.items()}
    largest = max(sizes.values())
    for name, g in formed.items():
        error = (weights @ g - expected[name].flatten()).abs().max()
        # Of a gradient that is zero but for rounding, its layer's others say how much that is.
        if not error <= tolerance * sizes[name] + rounding * largest:
            return False
    return True
