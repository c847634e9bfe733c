"""Ways to apply the inverse Hessian to vectors, one module each."""

from __future__ import annotations

from typing import ClassVar, Protocol

from torch import Tensor

from src.tda.hessian import Hessian


class Solver(Protocol):
    """Applies (an approximation of) the inverse Hessian.

    Attributes:
        name: What `run_if.py --solver` calls it.
        batch_size: Samples in a batch of the Hessian that it is given.
    """

    name: ClassVar[str]
    batch_size: int

    def solve(
        self, hessian: Hessian, vectors: Tensor, *, transpose: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return solutions (K, P) of K vectors (K, P), and what is known of each, (K,), by name.

        `transpose` asks for the transposed map, which is another one only if the solver's map is
        not symmetric.

        Raises:
            DivergedError: What was computed is no solution.
        """

    def describe(self, known: dict[str, Tensor]) -> str:
        """Return what is known of the solutions, each entry of any shape, for people."""
