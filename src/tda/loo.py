"""Leave-one-out: what the test loss would be had a training sample not been there.

    τ(z_j, z) = L(z; θ_∖j) − L(z; θ)

θ_∖j is trained like θ, on the same initialisation and the same batches, with z_j's loss set to zero
wherever it occurs; the batch mean still divides by the batch's size. Positive: z_j helps z. Where
the samples of a batch see each other in training, as in batch normalisation, z_j is taken out of
the batch itself (see `src.ensemble.training.Trainer`).

One more member leaves nothing out. What differs between it and θ is rounding, amplified by
training, so the size of its "scores" is the numerical floor of all others. Where evaluations are on
random crops, all members of a seed have the same ones and θ others, and the floor is what that
changes (`src.analysis.floor`). The losses L(z; θ) are kept beside the scores, so that those of
every retrained model are known, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from src.data.samples import Samples
from src.ensemble.draws import Draw
from src.ensemble.independence import require_independent_samples
from src.ensemble.members import PerSampleLoss, State
from src.ensemble.memory import in_chunks
from src.ensemble.procedure import Procedure
from src.ensemble.retraining import Retraining, base_losses, retrain, weighted_losses
from src.ensemble.training import TrainingDivergedError
from src.errors import DivergedError, UserError
from src.tda.estimator import Draws, Scores, collect

NOTHING = -1  # the "left-out sample" of the member that leaves nothing out
PROTOCOLS = ("retrain", "continue")


@dataclass(frozen=True)
class LeaveOneOut:
    """The estimator `loo`.

    Attributes:
        protocol: One of PROTOCOLS: retrain from initialisation, or continue each checkpoint for as
            many epochs again (the published code).
        chunk_size: Members trained at once; None: what fits.

    Raises:
        UserError: There is no such protocol.
    """

    methods: ClassVar[tuple[str, ...]] = ("loo",)

    protocol: str = "retrain"
    chunk_size: int | None = None

    def __post_init__(self) -> None:
        """Check the protocol."""
        if self.protocol not in PROTOCOLS:
            raise UserError(f"protocol is {self.protocol!r}: choose from {', '.join(PROTOCOLS)}")

    @property
    def retrains(self) -> bool:
        """Whether the training of the checkpoints is repeated."""
        return self.protocol == "retrain"

    def settings(self) -> dict:
        """Return every option that changes the numbers."""
        return {"protocol": self.protocol}

    def __call__(self, draws: Draws) -> dict[str, Scores]:
        """Return the scores of all pairs at all checkpoints, by method."""
        setup, experiment, checkpoints = draws.setup, draws.setup.experiment, draws.checkpoints
        procedure = setup.procedure
        # Before anything is drawn, so that random crops are those of `leave_one_out`'s own.
        base = base_losses(setup.measure, checkpoints, setup.test)
        if self.protocol == "retrain":
            retrainings = retrain(lambda: setup.start(draws.seed), experiment.kept_epochs)
        else:
            batch_seed = Draw.of(experiment, draws.seed).batch_seed
            retrainings = continue_training(checkpoints, batch_seed, experiment.epochs)
        chunk_size = self.chunk_size or procedure.members_at_once(checkpoints[0])

        def chunks(left_out: list[int]) -> Iterator[Tensor]:
            return leave_one_out(
                procedure,
                checkpoints,
                retrainings,
                left_out,
                setup.test,
                chunk_size=chunk_size,
                measure=setup.measure,
            )

        left_out = [*setup.scored.tolist(), NOTHING]
        scores = collect(draws, left_out, chunks, f"loo seed {draws.seed}")
        scores, floor = scores[:, :-1], scores[:, -1]
        what = "floor on other random crops" if experiment.random_crop else "numerical floor"
        message = f"median |score| {scores.abs().median():.2e}, {what} {floor.abs().median():.2e}"
        return {"loo": Scores(scores, {"floor": floor, "base": base.float().cpu()}, message)}


def continue_training(checkpoints: list[State], batch_seed: int, n_epochs: int) -> list[Retraining]:
    """Train each checkpoint on for `n_epochs` more with z_j left out (published code).

    The batch order is the one that the seed alone gives, without a model built first.
    """

    def start_from(checkpoint: State) -> Callable[[], State]:
        def start() -> State:
            torch.manual_seed(batch_seed)
            return checkpoint

        return start

    return [Retraining(start_from(checkpoint), (n_epochs - 1,)) for checkpoint in checkpoints]


def left_out_weights(left_out: list[int], n_train: int) -> Tensor:
    """Return loss weights (M, n_train): 1, and 0 at each member's left-out sample."""
    weights = torch.ones(len(left_out), n_train)
    for m, j in enumerate(left_out):
        if j != NOTHING:
            weights[m, j] = 0
    return weights


def retrained_losses(
    procedure: Procedure,
    retraining: Retraining,
    left_out: list[int],
    test: Samples,
    measure: PerSampleLoss | None = None,
) -> Iterator[Tensor]:
    """Train one member per left-out sample; yield test losses (M, n_test) at compared epochs.

    With a `measure` it is what is evaluated in the place of the loss.

    Raises:
        DivergedError: A member's training loss is not finite; the message says whose.
    """
    weights = left_out_weights(left_out, len(procedure.samples))
    try:
        yield from weighted_losses(procedure, retraining, weights, test, measure)
    except TrainingDivergedError as error:
        first = left_out[error.members[0]]
        whose = "nothing" if first == NOTHING else f"training sample {first}"
        raise DivergedError(
            f"{len(error.members)} of {len(left_out)} members trained together diverged, the "
            f"first is the one without {whose}: {error}"
        ) from error


def leave_one_out(
    procedure: Procedure,
    checkpoints: list[State],
    retrainings: list[Retraining],
    left_out: list[int],
    test: Samples,
    *,
    chunk_size: int,
    measure: PerSampleLoss | None = None,
) -> Iterator[Tensor]:
    """Yield the scores of one chunk of left-out samples after another.

    Args:
        procedure: The training procedure.
        checkpoints: States θ of each of the C checkpoints.
        retrainings: By `retrain` or `continue_training`: C compared epochs altogether.
        left_out: Positions of the samples to leave out; NOTHING gives the numerical floor.
        test: The test samples.
        chunk_size: Members trained at once.
        measure: What of a test sample is attributed; None: the loss.

    Yields:
        Scores (C, M, n_test) with M at most `chunk_size`.

    Raises:
        UserError: A sample's loss is not its own in eval mode, or a batch without one of its
            samples is too small for the network.
        DivergedError: A member's training loss is not finite.
    """
    require_independent_samples(procedure.loss, checkpoints[0], test)
    procedure.require_batches(checkpoints[0], without_one=True)
    base = base_losses(measure or procedure.loss, checkpoints, test)

    def scores(chunk: list[int]) -> Tensor:
        losses = [
            compared
            for retraining in retrainings
            for compared in retrained_losses(procedure, retraining, chunk, test, measure)
        ]
        return torch.stack(losses) - base[:, None]

    yield from in_chunks(left_out, chunk_size, scores)
