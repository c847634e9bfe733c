"""Influence functions: a first-order estimate of leave-one-out (Koh and Liang 2017).

    τ(z_j, z) = −g(z)ᵀ H⁻¹ g(z_j)

H is the Hessian of the mean training loss at θ. Negative: z_j helps z.
"""

from __future__ import annotations

import torch
from torch import Tensor

from src.data.samples import Samples
from src.members import Params, PerSampleLoss
from src.memory import gradient_batch
from src.tda.gradients import per_sample_gradients
from src.tda.hessian import Hessian, flatten, unflatten
from src.tda.solvers import Solver


def influence(
    loss: PerSampleLoss,
    params: Params,
    train: Samples,
    test: Samples,
    solver: Solver,
    *,
    chunk_size: int,
) -> tuple[Tensor, Tensor | None]:
    """Return the scores (n_train, n_test) of all pairs at one checkpoint.

    The inverse Hessian is applied to the smaller side of the pair matrix. A solver whose map M is
    defined on the test side, g(z)ᵀ M ᵀ g(z_j), is transposed where that side is the larger one.

    Args:
        loss: The per-sample loss.
        params: Parameters θ of the checkpoint.
        train: The training samples.
        test: The test samples.
        solver: Applies the inverse Hessian.
        chunk_size: Vectors solved for at once.

    Returns:
        The scores, and the relative residual of each solved vector, (min(n_train, n_test),), from
        a solver that has one, else None.
    """
    hessian = Hessian(loss, params, train, solver.batch_size)
    transpose = len(train) <= len(test)
    solved_side, other_side = (train, test) if transpose else (test, train)
    batch_size = min(chunk_size, gradient_batch(loss, params, train))
    blocks, residuals = [], []
    for positions in torch.arange(len(solved_side)).split(chunk_size):
        vectors = torch.cat(
            [
                flatten(per_sample_gradients(loss, params, *solved_side[batch]).stack())
                for batch in positions.split(batch_size)
            ]
        )
        solutions, residual = solver.solve(hessian, vectors, transpose=transpose)
        residuals.append(residual)
        solutions = unflatten(solutions, params)
        blocks.append(
            torch.cat(
                [
                    per_sample_gradients(loss, params, *batch).contract(solutions)
                    for batch in other_side.batches(batch_size)
                ],
                1,
            )
        )
    products = torch.cat(blocks)
    scores = -(products if transpose else products.T)
    return scores, None if residuals[0] is None else torch.cat(residuals)
