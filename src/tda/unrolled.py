"""Unrolled differentiation: the derivative of a trained model's loss by a training sample's weight.

    τ(z_j, z) = −dL(z; θ(w)) / dw_j  at w = 1

θ(w) is trained like θ, with z_j's loss multiplied by w_j in every batch, the batch mean still
dividing by the batch's size. That is leave-one-out to first order, through every step of the
optimiser and without a Hessian to invert (Hara et al. 2019 for SGD; HyDRA, Chen et al. 2021; MAGIC,
Ilyas and Engstrom 2025, who differentiate backwards, at the cost of a training for each test
sample). Positive: z_j helps z.

The training is differentiated forwards, for all scored samples at once: with the parameters and the
optimiser's moments goes a stack of their derivatives by each w_j, the tangents. In a step on a
batch b the gradient's tangent is

    dG_j = H_b dθ_j + [j in b] g_j / |b|

with H_b and g_j in training mode, by the random layers' masks of this very step, and the
optimiser's step, which works element by element, is differentiated as a function of parameter,
gradient and moments (`src.tda.tangents`). Test samples cost nothing but their gradients at the kept
epochs.

It is exact for weights that hardly change. Adam's steps are nearly signs of gradients, so where a
gradient is close to 0 a small change of weight already does what no derivative there foretells. How
far that goes is measured on a few samples, and saved, by trainings with a weight changed a little.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from src.data.samples import Samples
from src.ensemble.generators import without_drawing
from src.ensemble.independence import few, look_at_training, require_independent_samples
from src.ensemble.members import PerSampleLoss, Stack, State, repeat
from src.ensemble.memory import gradient_batch, in_chunks, vectors_at_once
from src.ensemble.procedure import Procedure
from src.ensemble.retraining import Retraining, base_losses, weighted_losses
from src.errors import UserError
from src.tda.estimator import Draws, Scores, collect
from src.tda.gradients import per_sample_gradients
from src.tda.tangents import Tangents

N_PROBES = 2  # samples whose derivatives are held against finite differences
CHANGE = 2**-10  # of their weights
AT_ONCE = 64  # beside so many the training that each chunk repeats costs next to nothing


@dataclass(frozen=True)
class Unrolled:
    """The estimator `unrolled`.

    Attributes:
        chunk_size: Training samples by whose weights is differentiated at once, each such chunk in
            a training of its own; None: what fits.
    """

    methods: ClassVar[tuple[str, ...]] = ("unrolled",)
    retrains: ClassVar[bool] = True

    chunk_size: int | None = None

    def settings(self) -> dict:
        """Return every option that changes the numbers."""
        return {}

    def __call__(self, draws: Draws) -> dict[str, Scores]:
        """Return the scores of all pairs at all checkpoints."""
        setup, experiment = draws.setup, draws.setup.experiment
        retraining = Retraining(lambda: setup.start(draws.seed), experiment.kept_epochs)
        fitting = vectors_at_once(setup.loss, draws.checkpoints[0], setup.train)
        size = self.chunk_size or min(AT_ONCE, fitting)
        given = setup.procedure, retraining

        def chunks(scored: list[int]) -> Iterator[Tensor]:
            return unrolled(*given, scored, setup.test, chunk_size=size, measure=setup.measure)

        scored = setup.scored.tolist()
        scores = collect(draws, scored, chunks, f"unrolled seed {draws.seed}")
        probes = few(len(scored), N_PROBES)
        chosen = setup.scored[probes]
        slopes = finite_differences(*given, chosen, setup.test, setup.measure)
        base = base_losses(setup.measure.accurate, draws.checkpoints, setup.test)
        extra = numerical_floor(scores[:, probes], slopes, base.cpu())
        message = (
            f"at most {extra['floor'].max():.1e} (relative) from trainings with a weight changed "
            f"by {CHANGE:.1e}, of which rounding may be {extra['floor_of_rounding'].max():.1e}"
        )
        return {"unrolled": Scores(scores, extra, message)}


def unrolled(
    procedure: Procedure,
    retraining: Retraining,
    scored: list[int],
    test: Samples,
    *,
    chunk_size: int,
    measure: PerSampleLoss | None = None,
) -> Iterator[Tensor]:
    """Yield the scores of one chunk of training samples after another.

    Args:
        procedure: The training procedure.
        retraining: The training, and the C epochs after which it is differentiated.
        scored: Positions of the training samples that are scored.
        test: The test samples.
        chunk_size: Training samples by whose weights is differentiated at once.
        measure: What of a test sample is attributed; None: the loss.

    Yields:
        Scores (C, M, n_test) with M at most `chunk_size`.

    Raises:
        UserError: A sample's loss is not its own, the network has no second derivatives, training
            changes buffers, or random layers draw other numbers in derivatives.
        DivergedError: The training loss is not finite.
    """
    loss, train, start = procedure.loss, procedure.samples, retraining.start()
    require_independent_samples(loss, start, test)
    _require_plain_training(loss, start, train)

    def scores(chunk: list[int]) -> Tensor:
        members = repeat(retraining.start(), 1)
        loss.model.train()
        tangents = Tangents(procedure, members, chunk)
        of_epochs = []
        for epoch, batches in enumerate(procedure.schedule()):
            for positions in batches:
                tangents.step(positions.to(train.device))
            procedure.note_epoch(len(chunk), epoch)
            if epoch in retraining.compared_epochs:
                state = tangents.trainer.member(0)
                of_epochs.append(-_along(measure or loss, state, tangents.of_parameters, test))
                loss.model.train()
        return torch.stack(of_epochs)

    yield from in_chunks(scored, chunk_size, scores)


def _along(measure: PerSampleLoss, state: State, tangents: Stack, test: Samples) -> Tensor:
    """Return the derivatives (K, n_test) of test samples' losses along K tangents."""
    measure, params = measure.at(state)
    batch_size = gradient_batch(measure, params, test)

    def of_batch(batch: range) -> Tensor:
        samples = test[batch.start : batch.stop]
        return per_sample_gradients(measure, params, *samples).contract(tangents)

    with without_drawing(test.device):
        return torch.cat([*in_chunks(range(len(test)), batch_size, of_batch)], 1)


