"""Stationary points and inverse Hessians of a small network, in Gauss–Newton coordinates.

With the Gauss–Newton matrix G = U diag(g) Uᵀ at some parameters w₀ and a damping c, coordinates φ
stand for

    w = w₀ + T φ,        T = U diag(g + c)^(−1/2).

In them G + c I is the identity, and the Hessian near it: L-BFGS and conjugate gradient, which take
thousands of passes over the data in the parameters themselves, need tens. c is the weight decay or,
without, a small number; it changes how fast a point is reached and not which points are stationary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from src.fragility.objective import Objective, gauss_newton
from src.tda.hessian import Hessian
from src.tda.solvers.conjugate_gradient import ConjugateGradient, conjugate_gradient


@dataclass(frozen=True)
class Coordinates:
    """T of the Gauss–Newton matrix at one point.

    Attributes:
        to_parameters: T, (P, P).
    """

    to_parameters: Tensor

    @classmethod
    def at(cls, objective: Objective, w: Tensor, damp: float) -> Coordinates:
        """Return the coordinates at parameters (P,), with the damping c."""
        matrix = gauss_newton(objective.loss, objective.params(w), objective.train)
        values, vectors = torch.linalg.eigh(matrix)
        return cls(vectors / (values.clamp(min=0) + damp).sqrt())


@dataclass(frozen=True)
class WhitenedConjugateGradient(ConjugateGradient):
    """`ConjugateGradient` on (H + damp I) x = v in Gauss–Newton coordinates.

    There the system is Tᵀ (H + damp I) T y = Tᵀ v, and x = T y.

    Attributes:
        coordinates: The coordinates.
    """

    name: ClassVar[str] = "whitened cg"

    coordinates: Coordinates | None = None

    def solve(
        self, hessian: Hessian, vectors: Tensor, *, transpose: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return solutions (K, P), and of each its `residual`, relative to the vector's norm."""
        del transpose  # symmetric
        t = self.coordinates.to_parameters

        def matvec(y: Tensor) -> Tensor:
            x = y @ t.T
            return (hessian.product(x) + self.damp * x) @ t

        y, curvature = conjugate_gradient(
            matvec, vectors @ t, self.tolerance, self.max_iterations
        )
        x = y @ t.T
        residual = (vectors - hessian.product(x) - self.damp * x).norm(dim=1)
        return x, {"residual": residual / vectors.norm(dim=1), "curvature": curvature}


def descend(
    objective: Objective, w: Tensor, coordinates: Coordinates, n_iterations: int, tolerance: float
) -> tuple[Tensor, float, int]:
    """Minimise F from w by L-BFGS in Gauss–Newton coordinates.

    Args:
        objective: F.
        w: Where it begins (P,).
        coordinates: The coordinates.
        n_iterations: Iterations at most.
        tolerance: Norm of ∇F, by the parameters, at which it ends.

    Returns:
        The point of smallest gradient norm (P,), that norm, and passes over the data.
    """
    t = coordinates.to_parameters
    phi = torch.zeros_like(w).requires_grad_()
    best = [torch.inf, w, 0]
    optimizer = torch.optim.LBFGS(
        [phi],
        max_iter=n_iterations,
        max_eval=2 * n_iterations,
        history_size=n_iterations,
        tolerance_grad=0,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    class Reached(Exception):
        pass

    def closure() -> Tensor:
        at = w + t @ phi.detach()
        value, gradient = objective.value_and_gradient(at)
        best[2] += 1
        if (norm := gradient.norm().item()) < best[0]:
            best[:2] = norm, at
        if norm <= tolerance:
            raise Reached
        phi.grad = t.T @ gradient
        return value

    try:
        optimizer.step(closure)
    except Reached:
        pass
    norm, at, passes = best
    return at, norm, passes
