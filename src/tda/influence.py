"""Influence functions: a first-order estimate of leave-one-out (Koh and Liang 2017).

    τ(z_j, z) = −g(z)ᵀ H⁻¹ g(z_j)

H is the Hessian of the mean training loss at θ, or in its place the Gauss–Newton matrix
(`src.tda.gauss_newton`). Negative: z_j helps z.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from src.data.samples import Samples
from src.ensemble.members import Params, PerSampleLoss, State
from src.ensemble.memory import gradient_batch, in_chunks, vectors_at_once
from src.tda.estimator import Draws, Scores, each_checkpoint, stacked
from src.tda.gauss_newton import GaussNewton
from src.tda.gradients import PerSampleGradients, per_sample_gradients
from src.tda.hessian import Hessian, flatten, unflatten
from src.tda.solvers import Solver
from src.tda.solvers.conjugate_gradient import ConjugateGradient
from src.tda.solvers.exact import Exact
from src.tda.solvers.lissa import Lissa

SOLVERS = {solver.name: solver for solver in (Lissa, ConjugateGradient, Exact)}
CURVATURES: dict[str, type[Hessian]] = {"hessian": Hessian, "ggn": GaussNewton}


@dataclass(frozen=True)
class InfluenceFunction:
    """The estimator `if`.

    Attributes:
        solver: How the inverse Hessian is applied.
        chunk_size: Gradients solved for at once; None: what fits.
        curvature: Which matrix, "hessian" or "ggn".
    """

    methods: ClassVar[tuple[str, ...]] = ("if",)
    retrains: ClassVar[bool] = False

    solver: Solver = Lissa()
    chunk_size: int | None = None
    curvature: str = "hessian"

    def settings(self) -> dict:
        """Return every option that changes the numbers."""
        settings = {"solver": self.solver.name, **asdict(self.solver)}
        # Of the Hessian files say nothing, as those do that are older than the choice.
        return settings if self.curvature == "hessian" else settings | {"curvature": self.curvature}

    def __call__(self, draws: Draws) -> dict[str, Scores]:
        """Return the scores of all pairs at all checkpoints, by method."""
        setup, scored = draws.setup, draws.setup.scored_samples

        def of_checkpoint(checkpoint: State) -> tuple[Tensor, dict[str, Tensor]]:
            return influence(
                setup.loss,
                checkpoint,
                setup.train,
                setup.test,
                self.solver,
                chunk_size=self.chunk_size or vectors_at_once(setup.loss, checkpoint, setup.train),
                measure=setup.measure,
                scored=scored,
                curvature=CURVATURES[self.curvature],
            )

        scores, known = stacked(each_checkpoint(draws, of_checkpoint, f"if seed {draws.seed}"))
        return {"if": Scores(scores, known, self.solver.describe(known))}


def influence(
    loss: PerSampleLoss,
    checkpoint: State,
    train: Samples,
    test: Samples,
    solver: Solver,
    *,
    chunk_size: int,
    measure: PerSampleLoss | None = None,
    scored: Samples | None = None,
    curvature: type[Hessian] = Hessian,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the scores (n_scored, n_test) of all pairs at one checkpoint.

    The inverse Hessian is applied to the smaller side of the pair matrix. A solver whose map M is
    defined on the test side, g(z)ᵀ M ᵀ g(z_j), is transposed where that side is the larger one.

    Args:
        loss: The per-sample loss.
        checkpoint: State θ.
        train: The training samples, which the Hessian is of.
        test: The test samples.
        solver: Applies the inverse Hessian.
        chunk_size: Vectors solved for at once.
        measure: What of a test sample is attributed, whose gradient g(z) is; None: the loss.
        scored: The training samples that are scored; None: all.
        curvature: The matrix that is inverted.

    Returns:
        The scores, and what the solver knows of each solved vector, (min(n_scored, n_test),), by
        name.
    """
    scored = train if scored is None else scored
    of_test, _ = (measure or loss).at(checkpoint)
    loss, params = loss.at(checkpoint)
    hessian = curvature(loss, params, train, solver.batch_size)
    solve = partial(solver.solve, hessian, transpose=len(scored) <= len(test))
    products, known = solved_products(
        params, (loss, scored), (of_test, test), solve, chunk_size=chunk_size
    )
    return -products, known


def solved_products(
    params: Params,
    train: tuple[PerSampleLoss, Samples],
    test: tuple[PerSampleLoss, Samples],
    solve: Callable[[Tensor], tuple[Tensor, dict[str, Tensor]]],
    *,
    chunk_size: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return g(z)ᵀ M g(z_j) of all pairs, (n_train, n_test), M applied to the smaller side.

    Args:
        params: The trainable parameters.
        train: The training samples that are scored, and the loss whose gradients are taken.
        test: The same of the test samples.
        solve: Returns M v of the rows v of a matrix (K, P), which are training gradients, or where
            the test samples are fewer Mᵀ v of test gradients; and what is known of each, (K,), by
            name.
        chunk_size: Vectors solved for at once.

    Returns:
        The products, and what is known of each solved vector, (min(n_train, n_test),), by name.
    """
    of_train_solved = len(train[1]) <= len(test[1])
    solved_side, other_side = (train, test) if of_train_solved else (test, train)
    batch_size = min(chunk_size, gradient_batch(train[0], params, train[1]))

    def gradients(side: tuple[PerSampleLoss, Samples], batch: range) -> PerSampleGradients:
        of_sample, samples = side
        return per_sample_gradients(of_sample, params, *samples[batch.start : batch.stop])

    def rows(chunk: range) -> tuple[Tensor, dict[str, Tensor]]:
        vectors = in_chunks(
            chunk, batch_size, lambda batch: flatten(gradients(solved_side, batch).stack())
        )
        solved, of_solutions = solve(torch.cat([*vectors]))
        solutions = unflatten(solved, params)
        products = in_chunks(
            range(len(other_side[1])),
            batch_size,
            lambda batch: gradients(other_side, batch).contract(solutions),
        )
        return torch.cat([*products], 1), of_solutions

    blocks, known = zip(*in_chunks(range(len(solved_side[1])), chunk_size, rows), strict=True)
    products = torch.cat(blocks)
    found = {name: torch.cat([chunk[name] for chunk in known]) for name in known[0]}
    return products if of_train_solved else products.T, found
