"""Full-batch gradient descent of many perceptrons at once.

A stack is M networks of one shape, ReLU or tanh between their layers and cross-entropy behind them.
Layer l of all is one tensor (M, out, in + 1), whose last column is the bias; activations have a row
of ones for it, so that a layer's step is one product. Activations are (M, features, n): samples are
last, so that the products of small layers have one long side.

What is descended is, for the weights w of one network,

    F(w) = (1/n) Σ_i [k_i LSE(f_i(w)) − t_iᵀ f_i(w)] + (decay/2) ‖w − a‖²

with the outputs f_i, and LSE the logarithm of summed exponentials. With k_i = 1, t_i the one-hot
label and a = 0 this is the mean cross-entropy with weight decay. Sample j is left out by k_j = 0
and t_j = 0. The proximal Bregman objective has this form, too (`src.fragility.response`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from src.ensemble.members import Params, Stack
from src.kernels.library import are_for
from src.kernels.perceptrons import take_steps as kernel_steps

Layers = list[Tensor]  # of a stack, each (M, out, in + 1)
Phases = Sequence[tuple[float, int]]  # learning rates, and the number of steps at each

MEMBERS_AT_ONCE = 26  # whose activations stay in cache; measured at widths 5 to 50


@dataclass(frozen=True)
class Objective:
    """F of each of M networks.

    Attributes:
        inputs: (features, n), for all networks.
        kept: k, (M, n).
        targets: t, (M, classes, n).
        decay: Of the squared distance to the anchor.
        activation: Of the hidden units, "relu" or "tanh".
        anchor: a; None: 0.
    """

    inputs: Tensor
    kept: Tensor
    targets: Tensor
    decay: float
    activation: str
    anchor: Layers | None = None

    def of(self, members: slice | Tensor) -> Objective:
        """Return the objective of some of the networks."""
        anchor = None if self.anchor is None else [a[members] for a in self.anchor]
        return replace(self, kept=self.kept[members], targets=self.targets[members], anchor=anchor)


def cross_entropy_objective(
    data: tuple[Tensor, Tensor],
    n_classes: int,
    left_out: list[int | None],
    decay: float,
    activation: str,
) -> Objective:
    """Return the mean cross-entropy with weight decay of networks that each leave out a sample.

    Args:
        data: Inputs (n, features) and labels (n,).
        n_classes: Number of classes.
        left_out: For each network the sample that it leaves out, whose loss is taken out of the
            sum, which is still divided by n; None: nothing.
        decay: The weight decay, of all parameters.
        activation: Of the hidden units.
    """
    inputs, labels = data
    kept = inputs.new_ones(len(left_out), len(labels))
    for m, j in enumerate(left_out):
        if j is not None:
            kept[m, j] = 0
    one_hot = torch.nn.functional.one_hot(labels, n_classes).T.to(inputs.dtype)
    return Objective(inputs.T.contiguous(), kept, kept[:, None] * one_hot, decay, activation)


def to_layers(stack: Stack) -> Layers:
    """Return a stack of linear layers' weights and biases, in their order, as layers."""
    values = list(stack.values())
    return [
        torch.cat([weight, bias[..., None]], -1)
        for weight, bias in zip(values[::2], values[1::2], strict=True)
    ]


def to_stack(layers: Layers, like: Params) -> Stack:
    """Return layers as a stack of parameters with the names of others."""
    parts = [part for layer in layers for part in (layer[..., :-1], layer[..., -1])]
    return {name: part.contiguous() for name, part in zip(like, parts, strict=True)}


def descend(
    layers: Layers,
    objective: Objective,
    phases: Phases,
    advance: Callable[[int], object] = lambda _: None,
) -> Layers:
    """Return networks after steps of gradient descent; the given ones are left as they are.

    Args:
        layers: The networks.
        objective: What is descended.
        phases: Learning rates, and the number of steps at each.
        advance: Called with how many networks are done.
    """
    found = []
    for start in range(0, len(layers[0]), MEMBERS_AT_ONCE):
        some = slice(start, start + MEMBERS_AT_ONCE)
        found.append([layer[some].clone() for layer in layers])
        for rate, steps in phases:
            _descend(found[-1], objective.of(some), rate, steps)
        advance(len(found[-1][0]))
    return [torch.cat(parts) for parts in zip(*found, strict=True)]


