"""Conjugate gradient: a product with the whole Hessian in each iteration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from src.errors import DivergedError
from src.tda.hessian import Hessian


@dataclass(frozen=True)
class ConjugateGradient:
    """Conjugate gradient on (H + damp I) x = v, each vector on its own, to a relative residual.

    H of a network has negative eigenvalues, often larger in size than a usual damping. Then the
    iteration is the symmetric Lanczos process, which converges on small problems but whose
    residual on large ones goes up and down: what is returned for each vector is its iterate of
    smallest residual, with that residual, and the smallest curvature met, which `damp` has to
    exceed for every system to be positive definite.
    """

    name: ClassVar[str] = "cg"

    damp: float = 5e-3
    tolerance: float = 1e-3
    max_iterations: int = 200
    batch_size: int = 32

    def solve(
        self, hessian: Hessian, vectors: Tensor, *, transpose: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return solutions (K, P), and of each its `residual` and `curvature`, (K,).

        The residual is relative to the vector's norm. The curvature is the smallest of H, without
        the damping, in the directions of the iteration.

        Raises:
            DivergedError: Products are not finite, or no iterate is better than a vector of zeros.
        """
        del transpose  # (H + damp I)⁻¹ is symmetric

        def matvec(x: Tensor) -> Tensor:
            return hessian.product(x) + self.damp * x

        solutions, curvature = conjugate_gradient(
            matvec, vectors, self.tolerance, self.max_iterations
        )
        # The residual of the recurrence drifts from the true one; what is stated is the true one.
        norms = vectors.norm(dim=1)
        residual = (vectors - matvec(solutions)).norm(dim=1)
        if not residual.isfinite().all():
            raise DivergedError(
                f"gradients, or their products with the {hessian.name}, are not finite"
            )
        unsolved = (norms > 0) & (solutions == 0).all(1)
        if unsolved.any():
            raise DivergedError(
                f"cg came no nearer to the solution of {unsolved.sum()} of {len(vectors)} systems "
                f"than a vector of zeros in {self.max_iterations} iterations; the {hessian.name} "
                f"has curvature {(curvature - self.damp).min():.2g}: use a larger --damp than "
                f"{self.damp:g}, or more --max_iterations"
            )
        return solutions, {
            "residual": torch.where(norms > 0, residual / norms, 0),
            "curvature": curvature - self.damp,
        }

    def describe(self, known: dict[str, Tensor]) -> str:
        """Return the residuals, and what to do where curvature is negative."""
        residual, curvature = known["residual"], known["curvature"].min().item()
        message = (
            f"relative residual median {residual.median():.1e}, largest {residual.max():.1e}; "
            f"{(residual <= self.tolerance).float().mean():.1%} of the systems reached "
            f"{self.tolerance:g}"
        )
        if curvature <= -self.damp:
            message += (
                f"; the Hessian has curvature {curvature:.2g}: only with --damp above "
                f"{-curvature:.2g} are the systems positive definite, as cg needs to converge well"
            )
        return message


def conjugate_gradient(
    matvec: Callable[[Tensor], Tensor], vectors: Tensor, tolerance: float, max_iterations: int
) -> tuple[Tensor, Tensor]:
    """Solve matvec(x) = vectors row by row.

    Args:
        matvec: A symmetric linear map of rows, (K, P) to (K, P).
        vectors: The right-hand sides (K, P).
        tolerance: Norm of the residual, relative to the vector's, at which a row is finished.
        max_iterations: Iterations at most.

    Returns:
        For each row its iterate of smallest residual (K, P), and the smallest curvature pᵀAp / pᵀp
        along its directions (K,), infinite for a vector of zeros.
    """
    solutions = torch.zeros_like(vectors)
    smallest = vectors.new_full((len(vectors),), torch.inf)
    threshold = tolerance * vectors.norm(dim=1)
    active = threshold.nonzero().flatten()
    x, r = solutions[active], vectors[active]
    p, rr = r, r.square().sum(1)
    best_rr = rr
    for _ in range(max_iterations):
        if len(active) == 0:
            break
        ap = matvec(p)
        pap = (p * ap).sum(1)
        smallest[active] = torch.minimum(smallest[active], pap / p.square().sum(1))
        alpha = (rr / pap)[:, None]
        x, r = x + alpha * p, r - alpha * ap
        new_rr = r.square().sum(1)
        better = new_rr < best_rr  # False for the nan of a direction without curvature
        solutions[active[better]] = x[better]
        best_rr = torch.where(better, new_rr, best_rr)
        p = r + (new_rr / rr)[:, None] * p
        rr = new_rr
        # Finished rows leave, so that the last ones do not pay for all.
        going = rr.isfinite() & (rr.sqrt() > threshold[active])
        active, x, r, p = active[going], x[going], r[going], p[going]
        rr, best_rr = rr[going], best_rr[going]
    return solutions, smallest
