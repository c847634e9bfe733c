"""Influence functions: a first-order estimate of leave-one-out (Koh and Liang 2017).

    τ(z_j, z) = −g(z)ᵀ H⁻¹ g(z_j)

H is the Hessian of the mean training loss at θ. Negative: z_j helps z.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar

import torch
from torch import Tensor

from src.data.samples import Samples
from src.ensemble.members import PerSampleLoss, State
from src.ensemble.memory import gradient_batch, in_chunks, vectors_at_once
from src.tda.estimator import Draws, Scores, each_checkpoint
from src.tda.gradients import PerSampleGradients, per_sample_gradients
from src.tda.hessian import Hessian, flatten, unflatten
from src.tda.solvers import Solver
from src.tda.solvers.conjugate_gradient import ConjugateGradient
from src.tda.solvers.exact import Exact
from src.tda.solvers.lissa import Lissa

SOLVERS = {solver.name: solver for solver in (Lissa, ConjugateGradient, Exact)}


@dataclass(frozen=True)
class InfluenceFunction:
    """The estimator `if`.

    Attributes:
        solver: How the inverse Hessian is applied.
        chunk_size: Gradients solved for at once; None: what fits.
    """

    methods: ClassVar[tuple[str, ...]] = ("if",)
    retrains: ClassVar[bool] = False

    solver: Solver = Lissa()
    chunk_size: int | None = None

    def settings(self) -> dict:
        """Return every option that changes the numbers."""
        return {"solver": self.solver.name, **asdict(self.solver)}

    def __call__(self, draws: Draws) -> dict[str, Scores]:
        """Return the scores of all pairs at all checkpoints, by method."""
        setup = draws.setup

        def of_checkpoint(checkpoint: State) -> tuple[Tensor, dict[str, Tensor]]:
            return influence(
                setup.loss,
                checkpoint,
                setup.train,
                setup.test,
                self.solver,
                chunk_size=self.chunk_size or vectors_at_once(setup.loss, checkpoint, setup.train),
                measure=setup.measure,
            )

        results = each_checkpoint(draws, of_checkpoint, f"if seed {draws.seed}")
        scores = torch.stack([s for s, _ in results])
        known = {name: torch.stack([k[name] for _, k in results]) for name in results[0][1]}
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
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the scores (n_train, n_test) of all pairs at one checkpoint.

    The inverse Hessian is applied to the smaller side of the pair matrix. A solver whose map M is
    defined on the test side, g(z)ᵀ M ᵀ g(z_j), is transposed where that side is the larger one.

    Args:
        loss: The per-sample loss.
        checkpoint: State θ.
        train: The training samples.
        test: The test samples.
        solver: Applies the inverse Hessian.
        chunk_size: Vectors solved for at once.
        measure: What of a test sample is attributed, whose gradient g(z) is; None: the loss.

    Returns:
        The scores, and what the solver knows of each solved vector, (min(n_train, n_test),), by
        name.
    """
    of_test, _ = (measure or loss).at(checkpoint)
    loss, params = loss.at(checkpoint)
    hessian = Hessian(loss, params, train, solver.batch_size)
    transpose = len(train) <= len(test)
    sides = (loss, train), (of_test, test)
    solved_side, other_side = sides if transpose else sides[::-1]
    batch_size = min(chunk_size, gradient_batch(loss, params, train))

    def gradients(side: tuple[PerSampleLoss, Samples], batch: range) -> PerSampleGradients:
        of_sample, samples = side
        return per_sample_gradients(of_sample, params, *samples[batch.start : batch.stop])

    def rows(chunk: range) -> tuple[Tensor, dict[str, Tensor]]:
        vectors = in_chunks(
            chunk, batch_size, lambda batch: flatten(gradients(solved_side, batch).stack())
        )
        solved, of_solutions = solver.solve(hessian, torch.cat([*vectors]), transpose=transpose)
        solutions = unflatten(solved, params)
        products = in_chunks(
            range(len(other_side[1])),
            batch_size,
            lambda batch: gradients(other_side, batch).contract(solutions),
        )
        return torch.cat([*products], 1), of_solutions

    blocks, known = zip(*in_chunks(range(len(solved_side[1])), chunk_size, rows), strict=True)
    products = torch.cat(blocks)
    scores = -(products if transpose else products.T)
    return scores, {name: torch.cat([chunk[name] for chunk in known]) for name in known[0]}
