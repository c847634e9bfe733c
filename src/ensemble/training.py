"""The one trainer: a stack of members on one schedule of batches with per-sample loss weights.

Full training is a stack of one with all weights 1. Leave-one-out is one member per training sample
whose weight is 0 at that sample. Adam is elementwise, so one optimiser over stacked parameters is
exactly one optimiser per member.

An additional training step is one member per training sample, too, but all begin at the same
parameters and end after one step: what Adam does in it is `AdamSettings.first_step`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from src.data.samples import Samples
from src.ensemble.independence import require_independent_training
from src.ensemble.members import Params, PerSampleLoss, Stack, unstack
from src.errors import DivergedError
from src.experiments import Experiment

ADAM_EPSILON = 1e-8  # torch's default


@dataclass(frozen=True)
class AdamSettings:
    """Adam with the weight decay in the gradient (not decoupled).

    Attributes:
        learning_rate: Of the first step, and of all where there is no decay.
        weight_decay: What is added to the gradient, per unit of a parameter.
        decay_steps: Steps over which the learning rate decays to 0, linearly and without warm-up;
            None: it does not.
    """

    learning_rate: float
    weight_decay: float
    decay_steps: int | None = None

    @classmethod
    def of(cls, experiment: Experiment, n_train: int) -> AdamSettings:
        """Return the optimiser settings of training an experiment on `n_train` samples."""
        chosen = experiment.hyperparameters
        steps_per_epoch = -(-n_train // chosen.batch_size)
        return cls(
            chosen.learning_rate,
            chosen.weight_decay,
            experiment.epochs * steps_per_epoch if experiment.decays else None,
        )

    def optimizer(self, members: Stack) -> torch.optim.Adam:
        """Return a fresh optimiser over the members' parameters."""
        return torch.optim.Adam(
            members.values(),
            lr=self.learning_rate,
            eps=ADAM_EPSILON,
            weight_decay=self.weight_decay,
            fused=True,
        )

    def first_step(self, params: Params, gradients: Stack) -> Stack:
        """Return the members that a fresh optimiser's first step from `params` makes.

        After one step both of Adam's moments, corrected for their bias, are those of one gradient
        (Kingma and Ba 2015, algorithm 1), so that the step is

            θ − lr · g / (|g| + ε)

        with the weight decay in g.

        Args:
            params: Parameters θ of one member.
            gradients: The gradient of each member's loss there, (M, ...); becomes the result.
        """
        with torch.no_grad():
            for name, g in gradients.items():
                g.add_(params[name], alpha=self.weight_decay)
                g.div_(g.abs().add_(ADAM_EPSILON)).mul_(-self.learning_rate).add_(params[name])
        return gradients

    def schedule(self, optimizer: torch.optim.Optimizer) -> LRScheduler | None:
        """Return the schedule of the learning rate, to be stepped after each step."""
        if self.decay_steps is None:
            return None
        n_steps = self.decay_steps
        return LambdaLR(optimizer, lambda step: max(0.0, (n_steps - step) / n_steps))


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
        adam: Settings of the optimiser, which starts fresh.
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
        adam: AdamSettings,
        weights: Tensor | None = None,
    ) -> None:
        require_independent_training(loss, unstack(members)[0], samples)
        self.loss = loss
        self.members = members
        self.samples = samples
        self.weights = weights
        for tensor in members.values():
            tensor.requires_grad_()
        self.optimizer = adam.optimizer(members)
        self.schedule = adam.schedule(self.optimizer)

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

        The state dict is that of a `torch.optim.Adam` over the member's parameters.
        """
        params = {name: tensor[m].detach().clone() for name, tensor in self.members.items()}
        state_dict = self.optimizer.state_dict()
        state_dict["state"] = {
            i: {
                key: value.clone() if key == "step" else value[m].clone()
                for key, value in state.items()
            }
            for i, state in state_dict["state"].items()
        }
        return params, state_dict