def _descend(layers: Layers, objective: Objective, rate: float, steps: int) -> None:
    """Change networks in place."""
    scale, shrink = rate / objective.inputs.shape[1], 1 - rate * objective.decay
    pull = 0.0 if objective.anchor is None else rate * objective.decay
    anchor = objective.anchor or layers
    if are_for(objective.inputs, *layers):
        kernel_steps(
            layers,
            objective.inputs,
            objective.kept,
            objective.targets,
            anchor,
            (scale, shrink, pull),
            steps,
            is_tanh=objective.activation == "tanh",
        )
        return
    pass_ = Pass(layers, objective)
    for _ in range(steps):
        for layer, below, of_outputs in pass_.backward(pass_.outputs()):
            layer.baddbmm_(of_outputs, below.mT, beta=shrink, alpha=-scale)
        if pull:
            for layer, towards in zip(layers, anchor, strict=True):
                layer.add_(towards, alpha=pull)


def values_and_gradients(layers: Layers, objective: Objective) -> tuple[Tensor, Tensor]:
    """Return F (M,) and ∇F (M, P) of each network, in the order of `flat`."""
    n, pass_ = objective.inputs.shape[1], Pass(layers, objective)
    outputs = pass_.outputs()
    found = [g @ below.mT / n for _, below, g in pass_.backward(outputs)]
    anchor = objective.anchor or [torch.zeros_like(layer) for layer in layers]
    away = [layer - a for layer, a in zip(layers, anchor, strict=True)]
    fit = objective.kept * outputs.logsumexp(1) - (objective.targets * outputs).sum(1)
    distance = sum(a.square().sum((1, 2)) for a in away)
    slopes = [g + objective.decay * a for g, a in zip(reversed(found), away, strict=True)]
    return fit.mean(1) + objective.decay / 2 * distance, flat(slopes)


def flat(layers: Layers) -> Tensor:
    """Return a stack as a matrix (M, P), each layer's weights before its biases."""
    return torch.cat(
        [part.flatten(1) for layer in layers for part in (layer[..., :-1], layer[..., -1])], 1
    )


def unflat(matrix: Tensor, like: Layers) -> Layers:
    """Return the rows of a matrix (M, P) as a stack of the shape of another."""
    layers = []
    for layer in like:
        _, n_out, n_in = layer.shape
        weight, bias, matrix = matrix.split(
            [n_out * (n_in - 1), n_out, matrix.shape[1] - n_out * n_in], 1
        )
        layers.append(torch.cat([weight.reshape(-1, n_out, n_in - 1), bias[..., None]], -1))
    return layers


class Pass:
    """Forward and backward passes of a stack, whose memory is used again by the next.

    Args:
        layers: The networks; a pass takes them as they are then.
        objective: What the backward pass is of.
    """

    def __init__(self, layers: Layers, objective: Objective) -> None:
        self._layers = layers
        self._objective = objective
        inputs = objective.inputs
        inputs = torch.cat([inputs, inputs.new_ones(1, inputs.shape[1])])
        self._below = [inputs.expand(len(layers[0]), *inputs.shape)]
        self._below += [
            inputs.new_ones(len(layer), layer.shape[1] + 1, inputs.shape[1])
            for layer in layers[:-1]
        ]
        self._sums: list[Tensor] = []  # of each hidden layer, before its activation

    def outputs(self) -> Tensor:
        """Return the outputs f, (M, classes, n)."""
        self._sums = []
        for k, layer in enumerate(self._layers[:-1]):
            # The first layer's inputs are the same for all: one product instead of M.
            below = self._below[0][0] if k == 0 else self._below[k]
            self._sums.append(layer @ below)
            units = self._below[k + 1][:, :-1]
            if self._objective.activation == "relu":
                torch.clamp_min(self._sums[k], 0, out=units)
            else:
                torch.tanh(self._sums[k], out=units)
        return self._layers[-1] @ self._below[-1]

    def backward(self, outputs: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield each layer, its input and n ∂F/∂outputs of it, without the decay, last layer first.

        A layer may be changed in place when it has been yielded: what is below does not need it.

        Args:
            outputs: f, which the forward pass returned.
        """
        kept, targets = self._objective.kept[:, None], self._objective.targets
        of_outputs = outputs.softmax(1).mul_(kept).sub_(targets)
        for k in range(len(self._layers) - 1, 0, -1):
            layer = self._layers[k]
            of_inputs = layer[:, :, :-1].mT @ of_outputs
            yield layer, self._below[k], of_outputs
            if self._objective.activation == "relu":  # a product with a mask takes twice as long
                of_outputs = torch.ops.aten.threshold_backward(of_inputs, self._sums[k - 1], 0)
            else:
                of_outputs = torch.ops.aten.tanh_backward(of_inputs, self._below[k][:, :-1])
        yield self._layers[0], self._below[0], of_outputs
