"""Losses and predictions of trained members on a set of samples."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call

from src.data.samples import Samples
from src.members import Params, PerSampleLoss, Stack, size, unstack
from src.memory import CPU_BATCH, evaluation_batch


@torch.no_grad()
def evaluate(loss: PerSampleLoss, members: Stack, samples: Samples) -> Tensor:
    """Return the loss (M, n_samples) of every member on every sample, in eval mode."""
    was_training = loss.model.training
    loss.model.eval()
    batch_size = evaluation_batch(loss, unstack(members)[0], samples, size(members))
    losses = [loss.of_members(members, *batch) for batch in samples.batches(batch_size)]
    loss.model.train(was_training)
    return torch.cat(losses, dim=1)


@torch.no_grad()
def accuracy(model: torch.nn.Module, params: Params, samples: Samples) -> float:
    """Return the share of samples whose class is predicted, in eval mode."""
    model.eval()
    predicted = [
        functional_call(model, params, (inputs,)).argmax(1)
        for inputs, _ in samples.batches(CPU_BATCH)
    ]
    return (torch.cat(predicted) == samples.labels).double().mean().item()
