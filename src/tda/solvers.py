"""Three ways to apply the inverse Hessian to vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from src.tda.hessian import Hessian


class Solver(Protocol):
    """Applies (an approximation of) the inverse Hessian.

    Attributes:
        batch_size: Samples in a batch of the Hessian that it is given.
    """

    batch_size: int

    def solve(
        self, hessian: Hessian, vectors: Tensor, *, transpose: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return solutions (K, P) of K vectors (K, P), and what is known of each, (K,), by name.

        `transpose` asks for the transposed map, which is another one only if the solver's map is
        not symmetric.
        """


@dataclass(frozen=True)
class Lissa:
    """One pass of LiSSA over the training set (Agarwal et al. 2017; published code).

    For every batch, in stored order: h ← v + (1 − damp) h − H_batch h / scale, from h = v; the
    result is h / scale. With A_b = (1 − damp) I − H_b / scale this is the linear map

        M = (I + A_B + A_B A_{B−1} + … + A_B ⋯ A_1) / scale,

    whose transpose, since every A_b is symmetric, sums products that grow from the other end:

        Mᵀ = (I + A_B + A_{B−1} A_B + … + A_1 ⋯ A_B) / scale.
    """

    damp: float = 5e-3
    scale: float = 1e4
    batch_size: int = 8

    def solve(
        self, hessian: Hessian, vectors: Tensor, *, transpose: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return M v, or Mᵀ v, for each row v of `vectors`."""
        # A few vectors through all batches, not all through a batch: a few stay in cache.
        solutions = [
            self._apply(hessian, rows, transpose=transpose)
            for rows in vectors.split(hessian.vectors_at_once)
        ]
        return torch.cat(solutions), {}

    def _apply(self, hessian: Hessian, vectors: Tensor, *, transpose: bool) -> Tensor:
        # In place, since what takes time is to read and write vectors of all parameters.
        def contract(batch: int, h: Tensor) -> Tensor:  # A_b h
            product = hessian.batch_product(batch, h)
            return product.mul_(-1 / self.scale).add_(h, alpha=1 - self.damp)

        batches = range(len(hessian.batches))
        if transpose:
            product, total = vectors, vectors.clone()
            for batch in reversed(batches):
                product = contract(batch, product)
                total.add_(product)
        else:
            total = vectors
            for batch in batches:
                total = contract(batch, total).add_(vectors)
        return total / self.scale


@dataclass(frozen=True)
class ConjugateGradient:
    """Conjugate gradient on (H + damp I) x = v, each vector on its own, to a relative residual.

    H of a network has negative eigenvalues, often larger in size than a usual damping. Then the
    iteration is the symmetric Lanczos process, which converges on small problems but whose
    residual on large ones goes up and down: what is returned for each vector is its iterate of
    smallest residual, with that residual, and the smallest curvature met, which `damp` has to
    exceed for every system to be positive definite.
    """

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
        return solutions, {
            "residual": torch.where(norms > 0, residual / norms, 0),
            "curvature": curvature - self.damp,
        }


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


@dataclass(frozen=True)
class Exact:
    """Dense factorisation of H + damp I, for models that are small enough."""

    damp: float = 5e-3
    batch_size: int = 32

    def solve(
        self, hessian: Hessian, vectors: Tensor, *, transpose: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return (H + damp I)⁻¹ v for each row v of `vectors`."""
        del transpose  # symmetric
        matrix = hessian.dense()
        matrix.diagonal().add_(self.damp)
        return torch.linalg.solve(matrix, vectors.T).T, {}
