"""Gradients with respect to layers that have a rule, from one forward and one backward pass."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from src.ensemble.members import Params, PerSampleLoss
from src.kernels.elements import Elements
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

    def part(name: str, x: Tensor | Elements, gradient: Tensor) -> Part | None:
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
    take: Callable[[str, Tensor | Elements, Tensor], Taken],
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
        everywhere: Whether inputs and maps have to be whole. Else a convolution may come with the
            elements alone that a pooling leaves of its map, and with their gradient.
    """
    if not layers:
        return {}
    recorders = {name: _Recorder(len(labels)) for name in layers}

    def backward() -> dict[str, Taken]:
        handles = []
        for name, recorder in recorders.items():
            module = loss.model.get_submodule(name)
            handles.append(module.register_forward_hook(recorder, with_kwargs=True))
            if everywhere:  # fused layers are computed as written where something waits at inputs
                handles.append(module.register_forward_pre_hook(_wait))
        try:
            total = loss(leaves, inputs, labels).sum()
        finally:
            for handle in handles:
                handle.remove()
        calls = {name: r.call for name, r in recorders.items() if r.n_calls == 1 and r.call}
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


class _Recorder:
    """Keeps what a layer was given and where its output was computed, of the last of its calls.

    Args:
        n_samples: Samples in the batch.
    """

    def __init__(self, n_samples: int) -> None:
        self.n_samples = n_samples
        self.n_calls = 0
        self.call: tuple[Tensor | Elements, GradientEdge] | None = None

    def __call__(
        self, module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Tensor
    ) -> None:
        """Keep a call, as a forward hook."""
        self.n_calls += 1
        x = args[0] if args else next(iter(kwargs.values()))
        if output.requires_grad and len(x) == len(output) == self.n_samples:
            # Not the tensor but where it was computed, lest it be changed in place afterwards.
            self.call = x.detach(), get_gradient_edge(output)

    def of_elements(self, layer: nn.Conv2d, elements: Elements) -> None:
        """Keep a call of a convolution, of whose map there is what pooling leaves."""
        self.n_calls += 1
        if elements.elements.requires_grad and elements.elements.shape[1] == self.n_samples:
            self.call = elements, get_gradient_edge(elements.elements)


def _wait(module: nn.Module, args: tuple) -> None:
    """Change nothing; that it is there is all."""
