"""What decides a training, but for its draw."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from src.data.samples import Samples
from src.ensemble.draws import shuffled_epochs
from src.ensemble.independence import require_batches
from src.ensemble.members import PerSampleLoss, Stack, State
from src.ensemble.memory import members_at_once
from src.ensemble.optimizer import OptimizerSettings
from src.ensemble.training import Trainer
from src.progress import note


@dataclass(frozen=True)
class Procedure:
    """A training procedure: with a start and the order of the batches, a model.

    Attributes:
        loss: The per-sample loss, with the architecture.
        samples: The training samples.
        optimizer: Settings of the optimiser, which starts fresh in every training.
        batch_size: Samples in a batch; the last of an epoch may have fewer.
        n_epochs: Number of epochs.
    """

    loss: PerSampleLoss
    samples: Samples
    optimizer: OptimizerSettings
    batch_size: int
    n_epochs: int

    def trainer(self, members: Stack, weights: Tensor | None = None) -> Trainer:
        """Return a trainer of members, with the weights (M, n_train) of samples' losses."""
        return Trainer(self.loss, members, self.samples, self.optimizer, weights)

    def schedule(self) -> Iterator[Iterator[Tensor]]:
        """Yield the batches' positions of each epoch, drawn from torch's global generator."""
        return shuffled_epochs(len(self.samples), self.batch_size, self.n_epochs)

    def members_at_once(self, state: State) -> int:
        """Return how many members of a state's size are trained at once."""
        return members_at_once(self.loss, state, self.samples, self.batch_size)

    def note_epoch(self, n_members: int, epoch: int) -> None:
        """Say beside how far a computation is which epoch its members in training have ended."""
        note(f"{n_members} in training, epoch {epoch + 1} of {self.n_epochs}")

    def require_batches(self, state: State, *, without_one: bool) -> None:
        """Raise UserError if a batch, or one without one of its samples, is too small.

        See `src.ensemble.independence.require_batches`.
        """
        require_batches(self.loss, state, self.samples, self.batch_size, without_one=without_one)
