"""Leave-one-out: what the test loss would be had a training sample not been there.

    τ(z_j, z) = L(z; θ_∖j) − L(z; θ)

θ_∖j is trained like θ, on the same initialisation and the same batches, with z_j's loss set to zero
wherever it occurs; the batch mean still divides by the batch's size. Positive: z_j helps z.

One more member leaves nothing out. What differs between it and θ is rounding, amplified by
training, so the size of its "scores" is the numerical floor of all others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from src.data.samples import Samples
from src.ensemble.draws import shuffled_epochs
from src.ensemble.evaluation import evaluate
from src.ensemble.members import Params, PerSampleLoss, repeat, stack
from src.ensemble.memory import in_chunks
from src.ensemble.optimizer import OptimizerSettings
from src.ensemble.training import Trainer, TrainingDivergedError
from src.errors import DivergedError

NOTHING = -1  # the "left-out sample" of the member that leaves nothing out


@dataclass(frozen=True)
class Retraining:
    """One training from a start, and the epochs after which its members are compared.

    Attributes:
        start: Returns the parameters from which all members start, and puts torch's global
            generator where the batch order begins.
        compared_epochs: Epochs (0-based), one for each checkpoint that is compared with.
    """

    start: Callable[[], Params]
    compared_epochs: tuple[int, ...]


def retrain(start: Callable[[], Params], kept_epochs: tuple[int, ...]) -> list[Retraining]:
    """Retrain from initialisation; checkpoint e of θ_∖j stands against checkpoint e of θ."""
    return [Retraining(start, kept_epochs)]


def continue_training(
    checkpoints: list[Params], batch_seed: int, n_epochs: int
) -> list[Retraining]:
    """Train each checkpoint on for `n_epochs` more with z_j left out (published code).

    The batch order is the one that the seed alone gives, without a model built first.
    """

    def start_from(checkpoint: Params) -> Callable[[], Params]:
        def start() -> Params:
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
    loss: PerSampleLoss,
    retraining: Retraining,
    left_out: list[int],
    train: Samples,
    test: Samples,
    optimizer: OptimizerSettings,
    batch_size: int,
    n_epochs: int,
    measure: PerSampleLoss | None = None,
) -> Iterator[Tensor]:
    """Train one member per left-out sample; yield test losses (M, n_test) at compared epochs.

    With a `measure` it is what is evaluated in the place of the loss.

    Raises:
        DivergedError: A member's training loss is not finite; the message says whose.
    """
    members = repeat(retraining.start(), len(left_out))
    dtype = next(iter(members.values())).dtype
    weights = left_out_weights(left_out, len(train)).to(train.device, dtype)
    trainer = Trainer(loss, members, train, optimizer, weights)
    loss.model.train()
    schedule = shuffled_epochs(len(train), batch_size, n_epochs)
    try:
        for epoch, _ in enumerate(trainer.epochs(schedule)):
            if epoch in retraining.compared_epochs:
                yield evaluate(measure or loss, members, test)
    except TrainingDivergedError as error:
        first = left_out[error.members[0]]
        whose = "nothing" if first == NOTHING else f"training sample {first}"
        raise DivergedError(
            f"{len(error.members)} of {len(left_out)} members trained together diverged, the "
            f"first is the one without {whose}: {error}"
        ) from error


def leave_one_out(
    loss: PerSampleLoss,
    checkpoints: list[Params],
    retrainings: list[Retraining],
    left_out: list[int],
    train: Samples,
    test: Samples,
    *,
    optimizer: OptimizerSettings,
    batch_size: int,
    n_epochs: int,
    chunk_size: int,
    measure: PerSampleLoss | None = None,
) -> Iterator[Tensor]:
    """Yield the scores of one chunk of left-out samples after another.

    Args:
        loss: The per-sample loss.
        checkpoints: Parameters θ of each of the C checkpoints.
        retrainings: By `retrain` or `continue_training`: C compared epochs altogether.
        left_out: Positions of the samples to leave out; NOTHING gives the numerical floor.
        train: The training samples.
        test: The test samples.
        optimizer: Settings of the optimiser, which starts fresh in every retraining.
        batch_size: Samples in a batch.
        n_epochs: Number of epochs of a retraining.
        chunk_size: Members trained at once.
        measure: What of a test sample is attributed; None: the loss.

    Yields:
        Scores (C, M, n_test) with M at most `chunk_size`.
    """
    base = evaluate(measure or loss, stack(checkpoints), test)  # (C, n_test)

    def scores(chunk: list[int]) -> Tensor:
        losses = [
            compared
            for retraining in retrainings
            for compared in retrained_losses(
                loss, retraining, chunk, train, test, optimizer, batch_size, n_epochs, measure
            )
        ]
        return torch.stack(losses) - base[:, None]

    yield from in_chunks(left_out, chunk_size, scores)
