"""The Gauss–Newton matrix of the mean loss, in the Hessian's place.

    G = (1/n) Σ_i J_iᵀ (∂²L_i / ∂f_i²) J_i

J_i is the Jacobian of sample i's outputs f_i, the second factor the Hessian of its loss with
respect to them (Schraudolph 2002; Martens 2010). It is the Hessian without the second derivatives
of the network, and positive semi-definite where the loss is convex in the outputs, as cross-entropy
and the squared error are. Of cross-entropy it is the Fisher information matrix.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.func import grad, jvp, vjp, vmap

from src.ensemble.members import Params, PerSampleLoss, Stack, size
from src.tda.general import within
from src.tda.hessian import Hessian
from src.tda.hessian_products import Way, by_first_way


def forward_then_reverse(
    loss: PerSampleLoss, params: Params, inputs: Tensor, labels: Tensor, vectors: Stack
) -> Stack:
    """Return the products (K, ...) with K vectors, all at once: Jᵀ (∂²L / ∂f²) (J v)."""

    def outputs(params: Params) -> Tensor:
        return loss.outputs(params, inputs)

    def mean_loss(outputs: Tensor) -> Tensor:
        return loss.criterion(outputs, labels).mean()

    at, pull_back = vjp(outputs, params)

    def product(vector: Params) -> Params:
        moved = jvp(outputs, (params,), (vector,))[1]
        return pull_back(jvp(grad(mean_loss), (at,), (moved,))[1])[0]

    return vmap(product)(vectors)


def reverse_alone(
    loss: PerSampleLoss, params: Params, inputs: Tensor, labels: Tensor, vectors: Stack
) -> Stack:
    """Return the products (K, ...) with K vectors by backward passes for all."""
    return _by_backward_passes(loss, params, inputs, labels, vectors, at_once=True)


def vector_by_vector(
    loss: PerSampleLoss, params: Params, inputs: Tensor, labels: Tensor, vectors: Stack
) -> Stack:
    """Return the products (K, ...) with K vectors by backward passes for each."""
    return _by_backward_passes(loss, params, inputs, labels, vectors, at_once=False)


def _by_backward_passes(
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
        found = {name: torch.zeros_like(vectors[name]) for name in leaves}
        outputs = loss.outputs(leaves, inputs)
        at = outputs.detach().requires_grad_()
        mean_loss = loss.criterion(at, labels).mean()
        (of_outputs,) = torch.autograd.grad(mean_loss, at, create_graph=True)
        # Jᵀu, a linear function of any u: its derivative by u, times v, is J v.
        u = torch.zeros_like(outputs, requires_grad=True)
        pulled = torch.autograd.grad(
            outputs, parameters, u, create_graph=True, materialize_grads=True
        )
        depending = {n: g for n, g in zip(leaves, pulled, strict=True) if g.requires_grad}
        if not (depending and of_outputs.requires_grad):  # a loss that is linear in the outputs
            return found
        options = {"retain_graph": True, "is_grads_batched": at_once, "allow_unused": True}
        for k in [slice(None)] if at_once else range(size(vectors)):
            some = [vectors[name][k] for name in depending]
            (moved,) = torch.autograd.grad(list(depending.values()), u, some, **options)
            (curved,) = torch.autograd.grad(of_outputs, at, moved, **options)
            product = torch.autograd.grad(outputs, parameters, curved, **options)
            for name, part in zip(leaves, product, strict=True):
                if part is not None:
                    found[name][k] = part
        return found

    # cuDNN's recurrences have no second derivative.
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        return within(loss, leaves, products)


def gauss_newton_products(
    loss: PerSampleLoss, params: Params, inputs: Tensor, labels: Tensor, vectors: Stack
) -> Stack:
    """Return the products (K, ...) of K vectors with G of a batch's mean loss.

    Raises:
        UserError: The network allows no way.
    """
    ways = forward_then_reverse, reverse_alone, vector_by_vector
    return by_first_way("Gauss-Newton products", ways, loss, params, inputs, labels, vectors)


class GaussNewton(Hessian):
    """G of the mean loss of `samples` at `params`, in eval mode, by the Hessian's arguments."""

    name: ClassVar[str] = "Gauss-Newton matrix"
    _products: ClassVar[Way] = staticmethod(gauss_newton_products)
