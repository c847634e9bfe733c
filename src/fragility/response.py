"""The proximal Bregman response to leaving out a sample (Bae et al. 2022).

Influence functions with the damped Gauss–Newton matrix G are, to first order, not the answer of a
network that is trained again to the end, but that of the minimiser of

    (1/n) Σ_k D(f_k(w), f_k(θ)) − (1/n) L_j(w) + (λ/2) ‖w − θ‖²,

    D(f, f') = L(f) − L(f') − ∇L(f')ᵀ (f − f'),

a network that answers as θ does on all samples, stays near it, and forgets sample j (ibid.,
equation 9). Retraining differs from it by warm start, proximity and non-convergence; influence
differs from it by linearisation alone. At w = θ its Hessian is G + λI, its gradient −g_j / n.

Of cross-entropy with p' = softmax(f'), D is LSE(f) − p'ᵀ f up to a constant, and sample j's LSE
cancels against that of L_j, which leaves (y_j − p'_j)ᵀ f_j: the form of `descent.Objective`.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from src.fragility.descent import (
    Layers,
    Objective,
    Pass,
    cross_entropy_objective,
    flat,
    unflat,
    values_and_gradients,
)

_SUFFICIENT = 1e-4  # of the decrease that the gradient promises (Armijo)
_SMALLEST = 1e-8  # share of a full step


def bregman_objective(
    layers: Layers, data: tuple[Tensor, Tensor], removed: list[int], decay: float, activation: str
) -> Objective:
    """Return the objective above of K networks, one for each removed sample.

    Args:
        layers: θ, a stack of one.
        data: Inputs (n, features) and labels (n,).
        removed: The samples j.
        decay: λ.
        activation: Of the hidden units.
    """
    n_classes = layers[-1].shape[1]
    whole = cross_entropy_objective(data, n_classes, [None], decay, activation)
    without = cross_entropy_objective(data, n_classes, [*removed], decay, activation)
    answers = Pass(layers, whole).outputs().softmax(1)  # (1, classes, n)
    anchor = [layer.expand(len(removed), -1, -1) for layer in layers]
    # Of those kept t = p', of the one left out p' − y.
    targets = answers - (whole.targets - without.targets)
    return replace(without, targets=targets, anchor=anchor)


def minimise(objective: Objective, curvature: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Return the minima near an objective's anchor, (M, P), and the norms of gradients there, (M,).

    Each step is the gradient times the inverse of a fixed matrix; a network's step is halved where
    its objective does not fall enough, and doubled up to 1 where it does. A network ends where its
    step would be next to nothing: at a minimum, or a kink of ReLU. From the anchor, with G + λI,
    the first full step is the influence function's.

    Args:
        objective: The objective.
        curvature: The matrix, positive definite (P, P).
        steps: Number of steps at most, taken or refused.
    """
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(curvature))
    like = objective.anchor
    at = flat(like)
    value, gradient = values_and_gradients(like, objective)
    size = torch.ones_like(value)
    going = torch.arange(len(at), device=at.device)
    for _ in range(steps):
        if not len(going):
            break
        direction = gradient[going] @ inverse
        tried = at[going] - size[going, None] * direction
        new_value, new_gradient = values_and_gradients(unflat(tried, like), objective.of(going))
        enough = _SUFFICIENT * size[going] * (gradient[going] * direction).sum(1)
        falls = new_value <= value[going] - enough  # not so where it is not a number
        moved = going[falls]
        at[moved], value[moved], gradient[moved] = (
            new[falls] for new in (tried, new_value, new_gradient)
        )
        size[going] = torch.where(falls, (2 * size[going]).clamp(max=1), size[going] / 2)
        going = going[size[going] >= _SMALLEST]
    return at, gradient.norm(dim=1)
