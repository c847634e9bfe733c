"""What influence functions predict that training without a sample changes.

Training minimises (1/n) Σ_i L_i(w) + (decay/2) ‖w‖², over all parameters. Without sample j its loss
is taken out of the sum, which is still divided by n. At a minimum θ with the Hessian H of the mean
loss, to first order (Koh and Liang 2017),

    Δθ_j = (1/n) (H + decay I)⁻¹ g_j,        ΔL_j(z) = g(z)ᵀ Δθ_j.

So the damping of a solver is the decay, and without decay, where H is singular, a small number.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from src.data.samples import Samples
from src.ensemble.members import Params, PerSampleLoss
from src.ensemble.memory import gradient_batch, in_chunks, vectors_at_once
from src.errors import DivergedError
from src.tda.gradients import per_sample_gradients
from src.tda.hessian import Hessian, flatten
from src.tda.influence import influence
from src.tda.solvers import Solver
from src.tda.solvers.lissa import Lissa


def parameter_changes(
    loss: PerSampleLoss,
    params: Params,
    train: Samples,
    removed: Samples,
    solver: Solver,
    curvature: Callable[..., Hessian] = Hessian,
    *,
    recursion: Samples | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the change Δθ_j (K, P) that leaving out each of K samples makes, and what is known.

    Args:
        loss: The per-sample loss.
        params: The parameters θ.
        train: The n training samples, whose mean loss was minimised.
        removed: The K samples of them that are left out, one at a time.
        solver: Applies the inverse, with the damping above.
        curvature: The matrix that is inverted, of the arguments of `Hessian`.
        recursion: The samples that it is of, as `repeated` draws them; None: the training samples.

    Returns:
        The changes, and what the solver knows of each, (K,), by name.
    """
    of = train if recursion is None else recursion
    hessian = curvature(loss, params, of, solver.batch_size)
    batch_size = gradient_batch(loss, params, removed)
    rows = in_chunks(
        range(len(removed)),
        batch_size,
        lambda chunk: flatten(
            per_sample_gradients(loss, params, *removed[chunk.start : chunk.stop]).stack()
        ),
    )
    changes, known = solver.solve(hessian, torch.cat([*rows]), transpose=False)
    return changes / len(train), known


def loss_changes(
    loss: PerSampleLoss,
    params: Params,
    train: Samples,
    removed: Samples,
    test: Samples,
    solver: Solver,
    curvature: type[Hessian] = Hessian,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the change ΔL_j(z) (K, n_test) of test losses; the arguments of `parameter_changes`.

    Args:
        loss: As there.
        params: As there.
        train: As there.
        removed: As there.
        test: The test samples z.
        solver: As there.
        curvature: As there.
    """
    scores, known = influence(
        loss,
        params,
        train,
        test,
        solver,
        chunk_size=vectors_at_once(loss, params, train),
        scored=removed,
        curvature=curvature,
    )
    return -scores / len(train), known


def lissa(damp: float, scale: float, batch_size: int) -> Lissa:
    """Return LiSSA that inverts H + damp I: its own damping is a part of the scale."""
    return Lissa(damp / scale, scale, batch_size)


def repeated(train: Samples, n_batches: int, batch_size: int, seed: int) -> Samples:
    """Return random samples of the training set, drawn with replacement, for a longer recursion.

    One pass of LiSSA over them is a recursion of `n_batches` steps.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(train), (n_batches * batch_size,), generator=generator)
    return train.at(drawn.to(train.device))


def stable_lissa_changes(
    loss: PerSampleLoss,
    params: Params,
    train: Samples,
    removed: Samples,
    *,
    damp: float,
    scale: float,
    n_steps: int,
    batch_size: int,
    seed: int,
) -> tuple[Tensor, float]:
    """Return `parameter_changes` (K, P) by LiSSA, and the scale that it took.

    That is the smallest of scale, 2 scale, 4 scale, ... that LiSSA does not refuse.

    Args:
        loss: As there.
        params: As there.
        train: As there.
        removed: As there.
        damp: What is added to the Hessian's diagonal.
        scale: The first scale that is tried.
        n_steps: Length of the recursion.
        batch_size: Samples in a step.
        seed: Draws the batches.
    """
    recursion = repeated(train, n_steps, batch_size, seed)
    while True:
        try:
            solver = lissa(damp, scale, batch_size)
            changes, _ = parameter_changes(
                loss, params, train, removed, solver, recursion=recursion
            )
        except DivergedError:
            scale *= 2
        else:
            return changes, scale
