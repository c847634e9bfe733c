"""The one trainer: a stack of members on one schedule of batches with per-sample loss weights.

Full training is a stack of one with all weights 1. Leave-one-out is one member per training sample
whose weight is 0 at that sample. One optimiser over stacked parameters is exactly one optimiser per
member (`src.ensemble.optimizer`).

An additional training step is one member per training sample, too, but all begin at the same
parameters and end after one step: what it does is `OptimizerSettings.first_step`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import Tensor

from src.data.samples import Samples
from src.ensemble.independence import require_independent_training
from src.ensemble.members import Params, PerSampleLoss, Stack, unstack
from src.ensemble.optimizer import OptimizerSettings
from src.errors import DivergedError


class TrainingDivergedError(DivergedError):
    """The loss of some members is not finite.

    Attributes:
        members: Which members.
    """

    def __init__(self, members: list[int]) -> None:
        super().__init__(
            "the training loss is not finite; nothing was saved. "
            "Check the images, or lower the learning rate"
        )
        self.members = members


class Trainer:
    """Trains a stack of members, in place.

    Args:
        loss: The per-sample loss; the mode of its model decides about dropout.
        members: The stack to train.
        samples: The training samples.
        optimizer: Settings of the optimiser, which starts fresh.
        weights: Weight (M, n_train) of each sample's loss in each member; None: 1. The weighted
            sum over a batch is divided by the batch's size, not by the sum of the weights.

    Raises:
        UserError: The network's members cannot be trained as a stack (see
            `src.ensemble.independence`).
    """

    def __init__(
        self,
        loss: PerSampleLoss,
        members: Stack,
        samples: Samples,
        optimizer: OptimizerSettings,
        weights: Tensor | None = None,
    ) -> None:
        require_independent_training(loss, unstack(members)[0], samples)
        self.loss = loss
        self.members = members
        self.samples = samples
        self.weights = weights
        for tensor in members.values():
            tensor.requires_grad_()
        self.optimizer = optimizer.optimizer(members)
        self.schedule = optimizer.schedule(self.optimizer)

    def step(self, positions: Tensor) -> Tensor:
        """Take one step and return the summed weighted losses (M,) before it.

        Args:
            positions: Positions (B,) of the batch's samples.

        Raises:
            TrainingDivergedError: A loss is not finite; the members are left as they were.
        """
        inputs, labels = self.samples[positions]
        losses = self.loss.of_members(self.members, inputs, labels)  # (M, B)
        if self.weights is not None:
            losses = losses * self.weights[:, positions]
        sums = losses.sum(1)
        self.optimizer.zero_grad()
        # Members share no parameter, so the gradient of the sum is each member's own gradient.
        (sums / len(positions)).sum().backward()
        if not sums.isfinite().all():
            raise TrainingDivergedError((~sums.isfinite()).nonzero().flatten().tolist())
        self.optimizer.step()
        if self.schedule is not None:
            self.schedule.step()
        return sums.detach()

    def epochs(self, schedule: Iterable[Iterable[Tensor]]) -> Iterator[Tensor]:
        """Train on a schedule of batches; after each epoch yield its mean loss (M,)."""
        for batches in schedule:
            total, n_samples = 0.0, 0
            for positions in batches:
                total = total + self.step(positions.to(self.samples.device))
                n_samples += len(positions)
            yield total / n_samples

    def state_of_member(self, m: int) -> tuple[Params, dict]:
        """Return member m's parameters and its optimiser's state dict, as of a model trained alone.

        The state dict is that of the same optimiser of torch over the member's parameters alone.
        """
        params = {name: tensor[m].detach().clone() for name, tensor in self.members.items()}
        state_dict = self.optimizer.state_dict()
        state_dict["state"] = {
            i: {
                key: value.clone() if key == "step" else value[m].clone()
                for key, value in state.items()
                if value is not None  # the buffer of a momentum that there is not
            }
            for i, state in state_dict["state"].items()
        }
        return params, state_dict
