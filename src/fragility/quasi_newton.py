"""Stationary points and inverse Hessians of a small network, in coordinates that whiten them.

With the Gauss–Newton matrix G at some parameters w₀, a damping c, and Cholesky's factor C of
G + c I = C Cᵀ, coordinates φ stand for

    w = w₀ + T φ,        T = C⁻ᵀ.

In them G + c I is the identity, and the Hessian of the objective near it but for some directions
of a size of its own: L-BFGS and conjugate gradient need tens of iterations where they need
thousands in w. c is the weight decay or, without, a small number; it changes how fast a point is
reached, not which one is stationary.

How far from stationary a point is, is the norm ‖Tᵀ∇F‖, Newton's decrement by G: half of its square
is what F can still fall by, wherever H is G. Unlike ‖∇F‖ it weighs directions as the change of the
parameters does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy.optimize import OptimizeResult, minimize
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from src.errors import DivergedError
from src.fragility.objective import Objective, gauss_newton
from src.tda.hessian import Hessian
from src.tda.solvers.conjugate_gradient import conjugate_gradient

CORRECTIONS = 50  # that L-BFGS keeps
LANCZOS_TOLERANCE = 1e-2  # relative, of an eigenvalue that is not reported to more digits

Products = Callable[[Tensor], Tensor]  # of rows (K, P) with a symmetric matrix


@dataclass(frozen=True)
class Coordinates:
    """T at one point.

    Attributes:
        factor: C, lower triangular (P, P).
    """

    factor: Tensor

    @classmethod
    def at(cls, objective: Objective, w: Tensor, damp: float) -> Coordinates:
        """Return T at parameters (P,), with the damping c; G is computed in float32."""
        single = objective.single()
        matrix = gauss_newton(single.loss, single.params(w.float()), single.train).to(w.dtype)
        matrix.diagonal().add_(damp)
        return cls(torch.linalg.cholesky(matrix))

    def changes(self, phi: Tensor) -> Tensor:
        """Return T φ of each row (K, P)."""
        return torch.linalg.solve_triangular(self.factor.mT, phi.mT, upper=True).mT

    def gradients(self, of_parameters: Tensor) -> Tensor:
        """Return Tᵀ g, the gradient with respect to φ, of each row (K, P) with respect to w."""
        return torch.linalg.solve_triangular(self.factor, of_parameters.mT, upper=False).mT

    def whitened(self, products: Products) -> Products:
        """Return the products of rows (K, P) with Tᵀ A T, of those with A."""
        return lambda rows: self.gradients(products(self.changes(rows)))

    def decrement(self, gradient: Tensor) -> float:
        """Return ‖Tᵀ∇F‖ of a gradient (P,)."""
        return self.gradients(gradient[None]).norm().item()

    def smallest(self, products: Products) -> float:
        """Return the smallest eigenvalue of Tᵀ A T.

        It has the sign of A's smallest (Sylvester's law of inertia), and is 1 where A is G + c I.
        """
        whitened = self.whitened(products)

        def product(y: np.ndarray) -> np.ndarray:
            return whitened(torch.from_numpy(y).to(self.factor)[None])[0].cpu().numpy()

        operator = LinearOperator(tuple(self.factor.shape), product, dtype=np.float64)
        start = np.random.default_rng(0).standard_normal(len(self.factor))
        values = eigsh(
            operator, 1, which="SA", v0=start, tol=LANCZOS_TOLERANCE, return_eigenvectors=False
        )
        return float(values[0])


@dataclass(frozen=True)
class WhitenedCG:
    """Conjugate gradient on (H + damp I) x = v in coordinates: Tᵀ (H + damp I) T y = Tᵀ v, x = T y.

    Attributes:
        damp: What is added to H.
        tolerance: Residual in coordinates, relative to Tᵀv, at which it ends.
        max_iterations: Iterations at most.
        batch_size: Samples whose Hessian is computed at once.
        coordinates: T.
    """

    name: ClassVar[str] = "whitened_cg"

    damp: float
    tolerance: float
    max_iterations: int
    batch_size: int
    coordinates: Coordinates

    def solve(
        self, hessian: Hessian, vectors: Tensor, *, transpose: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return solutions (K, P), and of each its `residual` in coordinates, relative (K,).

        Raises:
            DivergedError: Products are not finite.
        """
        del transpose  # symmetric

        def damped(rows: Tensor) -> Tensor:
            return hessian.product(rows) + self.damp * rows

        matvec, right = self.coordinates.whitened(damped), self.coordinates.gradients(vectors)
        y, _ = conjugate_gradient(matvec, right, self.tolerance, self.max_iterations)
        residual = (right - matvec(y)).norm(dim=1) / right.norm(dim=1)
        if not residual.isfinite().all():
            raise DivergedError(f"products with the {hessian.name} are not finite")
        return self.coordinates.changes(y), {"residual": residual}

    def describe(self, known: dict[str, Tensor]) -> str:
        """Return the residuals."""
        return f"relative residual up to {known['residual'].max():.1e}"


def minimise(
    objective: Objective, w: Tensor, coordinates: Coordinates, n_iterations: int, tolerance: float
) -> Tensor:
    """Minimise F from w by L-BFGS in coordinates, and return where it ended (P,).

    The coordinates' scale is the decrement s at w: with ψ = φ / s and F / s², whose gradient has
    norm 1 at first, the first step of scipy's is the one of length 1, which is Gauss–Newton's.

    Args:
        objective: F.
        w: Where it begins (P,), and the coordinates' origin.
        coordinates: The coordinates.
        n_iterations: Iterations at most.
        tolerance: Decrement at which it ends.
    """
    value_at_w, gradient_at_w = objective.value_and_gradient(w)
    s = coordinates.decrement(gradient_at_w)
    if s <= tolerance:
        return w
    norms: dict[bytes, float] = {}

    def parameters(psi: np.ndarray) -> Tensor:
        return w + s * coordinates.changes(torch.from_numpy(psi).to(w)[None])[0]

    def value_and_gradient(psi: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = objective.value_and_gradient(parameters(psi))
        of_psi = coordinates.gradients(gradient[None])[0].cpu().numpy() / s
        norms[psi.tobytes()] = np.linalg.norm(of_psi)
        return (value - value_at_w).item() / s**2, of_psi

    def stop(intermediate_result: OptimizeResult) -> None:
        if s * norms[intermediate_result.x.tobytes()] <= tolerance:
            raise StopIteration

    found = minimize(
        value_and_gradient,
        np.zeros(len(w)),
        jac=True,
        method="L-BFGS-B",
        callback=stop,
        options={"maxiter": n_iterations, "maxcor": CORRECTIONS, "gtol": 0.0, "ftol": 0.0},
    )
    return parameters(found.x)
