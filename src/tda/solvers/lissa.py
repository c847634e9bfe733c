"""LiSSA: the recursion of the paper, one pass over the training set."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from src.errors import DivergedError, UserError
from src.tda.hessian import Hessian

# Of a norm, what rounding may add to it in a pass, and curvature that is hardly negative.
ROUNDING = 0.01


@dataclass(frozen=True)
class Lissa:
    """One pass of LiSSA over the training set (Agarwal et al. 2017; published code).

    For every batch, in stored order: h ← v + (1 − damp) h − H_batch h / scale, from h = v; the
    result is h / scale. With A_b = (1 − damp) I − H_b / scale this is the linear map

        M = (I + A_B + A_B A_{B−1} + … + A_B ⋯ A_1) / scale,

    whose transpose, since every A_b is symmetric, sums products that grow from the other end:

        Mᵀ = (I + A_B + A_{B−1} A_B + … + A_1 ⋯ A_B) / scale.

    It approximates an inverse only where no A_b turns a component's sign, so where no H_b has an
    eigenvalue above (1 − damp) scale (the paper assumes eigenvalues up to 1 at scale 1). Beyond,
    scores turn sign; beyond (2 − damp) scale they also grow without bound, as they do where
    curvature is negative enough. Two things show it in a pass, and refuse the scale:

    - a product with ‖H_b x‖ / ‖x‖ > (1 − damp) scale, which no H_b has whose spectral radius is
      smaller. A component that has diverged fills x, so that the quotient finds its eigenvalue;
    - a norm that no sum or product of A_b with ‖A_b‖ ≤ 1 can have.

    Raises:
        UserError: The damping is 1 or more: every A_b turns the sign of every positive curvature.
    """

    name: ClassVar[str] = "lissa"

    damp: float = 5e-3
    scale: float = 1e4
    batch_size: int = 8

    def __post_init__(self) -> None:
        """Check the damping."""
        if self.damp >= 1:
            raise UserError(f"--damp is {self.damp:g}: with --solver lissa it has to be below 1")

    @property
    def largest_radius(self) -> float:
        """The spectral radius of a batch's Hessian up to which no component's sign is turned."""
        return (1 - self.damp) * self.scale

    def solve(
        self, hessian: Hessian, vectors: Tensor, *, transpose: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return M v, or Mᵀ v, for each row v of `vectors`, with its `growth` and `radius`, (K,).

        The growth is scale ‖M v‖ / ‖v‖, the recursion's norm at the end of the pass relative to
        its start. The radius is the largest ‖H_b x‖ / ‖x‖ of the pass, which the spectral radius
        of at least one batch's Hessian reaches. Both are 0 for a vector of zeros.

        Raises:
            DivergedError: The scale is too small.
        """
        # A few vectors through all batches, not all through a batch: a few stay in cache.
        passes = [
            self._apply(hessian, rows, transpose=transpose)
            for rows in vectors.split(hessian.vectors_at_once)
        ]
        solutions, growth, radius = (torch.cat(parts) for parts in zip(*passes, strict=True))
        return solutions, {"growth": growth, "radius": radius}

    def _apply(
        self, hessian: Hessian, vectors: Tensor, *, transpose: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        norms, of_products = [vectors.norm(dim=1)], []  # ‖x‖ from the start on, ‖H_b x‖

        # In place, since what takes time is to read and write vectors of all parameters.
        def contract(batch: int, x: Tensor) -> Tensor:  # A_b x
            product = hessian.batch_product(batch, x)
            of_products.append(product.norm(dim=1))
            return product.mul_(-1 / self.scale).add_(x, alpha=1 - self.damp)

        batches = [*range(len(hessian.batches))]
        if transpose:
            batches.reverse()
            product, total = vectors, vectors.clone()
            for batch in batches:
                product = contract(batch, product)
                norms.append(product.norm(dim=1))
                total.add_(product)
        else:
            total = vectors
            for batch in batches:
                total = contract(batch, total).add_(vectors)
                norms.append(total.norm(dim=1))
        at_most = [1 if transpose else 1 + step for step in range(len(norms))]
        # Not after every batch, since a GPU would have to wait for the answer.
        radius = self._check(
            hessian, batches, torch.stack(norms), torch.stack(of_products), at_most
        )
        growth = total.norm(dim=1) / norms[0]
        return total / self.scale, torch.where(norms[0] > 0, growth, 0), radius

    def _check(
        self,
        hessian: Hessian,
        batches: list[int],
        norms: Tensor,
        of_products: Tensor,
        at_most: list[int],
    ) -> Tensor:
        """Return the largest ‖H_b x‖ / ‖x‖ (K,) of a pass.

        Args:
            hessian: The Hessian.
            batches: Its batches in the order of the pass.
            norms: ‖x‖ before each batch and at the end, (B + 1, K).
            of_products: ‖H_b x‖, (B, K).
            at_most: What ‖x‖ / ‖v‖ would be at most if no A_b expanded, B + 1 numbers.

        Raises:
            DivergedError: The pass showed that the scale is too small.
        """
        # What has overflowed says no more; the steps before it do.
        radii = torch.where(norms[:-1] > 0, of_products / norms[:-1], 0).nan_to_num(0, 0)  # (B, K)
        radius = radii.max().item()
        if radius > self.largest_radius:
            batch = batches[radii.amax(1).argmax().item()]
            first, n = batch * self.batch_size, len(hessian.batches[batch][1])
            raise DivergedError(
                f"--scale {self.scale:g} is too small for LiSSA: the {hessian.name} of training "
                f"samples {first} to {first + n - 1} has a spectral radius of {radius:.4g} or "
                f"more, and above (1 - damp) scale = {self.largest_radius:.4g} scores turn sign; "
                f"try --scale {self._enough(radius):g}"
            )
        bounds = norms.new_tensor(at_most)[:, None] * norms[0] * (1 + ROUNDING)
        if (norms > bounds).any():
            grown = norms / norms[0]
            raise DivergedError(
                f"--scale {self.scale:g} is too small for LiSSA: where the Hessian's curvature is "
                f"negative the recursion grows, in a pass to {grown[norms > bounds].max():.4g} "
                f"times its start; use a larger --scale, or a larger --damp than {self.damp:g}"
            )
        return radii.amax(0)

    def _enough(self, radius: float) -> float:
        """Return a scale for twice the radius met, since other batches may have a larger one."""
        scale = 2 * radius / (1 - self.damp)
        unit = 10 ** (math.floor(math.log10(scale)) - 1)
        return math.ceil(scale / unit) * unit  # two digits

    def describe(self, known: dict[str, Tensor]) -> str:
        """Return the growth, and how far the scale is from one that diverges."""
        growth, radius = known["growth"], known["radius"].max().item()
        return (
            f"growth {growth.min():.4g} to {growth.max():.4g}, to which a batch adds 1 where the "
            f"Hessian has no effect; spectral radius of the batches' Hessians {radius:.4g} or "
            f"more, so that --scale has to be above {radius / (1 - self.damp):.4g}"
        )