def _require_plain_training(loss: PerSampleLoss, state: State, train: Samples) -> None:
    training = look_at_training(loss, state, train)
    if training.mixes or training.changes:
        what = "samples see each other" if training.mixes else "passes change buffers"
        raise UserError(
            f"{type(loss.model).__name__}: {what} in training, where leaving a sample out is not "
            "a matter of its loss's weight alone, so that unrolled does not apply; run_loo.py does"
        )


def finite_differences(
    procedure: Procedure,
    retraining: Retraining,
    probes: Tensor,
    test: Samples,
    measure: PerSampleLoss | None = None,
    change: float = CHANGE,
) -> tuple[Tensor, Tensor]:
    """Return scores by trainings with changed weights, and the losses with none changed.

    Args:
        procedure: The training procedure.
        retraining: The training, and the C epochs after which losses are compared.
        probes: Positions (P,) of training samples.
        test: The test samples.
        measure: What of a test sample is attributed; None: the loss.
        change: Of a weight.

    Returns:
        −(L(z; 1 + δ) − L(z; 1 − δ)) / 2δ, (C, P, n_test), δ the change of w_j, and the losses
        (C, n_test) where none is changed.
    """
    rows = torch.arange(len(probes))
    weights = torch.ones(2 * len(probes) + 1, len(procedure.samples), dtype=torch.float64)
    weights[rows, probes] += change
    weights[rows + len(probes), probes] -= change
    measure = (measure or procedure.loss).accurate
    losses = weighted_losses(procedure, retraining, weights, test, measure)
    losses = torch.stack([*losses]).cpu()  # (C, 2P + 1, n_test)
    more, less, unchanged = losses.split([len(probes), len(probes), 1], 1)
    return (less - more) / (2 * change), unchanged.squeeze(1)


def numerical_floor(found: Tensor, slopes: tuple[Tensor, Tensor], base: Tensor) -> dict:
    """Return how far scores are from finite differences, and what rounding may have of it.

    Rounding is that of the trainings, amplified by them: where nothing is changed the losses of one
    differ from those of the checkpoints by nothing else.

    Args:
        found: The probes' scores (C, P, n_test).
        slopes: See `finite_differences`.
        base: The losses at the checkpoints, (C, n_test).

    Returns:
        "floor" (C, P): norms over test samples of the difference, relative to finite differences;
        "floor_of_rounding" (C, P): of what rounding makes of these.
    """
    expected, unchanged = slopes
    size = expected.norm(dim=2)
    rounding = (unchanged - base).norm(dim=1) / (2 * CHANGE)
    return {
        "floor": (found.cpu() - expected).norm(dim=2) / size,
        "floor_of_rounding": rounding[:, None] / size,
    }
