"""The dense Hessian and its eigenvectors, for models that are small enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from src.errors import DivergedError
from src.tda.hessian import Hessian


@dataclass(frozen=True)
class Exact:
    """Eigenvalues and eigenvectors of the dense H + damp I, for models that are small enough."""

    name: ClassVar[str] = "exact"

    damp: float = 5e-3
    batch_size: int = 32

    def solve(
        self, hessian: Hessian, vectors: Tensor, *, transpose: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return (H + damp I)⁻¹ v for each row v of `vectors`, and what is known of the matrix.

        That is the `curvature`, H's smallest eigenvalue, and the `condition` of H + damp I, the
        ratio of its largest eigenvalue to its smallest, in size: the same for all rows, (K,).

        Raises:
            DivergedError: The matrix is singular to its precision, or not finite.
        """
        del transpose  # symmetric
        matrix = hessian.dense()
        if not matrix.isfinite().all():
            raise DivergedError(f"the {hessian.name} is not finite")
        eigenvalues, eigenvectors = torch.linalg.eigh(matrix)
        damped = eigenvalues + self.damp
        smallest, largest = damped.abs().min(), damped.abs().max()
        if not smallest > largest * torch.finfo(damped.dtype).eps:
            raise DivergedError(
                f"H + damp I is singular: with --damp {self.damp:g} the size of its eigenvalues "
                f"goes from {smallest:.2g} to {largest:.2g}, and that of H itself begins at "
                f"{eigenvalues[0]:.2g}: use a --damp well above {-eigenvalues[0].clamp(max=0):.2g}"
            )
        solutions = (vectors @ eigenvectors / damped) @ eigenvectors.T
        known = {"curvature": eigenvalues[0], "condition": largest / smallest}
        return solutions, {name: value.expand(len(vectors)) for name, value in known.items()}

    def describe(self, known: dict[str, Tensor]) -> str:
        """Return the condition, and whether the matrix is positive definite."""
        curvature = known["curvature"].min().item()
        message = f"condition of H + damp I up to {known['condition'].max():.2g}"
        if curvature <= -self.damp:
            message += (
                f"; the Hessian has an eigenvalue of {curvature:.2g}: only with --damp above "
                f"{-curvature:.2g} is it positive definite"
            )
        return message
