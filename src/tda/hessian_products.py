"""Products of the Hessian of a batch's mean loss with vectors, as a network's operations allow.

Forward-mode derivatives of the gradient, batched over vectors (Pearlmutter 1994), are fastest. Not
every operation has a rule for them: torch's LSTM has none, nor has a function of one's own that is
written for autograd alone. Then a second backward pass through the gradient gives the same.

A vector may come with weights of the batch's samples: their gradients, so weighted, are added to
the product, which then is the derivative of the gradient by parameters and weights together. All of
it is of one forward pass, so that in training mode it is of one draw of random layers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.func import grad, jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from src.ensemble.generators import generator_states, set_generators
from src.ensemble.members import Params, PerSampleLoss, Stack, size
from src.ensemble.memory import is_out_of_memory
from src.errors import UserError
from src.messages import say
from src.tda.general import within

# Of a loss, parameters, a batch's inputs and labels, and K vectors, the products (K, ...).
Way = Callable[[PerSampleLoss, Params, Tensor, Tensor, Stack], Stack]


def forward_over_reverse(
    loss: PerSampleLoss,
    params: Params,
    inputs: Tensor,
    labels: Tensor,
    vectors: Stack,
    weights: Tensor | None = None,
) -> Stack:
    """Return the products (K, ...) with K vectors, all at once."""

    def mean_loss(params: Params, weights: Tensor | None) -> Tensor:
        losses = loss(params, inputs, labels)
        return (losses if weights is None else losses * weights).mean()

    def product(vector: Params, of_weights: Tensor | None) -> Params:
        if of_weights is None:
            return jvp(lambda params: grad(mean_loss)(params, None), (params,), (vector,))[1]
        at = params, next(iter(params.values())).new_ones(len(labels))
        return jvp(grad(mean_loss), at, (vector, of_weights))[1]

    in_dims = 0, None if weights is None else 0
    return vmap(product, in_dims, randomness="same")(vectors, weights)


def reverse_over_reverse(
    loss: PerSampleLoss,
    params: Params,
    inputs: Tensor,
    labels: Tensor,
    vectors: Stack,
    weights: Tensor | None = None,
) -> Stack:
    """Return the products (K, ...) with K vectors by a second backward pass for all."""
    return _second_backward(loss, params, inputs, labels, vectors, weights, at_once=True)


def vector_by_vector(
    loss: PerSampleLoss,
    params: Params,
    inputs: Tensor,
    labels: Tensor,
    vectors: Stack,
    weights: Tensor | None = None,
) -> Stack:
    """Return the products (K, ...) with K vectors by a second backward pass for each."""
    return _second_backward(loss, params, inputs, labels, vectors, weights, at_once=False)


def _second_backward(
    loss: PerSampleLoss,
    params: Params,
    inputs: Tensor,
    labels: Tensor,
    vectors: Stack,
    weights: Tensor | None,
    *,
    at_once: bool,
) -> Stack:
    leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
    parameters = list(leaves.values())

    def products() -> Stack:
        losses, gradients = _differentiable_gradient(loss, leaves, inputs, labels)
        found = {name: torch.zeros_like(vectors[name]) for name in leaves}
        for k in [slice(None)] if at_once else range(size(vectors)):
            outputs, along = [*gradients.values()], [vectors[name][k] for name in gradients]
            if weights is not None:
                outputs, along = [*outputs, losses], [*along, weights[k] / len(labels)]
            if not outputs:  # of a loss that is linear in the parameters
                return found
            second = torch.autograd.grad(
                outputs,
                parameters,
                along,
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
) -> tuple[Tensor, Params]:
    """Return the losses (B,), and their mean's gradient where it depends on the parameters."""
    losses = loss(leaves, inputs, labels)
    first = torch.autograd.grad(
        losses.mean(),
        list(leaves.values()),
        create_graph=True,
        materialize_grads=True,
    )
    return losses, {name: g for name, g in zip(leaves, first, strict=True) if g.requires_grad}


def _require_second_derivatives(
    loss: PerSampleLoss, params: Params, inputs: Tensor, labels: Tensor
) -> None:
    """Raise torch's error of a function that is differentiable once, by a pass through all of it.

    A pass to the parameters alone never comes upon it, and takes the derivative for zero.
    """
    leaves = {name: p.detach().requires_grad_() for name, p in params.items()}

    def backward() -> None:
        for g in _differentiable_gradient(loss, leaves, inputs, labels)[1].values():
            g.sum().backward(retain_graph=True)

    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        within(loss, leaves, backward)


# In the order in which they are tried.
_WAYS = forward_over_reverse, reverse_over_reverse, vector_by_vector
# What is said of the later ones.
_SAID = (
    "",
    "by a second backward pass",
    "by a second backward pass, one vector at a time",
)
_WHAT = "Hessian products"


def give_up_way(loss: PerSampleLoss, reason: str) -> bool:
    """Have products of a loss computed in the next way, and say so; False: there is no other."""
    known = _WHAT, loss.criterion
    number = loss.found.get(known, 0) + 1
    if number == len(_WAYS):
        return False
    loss.found[known] = number
    say(f"{type(loss.model).__name__}: {_WHAT} {_SAID[number]} ({reason})")
    return True


def products(
    loss: PerSampleLoss,
    params: Params,
    inputs: Tensor,
    labels: Tensor,
    vectors: Stack,
    weights: Tensor | None = None,
) -> Stack:
    """Return the products (K, ...) of K vectors with the Hessian of a batch's mean loss.

    Args:
        loss: The per-sample loss, of which the mean is taken in the mode that its model is in.
        params: The parameters.
        inputs: (B, ...).
        labels: (B,).
        vectors: The vectors.
        weights: What is added to each product: the gradient of the samples' weighted losses over
            B, the weights (K, B); None: nothing.

    Raises:
        UserError: The network allows no way.
    """
    ways = tuple(partial(way, weights=weights) for way in _WAYS)
    return by_first_way(_WHAT, ways, loss, params, inputs, labels, vectors)


def by_first_way(
    what: str,
    ways: tuple[Way, ...],
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
        inputs: (B, ...).
        labels: (B,).
        vectors: K vectors over the parameters.

    Raises:
        UserError: It allows none.
    """
    reason, known = "", (what, loss.criterion)
    states = generator_states(labels.device) if loss.model.training else ()
    while True:
        number = loss.found.setdefault(known, 0)
        if reason and states:
            set_generators(labels.device, states)
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
                    f"{type(loss.model).__name__} has no second derivatives ({reason}), which "
                    "influence functions and unrolled need, and other methods do not"
                ) from error
            loss.found[known] += 1
        else:
            if reason:
                say(f"{type(loss.model).__name__}: {what} {_SAID[number]} ({reason})")
            return found
