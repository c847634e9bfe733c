"""Gradients with respect to layers that have a rule, from one forward and one backward pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from src.ensemble.members import Params, PerSampleLoss
from src.tda.general import within
from src.tda.layers.parts import Part
from src.tda.layers.rules import rule_of

Taken = TypeVar("Taken")


def layers_with_rules(model: nn.Module, params: Params) -> dict[str, frozenset[str]]:
    """Return the names of layers that have a rule, with the names in them of `params`."""
    layers = {}
    for name, module in model.named_modules():
        local = frozenset(p for p in ("weight", "bias") if prefix_of(name) + p in params)
        if local and rule_of(module) is not None:
            layers[name] = local
    return layers


def prefix_of(layer: str) -> str:
    """Return what precedes the names of a layer's parameters."""
    return f"{layer}." if layer else ""


def by_layers(
    loss: PerSampleLoss,
    params: Params,
    layers: dict[str, frozenset[str]],
    inputs: Tensor,
    labels: Tensor,
) -> dict[str, Part]:
    """Return the gradients of layers by their rules, without those that were not called once."""

    def part(name: str, x: Tensor, gradient: Tensor) -> Part | None:
        module = loss.model.get_submodule(name)
        return rule_of(module)(module, layers[name], x, gradient)

    parts = observe(loss, params, layers, inputs, labels, part)
    return {prefix_of(name): found for name, found in parts.items() if found is not None}


def observe(
    loss: PerSampleLoss,
    params: Params,
    layers: Collection[str],
    inputs: Tensor,
    labels: Tensor,
    take: Callable[[str, Tensor, Tensor], Taken],
    *,
    everywhere: bool = False,
) -> dict[str, Taken]:
    """Return what is taken of each layer's inputs and of the gradients of its outputs.

    Layers that were not called once, or that the loss does not reach, are left out.

    Args:
        loss: The per-sample loss.
        params: Trainable parameters.
        layers: Names of the layers.
        inputs: (N, ...).
        labels: (N, ...).
        take: Takes a layer's name, what it was given (N, ...), and the gradient of what it returned
            (N, ...), while the model has the loss's buffers: a rule may rest on running statistics.
        everywhere: Whether inputs have to be whole. Else a map may lack what no window of a pooling
            reaches, where gradients are 0.
    """
    if not layers:
        return {}
    modules = {name: loss.model.get_submodule(name) for name in layers}
    n_calls: Counter[str] = Counter()
    calls: dict[str, tuple[Tensor, GradientEdge]] = {}

    def recorder(name: str):  # noqa: ANN202
        def record(module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Tensor) -> None:
            n_calls[name] += 1
            x = args[0] if args else next(iter(kwargs.values()))
            if output.requires_grad and len(x) == len(output) == len(labels):
                # Not the tensor but where it was computed, lest it be changed in place afterwards.
                calls[name] = x.detach(), get_gradient_edge(output)

        return record

    def backward() -> dict[str, Taken]:
        handles = [
            module.register_forward_hook(recorder(name), with_kwargs=True)
            for name, module in modules.items()
        ]
        if everywhere:  # fused layers are computed as written where something waits at their input
            handles += [m.register_forward_pre_hook(_wait) for m in modules.values()]
        try:
            total = loss(leaves, inputs, labels).sum()
        finally:
            for handle in handles:
                handle.remove()
        for name in {name for name, n in n_calls.items() if n > 1} & calls.keys():
            del calls[name]
        edges = [edge for _, edge in calls.values()]
        gradients = torch.autograd.grad(total, edges, allow_unused=True) if edges else ()
        with torch.no_grad():
            return {
                name: take(name, x, gradient)
                for (name, (x, _)), gradient in zip(calls.items(), gradients, strict=True)
                if gradient is not None
            }

    with torch.enable_grad():
        leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
        return within(loss, leaves, backward)


def _wait(module: nn.Module, args: tuple) -> None:
    """Change nothing; that it is there is all."""
