"""Trainings that repeat one: the same initialisation and batches, other weights of the losses.

Leave-one-out and trainings on subsets are both that, with weights 0 and 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from src.data.samples import Samples
from src.ensemble.evaluation import evaluate
from src.ensemble.members import PerSampleLoss, State, repeat, stack
from src.ensemble.procedure import Procedure


@dataclass(frozen=True)
class Retraining:
    """One training from a start, and the epochs after which its members are compared.

    Attributes:
        start: Returns the state from which all members start, and puts torch's global
            generator where the batch order begins.
        compared_epochs: Epochs (0-based), one for each checkpoint that is compared with.
    """

    start: Callable[[], State]
    compared_epochs: tuple[int, ...]


def retrain(start: Callable[[], State], kept_epochs: tuple[int, ...]) -> list[Retraining]:
    """Retrain from initialisation; checkpoint e of θ_∖j stands against checkpoint e of θ."""
    return [Retraining(start, kept_epochs)]


def base_losses(measure: PerSampleLoss, checkpoints: list[State], test: Samples) -> Tensor:
    """Return the losses L(z; θ), or a task's measure, at each checkpoint, (C, n_test)."""
    return evaluate(measure, stack(checkpoints), test)


def weighted_losses(
    procedure: Procedure,
    retraining: Retraining,
    weights: Tensor,
    test: Samples,
    measure: PerSampleLoss | None = None,
) -> Iterator[Tensor]:
    """Train one member per row of weights (M, n_train); yield test losses (M, n_test).

    They are yielded at compared epochs. With a `measure` it is what is evaluated in the place of
    the loss.

    Raises:
        TrainingDivergedError: A member's training loss is not finite.
    """
    loss, members = procedure.loss, repeat(retraining.start(), len(weights))
    dtype = next(iter(loss.parameters(members).values())).dtype
    trainer = procedure.trainer(members, weights.to(procedure.samples.device, dtype))
    loss.model.train()
    for epoch, _ in enumerate(trainer.epochs(procedure.schedule())):
        procedure.note_epoch(len(weights), epoch)
        if epoch in retraining.compared_epochs:
            yield evaluate(measure or loss, trainer.members, test)
