"""Stationary points and inverse Hessians of a small network, in Gauss–Newton coordinates.

With the Gauss–Newton matrix G at some parameters w₀, a damping c, and Cholesky's factor C of
G + c I = C Cᵀ, coordinates φ stand for

    w = w₀ + T φ,        T = C⁻ᵀ.

In them G + c I is the identity, and the Hessian near it: L-BFGS and MINRES, which take
thousands of passes over the data in the parameters themselves, need tens. c is the weight decay or,
without, a small number; it changes how fast a point is reached and not which points are stationary.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, minres
from torch import Tensor

from src.data.samples import Samples
from src.errors import DivergedError
from src.fragility.objective import Objective, gauss_newton
from src.tda.hessian import Hessian


@dataclass(frozen=True)
class Coordinates:
    """T of the Gauss–Newton matrix at one point.

    Attributes:
        to_parameters: T, (P, P).
    """

    to_parameters: Tensor

    @classmethod
    def at(cls, objective: Objective, w: Tensor, damp: float, samples: Samples) -> Coordinates:
        """Return the coordinates at parameters (P,), with G of some samples and the damping c."""
        matrix = gauss_newton(objective.loss, objective.params(w), samples)
        matrix.diagonal().add_(damp)
        factor = torch.linalg.cholesky(matrix)
        return cls(torch.linalg.inv(factor).mT)


@dataclass(frozen=True)
class WhitenedMinres:
    """MINRES (Paige and Saunders 1975) on (H + damp I) x = v in Gauss–Newton coordinates.

    There the system is Tᵀ (H + damp I) T y = Tᵀ v, and x = T y. Its eigenvalues lie about 1 but for
    a few; some of them may be negative, at a point that is no minimum, and the residual falls all
    the same.

    Attributes:
        damp: What is added to H.
        tolerance: Relative residual in the coordinates at which it ends.
        max_iterations: Iterations at most.
        batch_size: Samples in a batch of the Hessian.
        coordinates: The coordinates.
    """

    name: ClassVar[str] = "minres"

    damp: float
    tolerance: float
    max_iterations: int
    batch_size: int
    coordinates: Coordinates

    def solve(
        self, hessian: Hessian, vectors: Tensor, *, transpose: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return solutions (K, P), and of each its `residual`, relative to the vector's norm (K,).

        Raises:
            DivergedError: Products are not finite.
        """
        del transpose  # symmetric
        t = self.coordinates.to_parameters

        def damped(x: Tensor) -> Tensor:
            return hessian.product(x) + self.damp * x

        def matvec(y: np.ndarray) -> np.ndarray:
            return (damped((t @ torch.from_numpy(y).to(t))[None])[0] @ t).cpu().numpy()

        system = LinearOperator((t.shape[1],) * 2, matvec)
        solutions = [
            minres(system, right.cpu().numpy(), rtol=self.tolerance, maxiter=self.max_iterations)[0]
            for right in vectors @ t
        ]
        x = torch.from_numpy(np.stack(solutions)).to(t) @ t.T
        residual = (vectors - damped(x)).norm(dim=1) / vectors.norm(dim=1)
        if not residual.isfinite().all():
            raise DivergedError(f"products with the {hessian.name} are not finite")
        return x, {"residual": residual}

    def describe(self, known: dict[str, Tensor]) -> str:
        """Return the residuals."""
        return f"relative residual up to {known['residual'].max():.1e}"


class _ReachedError(Exception):
    """The tolerance is reached, in the middle of torch's iteration."""


def descend(
    objective: Objective, w: Tensor, coordinates: Coordinates, n_iterations: int, tolerance: float
) -> tuple[Tensor, float]:
    """Minimise F from w by L-BFGS (torch's, with strong Wolfe conditions) in coordinates at w.

    Args:
        objective: F.
        w: Where it begins (P,).
        coordinates: The coordinates.
        n_iterations: Iterations at most; each takes one pass over the data, seldom more.
        tolerance: Norm of ∇F, with respect to the parameters, at which it ends.

    Returns:
        Where it ended (P,), and the norm of ∇F there.
    """
    t = coordinates.to_parameters
    phi = torch.zeros_like(w).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [phi],
        max_iter=n_iterations,
        max_eval=2 * n_iterations,
        history_size=n_iterations,
        tolerance_grad=0,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        value, gradient = objective.value_and_gradient(w + t @ phi.detach())
        if gradient.norm() <= tolerance:
            raise _ReachedError
        phi.grad = t.T @ gradient
        return value

    with contextlib.suppress(_ReachedError):
        optimizer.step(closure)
    at = w + t @ phi.detach()
    return at, objective.value_and_gradient(at)[1].norm().item()
