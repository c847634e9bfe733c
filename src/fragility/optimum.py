"""What can be said at the optimum of one seed, without training again."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from src.analysis.stats import correlation
from src.data.samples import Samples
from src.ensemble.members import Params, PerSampleLoss
from src.errors import DivergedError
from src.fragility.descent import Layers, flat, to_stack, unflat
from src.fragility.influence import parameter_changes, stable_lissa_changes
from src.fragility.iris import Configuration
from src.fragility.response import bregman_objective, minimise
from src.tda.gauss_newton import GaussNewton
from src.tda.gradients import per_sample_gradients
from src.tda.hessian import Hessian, flatten
from src.tda.solvers.conjugate_gradient import ConjugateGradient
from src.tda.solvers.exact import Exact

# Of conjugate gradient; the matrix may be indefinite, and then its residual stays where it is.
TOLERANCE = 1e-6
MAX_ITERATIONS = 1_000


class Matrix:
    """A curvature matrix in memory, for several solvers and the eigenvalues.

    Args:
        curvature: What it is computed from.
    """

    def __init__(self, curvature: Hessian) -> None:
        self.name = curvature.name
        self._matrix = curvature.dense()

    def dense(self) -> Tensor:
        """Return the matrix (P, P)."""
        return self._matrix

    def product(self, vectors: Tensor) -> Tensor:
        """Return its products (K, P) with K vectors (K, P)."""
        return vectors @ self._matrix


@dataclass
class Optimum:
    """A seed's optimum θ, and the samples that are asked about.

    Attributes:
        configuration: How it was trained.
        loss: The per-sample loss.
        params: θ.
        layers: θ again, a stack of one.
        train: The n training samples.
        removed: The K of them that are left out, one at a time.
        test: The test point z, one sample.
    """

    configuration: Configuration
    loss: PerSampleLoss
    params: Params
    layers: Layers
    train: Samples
    removed: Samples
    test: Samples

    def loss_changes(self, changes: Tensor, of: Samples) -> Tensor:
        """Return what changes (K, P) of θ change the losses of n_of samples by, (K, n_of)."""
        moved = to_stack(unflat(flat(self.layers) + changes, self.layers), self.params)
        return self.loss.of_members(moved, *of[:]) - self.loss(self.params, *of[:])

    def predicted_loss_changes(self, changes: Tensor, of: Samples) -> Tensor:
        """Return g(z)ᵀ Δθ, (K, n_of), of changes Δθ (K, P) and n_of samples z."""
        return changes @ flatten(per_sample_gradients(self.loss, self.params, *of[:]).stack()).T

    def fits_of_control(self, changes: Tensor, predicted: Tensor) -> dict[str, Tensor]:
        """Return correlations with what the control changes, over all training samples z, (K,).

        That is with what leaving out each of K samples changes the losses of all z by: by
        retraining (`retrained_raw`), the same less the control's change (`retrained`), and as
        predicted (`influence`).

        Args:
            changes: Of θ by retraining without each sample, and last by the control, (K + 1, P).
            predicted: Of θ, (K, P).
        """
        actual = self.loss_changes(changes, self.train)
        found = {
            "retrained_raw": actual[:-1],
            "retrained": actual[:-1] - actual[-1],
            "influence": self.predicted_loss_changes(predicted, self.train),
        }
        control = actual[-1].cpu().numpy()
        return {
            name: torch.tensor([correlation(row, control, "pearson") for row in rows.cpu().numpy()])
            for name, rows in found.items()
        }

    @cached_property
    def hessian(self) -> Matrix:
        """The Hessian of the mean training loss."""
        return Matrix(Hessian(self.loss, self.params, self.train, len(self.train)))

    @cached_property
    def gauss_newton(self) -> Matrix:
        """The Gauss–Newton matrix of the mean training loss."""
        return Matrix(GaussNewton(self.loss, self.params, self.train, len(self.train)))

    def response(self) -> tuple[Tensor, Tensor]:
        """Return the proximal Bregman response Δθ (K, P), and the gradients' norms there (K,)."""
        c = self.configuration
        objective = bregman_objective(
            self.layers, self.train[:], self.removed.indices.tolist(), c.damp, c.activation
        )
        matrix = self.gauss_newton.dense().clone()
        matrix.diagonal().add_(c.damp)
        at, gradients = minimise(objective, matrix, c.response_steps)
        return at - flat(self.layers), gradients

    def predictions(self, seed: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the predicted Δθ (K, P) by estimator, and what is known of them.

        An estimator that came to no solution is left out, and known by what it said.

        Args:
            seed: Draws LiSSA's batches.
        """
        c = self.configuration
        n = len(self.train)
        solvers = {
            "exact": (Exact(c.damp, n), self.hessian),
            "cg": (ConjugateGradient(c.damp, TOLERANCE, MAX_ITERATIONS, n), self.hessian),
            "ggn": (Exact(c.damp, n), self.gauss_newton),
        }
        found, known = {}, {}
        for name, (solver, matrix) in solvers.items():
            try:
                found[name], of_solver = parameter_changes(
                    self.loss, self.params, self.train, self.removed, solver, lambda *_, m=matrix: m
                )
            except DivergedError as error:
                known[name] = str(error)
            else:
                known[name] = {key: value.cpu() for key, value in of_solver.items()}
        if c.lissa_steps:
            found["lissa"], scale = stable_lissa_changes(
                self.loss,
                self.params,
                self.train,
                self.removed,
                damp=c.damp,
                scale=c.lissa_scale,
                n_steps=c.lissa_steps,
                batch_size=c.lissa_batch,
                seed=seed,
            )
            known["lissa"] = {"scale": scale}
        return found, known
