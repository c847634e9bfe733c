"""The one trainer: a stack of members on one schedule of batches with per-sample loss weights.

Full training is a stack of one with all weights 1. Leave-one-out is one member per training sample
whose weight is 0 at that sample. One optimiser over stacked parameters is exactly one optimiser per
member (`src.ensemble.optimizer`).

An additional training step is one member per training sample, too, but all begin at the same
parameters and end after one step: what it does is `OptimizerSettings.first_step`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from src.data.samples import Samples
from src.ensemble.batching import find_whether_together
from src.ensemble.generators import generator_states, set_generators
from src.ensemble.independence import look_at_training
from src.ensemble.members import PerSampleLoss, Stack, State, repeat, size, unstack
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
    """Trains a stack of members.

    A sample of weight 0 is left out. In a network whose samples see each other in training it is
    taken out of the member's batch. There each member's pass begins with the generators where a
    pass over the full batch begins, and afterwards they stand where that one leaves them, whether a
    member has the full batch or not.

    Args:
        loss: The per-sample loss; the mode of its model decides about dropout.
        members: The members to start from, which are left as they are.
        samples: The training samples.
        optimizer: Settings of the optimiser, which starts fresh.
        weights: Weight (M, n_train) of each sample's loss in each member; None: 1. The weighted
            sum over a batch is divided by the batch's size, not by the sum of the weights.

    Attributes:
        members: The stack as it is now: parameters are trained in place, buffers are replaced.
    """

    def __init__(
        self,
        loss: PerSampleLoss,
        members: Stack,
        samples: Samples,
        optimizer: OptimizerSettings,
        weights: Tensor | None = None,
    ) -> None:
        training = look_at_training(loss, unstack(members)[0], samples)
        self.loss = loss
        self.buffers = training.changes
        self.samples = samples
        self.weights = weights
        shared = {name: loss.model.get_buffer(name) for name in self.buffers - members.keys()}
        members = members | repeat(shared, size(members))
        self._present = None if weights is None or not training.mixes else weights.cpu() != 0
        own = self.buffers | loss.trainable
        self.members = {n: t.detach().clone() if n in own else t for n, t in members.items()}
        parameters = loss.parameters(self.members)
        for tensor in parameters.values():
            tensor.requires_grad_()
        self.optimizer = optimizer.optimizer(parameters)
        self.schedule = optimizer.schedule(self.optimizer)

    def step(self, positions: Tensor) -> Tensor:
        """Take one step and return the summed weighted losses (M,) before it.

        Args:
            positions: Positions (B,) of the batch's samples.

        Raises:
            TrainingDivergedError: A loss is not finite; the members are left as they were.
        """
        inputs, labels = self.samples[positions]
        if self._present is None:
            sums, buffers = self._sums(slice(None), inputs, labels, positions)
        else:
            sums, buffers = self._sums_of_those_present(inputs, labels, positions)
        self.optimizer.zero_grad()
        # Members share no parameter, so the gradient of the sum is each member's own gradient.
        (sums / len(positions)).sum().backward()
        if not sums.isfinite().all():
            raise TrainingDivergedError((~sums.isfinite()).nonzero().flatten().tolist())
        self.optimizer.step()
        self.members |= buffers
        if self.schedule is not None:
            self.schedule.step()
        return sums.detach()

    def _sums(
        self,
        group: slice | Tensor,
        inputs: Tensor,
        labels: Tensor,
        positions: Tensor,
    ) -> tuple[Tensor, Stack]:
        """Return the summed weighted losses (G,) of some members, and their buffers afterwards.

        Args:
            group: Which members.
            inputs: (B, ...), or with `positions` of each member (G, B, ...).
            labels: (B,), or (G, B).
            positions: Positions (B,) of the samples, or (G, B).
        """
        members = self.members
        if isinstance(group, Tensor):
            members = {n: t[group] if t.stride(0) else t[: len(group)] for n, t in members.items()}
        batch, own_batches = (inputs, labels), positions.ndim > 1
        tried = (inputs[0], labels[0]) if own_batches else batch
        find_whether_together(self.loss, members, *tried, self.buffers, own_batches=own_batches)
        losses, buffers = self.loss.forward_of_members(
            members, *batch, self.buffers, own_batches=own_batches
        )
        if self.weights is not None:
            weights = self.weights[group]
            losses = losses * (
                weights.gather(1, positions) if own_batches else weights[:, positions]
            )
        return losses.sum(1), buffers

    def _sums_of_those_present(
        self, inputs: Tensor, labels: Tensor, positions: Tensor
    ) -> tuple[Tensor, Stack]:
        """Return the same of all members, each on those samples of the batch that have a weight."""
        device, n_members = labels.device, size(self.members)
        present = self._present[:, positions.cpu()]  # (M, B)
        counts = present.sum(1)
        start = generator_states(device)
        parts, groups = [], []
        for count in counts.unique().tolist():
            set_generators(device, start)
            which = (counts == count).nonzero().flatten()
            groups.append(which.to(device))
            group = slice(None) if len(which) == n_members else groups[-1]
            if count == 0:
                parts.append(self._nothing(group))
            elif count == len(positions):  # the last one
                parts.append(self._sums(group, inputs, labels, positions))
            else:
                columns = present[which].nonzero()[:, 1].reshape(-1, count).to(device)
                batches = inputs[columns], labels[columns], positions[columns]
                parts.append(self._sums(group, *batches))
        if count < len(positions):
            self._draw_as_a_full_batch(start, inputs, labels)
        order = torch.cat(groups).argsort()
        sums, buffers = zip(*parts, strict=True)
        return torch.cat(sums)[order], {
            name: torch.cat([changed[name] for changed in buffers])[order] for name in self.buffers
        }

    def _nothing(self, group: slice | Tensor) -> tuple[Tensor, Stack]:
        """Return the same of members that have no sample in a batch: 0, of gradients 0."""
        parameters = self.loss.parameters(self.members).values()
        sums = sum((0 * parameter[group]).flatten(1).sum(1) for parameter in parameters)
        return sums, {name: self.members[name][group] for name in self.buffers}

    def _draw_as_a_full_batch(
        self, start: tuple[Tensor, ...], inputs: Tensor, labels: Tensor
    ) -> None:
        """Leave the generators where a pass over the full batch that began at `start` does."""
        device = labels.device
        if all(map(torch.equal, start, generator_states(device))):
            return  # nothing is drawn
        set_generators(device, start)
        with torch.no_grad():
            self.loss.forward(unstack(self.members)[0], inputs, labels, self.buffers)

    def epochs(self, schedule: Iterable[Iterable[Tensor]]) -> Iterator[Tensor]:
        """Train on a schedule of batches; after each epoch yield its mean loss (M,)."""
        for batches in schedule:
            total, n_samples = 0.0, 0
            for positions in batches:
                total = total + self.step(positions.to(self.samples.device))
                n_samples += len(positions)
            yield total / n_samples

    def member(self, m: int) -> State:
        """Return member m's state as it is now: views, which further steps change."""
        return {name: tensor[m].detach() for name, tensor in self.members.items()}

    def state_of_member(self, m: int) -> tuple[State, dict]:
        """Return member m's state and its optimiser's state dict, as of a model trained alone.

        The state dict is that of the same optimiser of torch over the member's trainable
        parameters.
        """
        member = {name: tensor.clone() for name, tensor in self.member(m).items()}
        state_dict = self.optimizer.state_dict()
        state_dict["state"] = {
            i: {
                key: value.clone() if key == "step" else value[m].clone()
                for key, value in state.items()
                if value is not None  # the buffer of a momentum that there is not
            }
            for i, state in state_dict["state"].items()
        }
        return member, state_dict
