"""Products of the Hessian of a batch's mean loss with vectors, as a network's operations allow.

Forward-mode derivatives of the gradient, batched over vectors (Pearlmutter 1994), are fastest. Not
every operation has a rule for them: torch's LSTM has none, nor has a function of one's own that is
written for autograd alone. Then a second backward pass through the gradient gives the same.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad, jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from src.ensemble.members import Params, PerSampleLoss, Stack, size
from src.ensemble.memory import is_out_of_memory
from src.errors import UserError
from src.messages import say
from src.tda.general import within

# Of a loss, parameters, a batch's inputs and labels, and K vectors, the products (K, ...).
Way = Callable[[PerSampleLoss, Params, Tensor, Tensor, Stack], Stack]


def forward_over_reverse(
    loss: PerSampleLoss, params: Params, inputs: Tensor, labels: Tensor, vectors: Stack
) -> Stack:
    """Return the products (K, ...) with K vectors, all at once."""

    def mean_loss(params: Params) -> Tensor:
        return loss(params, inputs, labels).mean()

    def product(vector: Params) -> Params:
        return jvp(grad(mean_loss), (params,), (vector,))[1]

    return vmap(product)(vectors)


def reverse_over_reverse(
    loss: PerSampleLoss, params: Params, inputs: Tensor, labels: Tensor, vectors: Stack
) -> Stack:
    """Return the products (K, ...) with K vectors by a second backward pass for all."""
    return _second_backward(loss, params, inputs, labels, vectors, at_once=True)


def vector_by_vector(
    loss: PerSampleLoss, params: Params, inputs: Tensor, labels: Tensor, vectors: Stack
) -> Stack:
    """Return the products (K, ...) with K vectors by a second backward pass for each."""
    return _second_backward(loss, params, inputs, labels, vectors, at_once=False)


def _second_backward(
    loss: PerSampleLoss,
    params: Params,
    inputs: Tensor,
    labels: Tensor,
    vectors: Stack,
    *,
    at_once: bool,
) -> Stack:
    leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
    parameters = list(leaves.values())

    def products() -> Stack:
        gradients = _differentiable_gradient(loss, leaves, inputs, labels)
        found = {name: torch.zeros_like(vectors[name]) for name in leaves}
        if not gradients:  # of a loss that is linear in the parameters
            return found
        for k in [slice(None)] if at_once else range(size(vectors)):
            second = torch.autograd.grad(
                list(gradients.values()),
                parameters,
                [vectors[name][k] for name in gradients],
                retain_graph=True,
                allow_unused=True,
                is_grads_batched=at_once,
            )
            for name, product in zip(leaves, second, strict=True):
                if product is not None:
                    found[name][k] = product
        return found

    # cuDNN's recurrences have no second derivative.
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        return within(loss, leaves, products)


def _differentiable_gradient(
    loss: PerSampleLoss, leaves: Params, inputs: Tensor, labels: Tensor
) -> Params:
    """Return the gradient of the mean loss, where it depends on the parameters."""
    first = torch.autograd.grad(
        loss(leaves, inputs, labels).mean(),
        list(leaves.values()),
        create_graph=True,
        materialize_grads=True,
    )
    return {name: g for name, g in zip(leaves, first, strict=True) if g.requires_grad}


def _require_second_derivatives(
    loss: PerSampleLoss, params: Params, inputs: Tensor, labels: Tensor
) -> None:
    """Raise torch's error of a function that is differentiable once, by a pass through all of it.

    A pass to the parameters alone never comes upon it, and takes the derivative for zero.
    """
    leaves = {name: p.detach().requires_grad_() for name, p in params.items()}

    def backward() -> None:
        for g in _differentiable_gradient(loss, leaves, inputs, labels).values():
            g.sum().backward(retain_graph=True)

    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        within(loss, leaves, backward)


# What is said of the ways that are tried after the first.
_SAID = (
    "",
    "by a second backward pass",
    "by a second backward pass, one vector at a time",
)


def products(
    loss: PerSampleLoss, params: Params, inputs: Tensor, labels: Tensor, vectors: Stack
) -> Stack:
    """Return the products (K, ...) of K vectors with the Hessian of a batch's mean loss.

    Raises:
        UserError: The network allows no way.
    """
    ways = forward_over_reverse, reverse_over_reverse, vector_by_vector
    return by_first_way("Hessian products", ways, loss, params, inputs, labels, vectors)


def by_first_way(
    what: str,
    ways: tuple[Way, Way, Way],
    loss: PerSampleLoss,
    params: Params,
    inputs: Tensor,
    labels: Tensor,
    vectors: Stack,
) -> Stack:
    """Return the products (K, ...) with K vectors by the first of three ways that works.

    Which way a network allows is found out with its first product, and said.

    Args:
        what: What the products are called.
        ways: By forward mode, by a second backward pass for all vectors, and for each.
        loss: The per-sample loss.
        params: The parameters.
        inputs: (N, ...).
        labels: (N,).
        vectors: K vectors over the parameters.

    Raises:
        UserError: It allows none.
    """
    reason, known = "", (what, loss.criterion)
    while True:
        number = loss.found.setdefault(known, 0)
        try:
            # Fused attention has neither forward-mode nor second derivatives.
            with sdpa_kernel(SDPBackend.MATH):
                found = ways[number](loss, params, inputs, labels, vectors)
                if reason:
                    _require_second_derivatives(loss, params, inputs, labels)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            reason = str(error).splitlines()[0][:100]
            if number == len(ways) - 1:
                del loss.found[known]
                raise UserError(
                    f"{type(loss.model).__name__} has no second derivatives ({reason}): influence "
                    "functions need them, the other methods do not"
                ) from error
            loss.found[known] += 1
        else:
            if reason:
                say(f"{type(loss.model).__name__}: {what} {_SAID[number]} ({reason})")
            return found
