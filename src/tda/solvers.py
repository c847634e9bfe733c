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
    ) -> tuple[Tensor, Tensor | None]:
        """Return solutions (K, P) of K vectors (K, P), and relative residuals (K,) or None.

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

    def solve(self, hessian: Hessian, vectors: Tensor, *, transpose: bool) -> tuple[Tensor, None]:
        """Return M v, or Mᵀ v, for each row v of `vectors`."""

        def contract(batch: int, h: Tensor) -> Tensor:  # A_b h
            return (1 - self.damp) * h - hessian.batch_product(batch, h) / self.scale

        batches = range(len(hessian.batches))
        if transpose:
            product = total = vectors
            for batch in reversed(batches):
                product = contract(batch, product)
                total = total + product
        else:
            total = vectors
            for batch in batches:
                total = vectors + contract(batch, total)
        return total / self.scale, None


@dataclass(frozen=True)
class ConjugateGradient:
    """Conjugate gradient on (H + damp I) x = v, each vector on its own, to a relative residual.

    H of a network need not be positive definite. Where a direction has no positive curvature the
    iteration goes on (it is then the symmetric Lanczos process, which may still converge); what is
    returned for each vector is its iterate of smallest residual, and that residual.
    """

    damp: float = 5e-3
    tolerance: float = 1e-3
    max_iterations: int = 500
    batch_size: int = 32

    def solve(
        self, hessian: Hessian, vectors: Tensor, *, transpose: bool
    ) -> tuple[Tensor, Tensor]:
        """Return solutions (K, P) and the norms of their residuals over the vectors' (K,)."""
        del transpose  # (H + damp I)⁻¹ is symmetric

        def matvec(x: Tensor) -> Tensor:
            return hessian.product(x) + self.damp * x

        solution = conjugate_gradient(matvec, vectors, self.tolerance, self.max_iterations)
        # The residual of the recurrence drifts from the true one; what is stated is the true one.
        norms = vectors.norm(dim=1)
        residual = (vectors - matvec(solution)).norm(dim=1)
        return solution, torch.where(norms > 0, residual / norms, 0)


def conjugate_gradient(
    matvec: Callable[[Tensor], Tensor], vectors: Tensor, tolerance: float, max_iterations: int
) -> Tensor:
    """Return x (K, P) with matvec(x) = vectors, row by row, each to its own relative residual."""
    solution = torch.zeros_like(vectors)
    threshold = tolerance * vectors.norm(dim=1)
    active = (threshold > 0).nonzero().flatten()
    x, r = solution[active], vectors[active]
    p, rr = r, r.square().sum(1)
    best, best_rr = x, rr
    for _ in range(max_iterations):
        if len(active) == 0:
            break
        ap = matvec(p)
        alpha = (rr / (p * ap).sum(1))[:, None]
        x, r = x + alpha * p, r - alpha * ap
        new_rr = r.square().sum(1)
        better = new_rr < best_rr  # False where the iteration broke down to nan
        best = torch.where(better[:, None], x, best)
        best_rr = torch.where(better, new_rr, best_rr)
        solution[active] = best
        p = r + (new_rr / rr)[:, None] * p
        rr = new_rr
        # Finished vectors leave, so that the last ones do not pay for all.
        going = (best_rr.sqrt() > threshold[active]) & rr.isfinite()
        active, x, r, p = active[going], x[going], r[going], p[going]
        rr, best, best_rr = rr[going], best[going], best_rr[going]
    return solution


@dataclass(frozen=True)
class Exact:
    """Dense factorisation of H + damp I, for models that are small enough."""

    damp: float = 5e-3
    batch_size: int = 32

    def solve(self, hessian: Hessian, vectors: Tensor, *, transpose: bool) -> tuple[Tensor, None]:
        """Return (H + damp I)⁻¹ v for each row v of `vectors`."""
        del transpose  # symmetric
        matrix = hessian.dense()
        matrix.diagonal().add_(self.damp)
        return torch.linalg.solve(matrix, vectors.T).T, None
