"""Stationary points and inverse Hessians of a small network, by its dense Hessian.

With the eigenvalues Λ and eigenvectors V of the objective's Hessian H + c I at some parameters w₀,
coordinates φ stand for

    w = w₀ + T φ,        T = V |Λ|^(−1/2),

with sizes |Λ| of at least a tenth of the damping c. In them the Hessian has the eigenvalues 1 and
−1 at w₀, so that L-BFGS, which takes thousands of iterations in w, takes tens from w₀, also without
a sample. c is the weight decay or, without, a small number. Far from an optimum, where H says
little of the way there, the Gauss–Newton matrix in its place costs a tenth.

How far from stationary a point is, is the norm ‖Tᵀ∇F‖, Newton's decrement: at a minimum half of its
square is what F can still fall by. Unlike ‖∇F‖ it weighs directions as the change of the parameters
does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy.optimize import OptimizeResult, minimize
from torch import Tensor

from src.data.samples import Samples
from src.ensemble.members import Params, PerSampleLoss
from src.errors import DivergedError
from src.fragility.chain import chain_hessian
from src.fragility.objective import Objective
from src.tda.hessian import Hessian

CORRECTIONS = 100  # that L-BFGS keeps
FLOOR = 0.1  # share of the damping that an eigenvalue has at least, for coordinates
REFINEMENTS = 3

# Of the mean loss, at parameters, of samples: (P, P).
Curvature = Callable[[PerSampleLoss, Params, Samples], Tensor]


@dataclass(frozen=True)
class Coordinates:
    """The spectrum of H + c I at one point, and T.

    Attributes:
        values: Λ, ascending (P,).
        vectors: V, a column for each (P, P).
        damp: c.
    """

    values: Tensor
    vectors: Tensor
    damp: float

    @classmethod
    def at(
        cls, objective: Objective, w: Tensor, damp: float, curvature: Curvature = chain_hessian
    ) -> Coordinates:
        """Return those at parameters (P,), with the damping c; the matrix is computed in float32.

        What float32 costs the inverse, `Refined` makes good.

        Args:
            objective: F.
            w: The parameters.
            damp: c.
            curvature: Another matrix in H's place.
        """
        single = objective.single()
        matrix = curvature(single.loss, single.params(w.float()), single.train).to(w.dtype)
        matrix.diagonal().add_(damp)
        return cls(*torch.linalg.eigh(matrix), damp)

    @property
    def _scales(self) -> Tensor:
        return self.values.abs().clamp(min=FLOOR * self.damp).rsqrt()

    def changes(self, phi: Tensor) -> Tensor:
        """Return T φ of each row (K, P)."""
        return (phi * self._scales) @ self.vectors.T

    def gradients(self, of_parameters: Tensor) -> Tensor:
        """Return Tᵀ g, the gradient with respect to φ, of each row (K, P) with respect to w."""
        return (of_parameters @ self.vectors) * self._scales

    def decrement(self, gradient: Tensor) -> float:
        """Return ‖Tᵀ∇F‖ of a gradient (P,)."""
        return self.gradients(gradient[None]).norm().item()

    def inverse(self, rows: Tensor) -> Tensor:
        """Return (H + c I)⁻¹ v of each row (K, P)."""
        return (rows @ self.vectors / self.values) @ self.vectors.T


@dataclass(frozen=True)
class Refined:
    """(H + c I)⁻¹ by coordinates' spectrum, refined by residuals with the Hessian that is given.

    Attributes:
        coordinates: Where H is the same but for its rounding.
        batch_size: Samples whose Hessian is computed at once.
    """

    name: ClassVar[str] = "refined"

    coordinates: Coordinates
    batch_size: int

    def solve(
        self, hessian: Hessian, vectors: Tensor, *, transpose: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return solutions (K, P), and of each its `residual`, relative to the vector's norm (K,).

        Raises:
            DivergedError: Products are not finite.
        """
        del transpose  # symmetric
        x, left = torch.zeros_like(vectors), vectors
        for _ in range(REFINEMENTS):
            x = x + self.coordinates.inverse(left)
            left = vectors - hessian.product(x) - self.coordinates.damp * x
        residual = left.norm(dim=1) / vectors.norm(dim=1)
        if not residual.isfinite().all():
            raise DivergedError(f"products with the {hessian.name} are not finite")
        return x, {"residual": residual}

    def describe(self, known: dict[str, Tensor]) -> str:
        """Return the residuals."""
        return f"relative residual up to {known['residual'].max():.1e}"


def minimise(
    objective: Objective, w: Tensor, coordinates: Coordinates, n_iterations: int, tolerance: float
) -> Tensor:
    """Minimise F from w by L-BFGS in coordinates, and return where it ended (P,).

    The coordinates' scale is the decrement s at w: with ψ = φ / s and F / s², whose gradient has
    norm 1 at first, the first step of scipy's is the one of length 1, which is Newton's.

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
