"""Training by Adam, and retraining from its end without a sample, of any network.

The members of a retraining are one stack (`src.ensemble.training`): one for each sample that is
left out and, last, the control, which leaves nothing out. All have the same batches and begin with
a fresh optimiser.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from src.data.samples import Samples
from src.ensemble.draws import shuffled_epochs
from src.ensemble.evaluation import evaluate
from src.ensemble.independence import require_batches
from src.ensemble.members import PerSampleLoss, State, repeat
from src.ensemble.memory import in_chunks, members_at_once
from src.ensemble.optimizer import OptimizerSettings
from src.ensemble.training import Trainer
from src.progress import progress

DROP = 0.1  # of the learning rate, from one part of a training to the next


def take_steps(trainer: Trainer, batch_size: int, n_steps: int, description: str) -> None:
    """Take steps on shuffled batches, which torch's global generator draws, in training mode."""
    n_epochs = -(-n_steps * batch_size // len(trainer.samples))
    left = n_steps
    trainer.loss.model.train()
    with progress(description, "steps", n_steps) as advance:
        for batches in shuffled_epochs(len(trainer.samples), batch_size, n_epochs):
            for positions in batches:
                if left:
                    trainer.step(positions.to(trainer.samples.device))
                    advance(1)
                    left -= 1
    trainer.loss.model.eval()


def train_by_adam(
    loss: PerSampleLoss,
    start: State,
    train: Samples,
    optimizer: OptimizerSettings,
    batch_size: int,
    ends: Sequence[int],
    description: str,
) -> tuple[State, OptimizerSettings]:
    """Return the state after steps from `start`, and the settings of the last of them.

    Args:
        loss: The per-sample loss.
        start: Where it begins.
        train: The training samples.
        optimizer: Settings of the optimiser at first.
        batch_size: Samples in a batch; torch's global generator draws them.
        ends: The number of steps at which each part of the training ends. The optimiser of the next
            one is a fresh one, with a tenth of the learning rate.
        description: What is said of the progress.

    Raises:
        UserError: The loss is not finite, or a batch is too small for the network.
    """
    require_batches(loss, start, train, batch_size, without_one=False)
    state = start
    for k, (begin, end) in enumerate(pairwise([0, *ends])):
        if k:
            optimizer = replace(optimizer, learning_rate=optimizer.learning_rate * DROP)
        trainer = Trainer(loss, repeat(state, 1), train, optimizer)
        take_steps(trainer, batch_size, end - begin, f"{description}, Adam {k + 1} of {len(ends)}")
        state = {name: tensor.clone() for name, tensor in trainer.member(0).items()}
    return state, optimizer


def retrained_losses(
    loss: PerSampleLoss,
    state: State,
    train: Samples,
    removed: Tensor,
    test: Samples,
    optimizer: OptimizerSettings,
    batch_size: int,
    n_steps: int,
    seed: int,
) -> Tensor:
    """Return test losses (K + 1, n_test) after steps without each of K samples, and without none.

    Args:
        loss: The per-sample loss.
        state: Where all begin.
        train: The training samples.
        removed: Positions (K,) of those that are left out, one at a time.
        test: The test samples.
        optimizer: Settings of the optimiser.
        batch_size: Samples in a batch.
        n_steps: Steps.
        seed: Draws the batches, and random layers.

    Raises:
        UserError: The loss is not finite, or a batch without a sample is too small for the network.
    """
    require_batches(loss, state, train, batch_size, without_one=True)
    weights = torch.ones(len(removed) + 1, len(train), device=train.device)
    weights[torch.arange(len(removed)), removed] = 0

    def of_chunk(chunk: range) -> Tensor:
        torch.manual_seed(seed)
        members = repeat(state, len(chunk))
        trainer = Trainer(loss, members, train, optimizer, weights[chunk.start : chunk.stop])
        of = f"without {chunk.start + 1} to {chunk.stop} of {len(weights)}"
        take_steps(trainer, batch_size, n_steps, of)
        stack = {name: tensor.detach() for name, tensor in trainer.members.items()}
        return evaluate(loss.accurate, stack, test)

    at_once = members_at_once(loss, state, train, batch_size)
    return torch.cat([*in_chunks(range(len(weights)), at_once, of_chunk)])
