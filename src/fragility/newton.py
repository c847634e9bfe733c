"""Stationary points and inverse Hessians of a small network, in coordinates that whiten them.

With the Gauss–Newton matrix G at some parameters w₀, a damping c, and Cholesky's factor C of
G + c I = C Cᵀ, coordinates φ stand for

    w = w₀ + T φ,        T = C⁻ᵀ.

In them G + c I is the identity, and the Hessian of the objective near it but for some directions
of a size of its own. At an optimum these are found, by Lanczos' method, as the eigenvectors V of
the whitened Hessian whose eigenvalues Λ lie furthest from 1, and corrected:

    T' = T (I + V (|Λ|^(−1/2) − I) Vᵀ).

Conjugate gradient, which takes thousands of products with the Hessian in the parameters themselves,
needs tens in φ, also without a sample, which moves an optimum little. c is the weight decay or,
without, a small number; it changes how fast a point is reached, not which one is stationary.

Products with the Hessian are computed in float32, which decides on steps; gradients and residuals,
which decide on where it ends, are in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from scipy.optimize import OptimizeResult, minimize
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor

from src.data.samples import Samples
from src.errors import DivergedError
from src.fragility.objective import Objective, gauss_newton
from src.tda.hessian import Hessian
from src.tda.solvers.conjugate_gradient import conjugate_gradient

RADIUS = 0.3  # of the trust region at first, in coordinates
LARGEST_RADIUS = 100.0
INNER_TOLERANCE = 1e-3  # of conjugate gradient with float32 products, whose residual is refined
REFINEMENTS = 8
LANCZOS_TOLERANCE = 1e-2  # of eigenvalues that are corrected for, not reported to digits

Products = Callable[[Tensor], Tensor]  # of rows (K, P) with a symmetric matrix


@dataclass(frozen=True)
class Coordinates:
    """T or T', and what is known of the Hessian in it.

    Attributes:
        to_parameters: T, (P, P).
        smallest: The smallest of the eigenvalues of the whitened Hessian that were found, those
            furthest from 1: below 0 it shows that the point is no minimum, above 0 it shows nothing
            of the others. None: none was looked for.
    """

    to_parameters: Tensor
    smallest: float | None = None

    @classmethod
    def at(cls, objective: Objective, w: Tensor, damp: float, samples: Samples) -> Coordinates:
        """Return T at parameters (P,), with G of some samples and the damping c."""
        single = replace(objective, train=samples).single()
        matrix = gauss_newton(single.loss, single.params(w.float()), single.train).to(w.dtype)
        matrix.diagonal().add_(damp)
        factor = torch.linalg.cholesky(matrix)
        return cls(torch.linalg.inv(factor).mT.contiguous())

    def whitened(self, products: Products) -> Products:
        """Return the products of rows (K, P) with Tᵀ A T, of those with A."""
        t = self.to_parameters
        return lambda rows: products(rows @ t.T) @ t

    def corrected(self, products: Products, n_vectors: int) -> Coordinates:
        """Return T', by V of so many vectors and products with the damped Hessian."""
        t = self.to_parameters
        whitened = self.whitened(products)

        def deviation(y: np.ndarray) -> np.ndarray:
            row = torch.from_numpy(y).to(t)[None]
            return (whitened(row) - row)[0].cpu().numpy()

        start = np.random.default_rng(0).standard_normal(len(t))
        operator = LinearOperator(tuple(t.shape), deviation, dtype=np.float64)
        k = min(n_vectors, len(t) - 1)
        try:
            values, vectors = eigsh(operator, k, v0=start, tol=LANCZOS_TOLERANCE, maxiter=3)
        except ArpackNoConvergence as error:  # those that it did find are corrected
            values, vectors = error.eigenvalues, error.eigenvectors
        values, v = (torch.from_numpy(a.copy()).to(t) for a in (values + 1, vectors))
        if not len(values):
            return self
        scales = values.abs().clamp(min=torch.finfo(torch.float32).eps).rsqrt()
        return Coordinates(t + (t @ v) * (scales - 1) @ v.T, values.min().item())


