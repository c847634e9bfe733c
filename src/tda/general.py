"""Gradients with respect to any parameters, batched over samples by vmap or one after another."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from src.ensemble.members import Params, PerSampleLoss, Stack

Result = TypeVar("Result")


def within(loss: PerSampleLoss, params: Params, compute: Callable[[], Result]) -> Result:
    """Return what a computation returns while the model has the loss's parameters and buffers.

    For backward passes: what activation checkpointing computes again in them has to meet the same
    parameters as the forward pass.
    """
    values = {f"model.{name}": p for name, p in (loss.fixed | params).items()}
    return functional_call(_Within(loss.model), values, (compute,))


class _Within(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, compute: Callable[[], Result]) -> Result:
        return compute()


def gradient(
    loss: PerSampleLoss,
    params: Params,
    names: list[str],
    inputs: Tensor,
    labels: Tensor,
    weights: Tensor | None = None,
) -> Params:
    """Return the gradient of a batch's summed losses with respect to some of the parameters.

    Args:
        loss: The per-sample loss.
        params: The parameters.
        names: Which of them.
        inputs: (N, ...).
        labels: (N,).
        weights: Weight (N,) of each loss in the sum; None: 1.
    """
    leaves = {name: p.detach().requires_grad_(name in names) for name, p in params.items()}

    def backward() -> None:
        losses = loss(leaves, inputs, labels)
        if losses.requires_grad:
            # Not torch.autograd.grad, which reentrant activation checkpointing does not take.
            (losses if weights is None else losses * weights).sum().backward()

    with torch.enable_grad():
        within(loss, leaves, backward)
    found = {name: leaves[name].grad for name in names}
    return {
        name: torch.zeros_like(leaves[name]) if g is None else g.to_dense() if g.is_sparse else g
        for name, g in found.items()
    }


def one_by_one(
    loss: PerSampleLoss, params: Params, names: list[str], inputs: Tensor, labels: Tensor
) -> Stack:
    """Return the gradients (N, ...) of a batch's losses by one backward pass a sample."""
    of_samples = [
        gradient(loss, params, names, inputs[i : i + 1], labels[i : i + 1])
        for i in range(len(labels))
    ]
    return {name: torch.stack([g[name] for g in of_samples]) for name in names}


def batched(
    loss: PerSampleLoss, params: Params, names: list[str], inputs: Tensor, labels: Tensor
) -> Stack:
    """Return the gradients (N, ...) of a batch's losses by `vmap(grad)` of one sample's loss.

    Raises:
        RuntimeError: An operation has no rule for it.
    """

    def of_one(some: Params, x: Tensor, y: Tensor) -> Tensor:
        return loss({**params, **some}, x[None], y[None]).sum()

    with warnings.catch_warnings():
        # An operation that vmap does one sample at a time is slower, and as right.
        warnings.filterwarnings("ignore", "There is a performance drop")
        some = {name: params[name].detach() for name in names}
        return vmap(grad(of_one), (None, 0, 0))(some, inputs, labels)