@dataclass(frozen=True)
class WhitenedCG:
    """Conjugate gradient on (H + damp I) x = v in coordinates, with refined residuals.

    There the system is Tᵀ (H + damp I) T y = Tᵀ v, and x = T y. Products of an iteration are those
    of `products`; after each solution the residual is computed anew, with the Hessian that is to be
    inverted, and solved for in its turn.

    Attributes:
        damp: What is added to H.
        tolerance: Residual, relative to the vector's norm, at which it ends.
        max_iterations: Iterations at most, for each residual.
        batch_size: Samples in a batch of the Hessian.
        coordinates: The coordinates.
        products: Products of rows with H + damp I, roughly.
    """

    name: ClassVar[str] = "whitened cg"

    damp: float
    tolerance: float
    max_iterations: int
    batch_size: int
    coordinates: Coordinates
    products: Products

    def solve(
        self, hessian: Hessian, vectors: Tensor, *, transpose: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return solutions (K, P), and of each its `residual`, relative to the vector's norm (K,).

        Raises:
            DivergedError: Products are not finite.
        """
        del transpose  # symmetric
        t, norms = self.coordinates.to_parameters, vectors.norm(dim=1)
        whitened = self.coordinates.whitened(self.products)
        best = x = torch.zeros_like(vectors)
        smallest = torch.ones_like(norms)
        left = vectors
        for _ in range(REFINEMENTS):
            y, _ = conjugate_gradient(whitened, left @ t, INNER_TOLERANCE, self.max_iterations)
            x = best + y @ t.T
            left = vectors - hessian.product(x) - self.damp * x
            residual = left.norm(dim=1) / norms
            if not residual.isfinite().all():
                raise DivergedError(f"products with the {hessian.name} are not finite")
            better = residual < smallest
            best = torch.where(better[:, None], x, best)
            smallest = torch.where(better, residual, smallest)
            if not better.any() or (smallest <= self.tolerance).all():
                break
        return best, {"residual": smallest}

    def describe(self, known: dict[str, Tensor]) -> str:
        """Return the residuals."""
        return f"relative residual up to {known['residual'].max():.1e}"


def minimise(
    objective: Objective, w: Tensor, coordinates: Coordinates, n_iterations: int, tolerance: float
) -> tuple[Tensor, float]:
    """Minimise F from w by Newton's method in a trust region, in coordinates at w.

    Steps are Steihaug's (scipy's trust-ncg), which follow negative curvature to the border.

    Args:
        objective: F.
        w: Where it begins (P,).
        coordinates: The coordinates.
        n_iterations: Steps at most.
        tolerance: Norm of ∇F, with respect to the parameters, at which it ends.

    Returns:
        Where it ended (P,), and the norm of ∇F there.
    """
    t = coordinates.to_parameters
    norms: dict[bytes, float] = {}
    at: dict[bytes, Products] = {}  # of the last point alone

    def parameters(phi: np.ndarray) -> Tensor:
        return w + t @ torch.from_numpy(phi).to(t)

    def value_and_gradient(phi: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = objective.value_and_gradient(parameters(phi))
        norms[phi.tobytes()] = gradient.norm().item()
        return value.item(), (gradient @ t).cpu().numpy()

    def product(phi: np.ndarray, y: np.ndarray) -> np.ndarray:
        key = phi.tobytes()
        if key not in at:
            at.clear()
            at[key] = coordinates.whitened(objective.products(parameters(phi)))
        return at[key](torch.from_numpy(y).to(t)[None])[0].cpu().numpy()

    def stop(intermediate_result: OptimizeResult) -> None:
        if norms[intermediate_result.x.tobytes()] <= tolerance:
            raise StopIteration

    start = np.zeros(len(w))
    value_and_gradient(start)
    if norms[start.tobytes()] <= tolerance:
        return w, norms[start.tobytes()]
    found = minimize(
        value_and_gradient,
        start,
        jac=True,
        hessp=product,
        method="trust-ncg",
        callback=stop,
        options={
            "maxiter": n_iterations,
            "gtol": 0.0,
            "initial_trust_radius": RADIUS,
            "max_trust_radius": LARGEST_RADIUS,
        },
    )
    return parameters(found.x), norms[found.x.tobytes()]
