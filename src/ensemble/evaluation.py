"""Losses and predictions of trained members on a set of samples."""

from __future__ import annotations

import torch
from torch import Tensor

from src.data.samples import Samples
from src.ensemble.batching import find_whether_together
from src.ensemble.generators import without_drawing
from src.ensemble.members import PerSampleLoss, Stack, State, size, unstack
from src.ensemble.memory import evaluation_batch, in_chunks


@torch.no_grad()
def evaluate(loss: PerSampleLoss, members: Stack, samples: Samples) -> Tensor:
    """Return the loss (M, n_samples) of every member on every sample, in eval mode.

    The state of torch's generators is left as it was, so that a training goes on with the same
    draws whether it is evaluated in between or not, also where the inputs are random crops.
    """
    was_training = loss.model.training
    loss.model.eval()
    together, batch_size = evaluation_batch(loss, unstack(members)[0], samples, size(members))
    groups = [
        {name: tensor[first : first + together] for name, tensor in members.items()}
        for first in range(0, size(members), together)
    ]

    def of_chunk(chunk: range) -> Tensor:
        batch = samples[chunk.start : chunk.stop]
        find_whether_together(loss, groups[0], *batch)
        return torch.cat([loss.of_members(group, *batch) for group in groups])

    with without_drawing(samples.device):
        losses = [*in_chunks(range(len(samples)), batch_size, of_chunk)]
    loss.model.train(was_training)
    return torch.cat(losses, dim=1)


@torch.no_grad()
def outputs_on(loss: PerSampleLoss, state: State, samples: Samples) -> Tensor:
    """Return one member's outputs (n_samples, K) on every sample, in eval mode."""
    loss.model.eval()

    def of_chunk(chunk: range) -> Tensor:
        inputs, _ = samples[chunk.start : chunk.stop]
        return loss.outputs(state, inputs)

    _, batch_size = evaluation_batch(loss, state, samples, n_members=1)
    return torch.cat([*in_chunks(range(len(samples)), batch_size, of_chunk)])


def predict(loss: PerSampleLoss, state: State, samples: Samples) -> Tensor:
    """Return what is predicted of every sample, in eval mode.

    Of classes the label, int64 (n_samples,), else the outputs (n_samples, K).
    """
    outputs = outputs_on(loss, state, samples)
    return outputs if samples.labels.is_floating_point() else outputs.argmax(1)


def fit_of(loss: PerSampleLoss, state: State, samples: Samples) -> dict[str, float]:
    """Return the mean loss and, of classes, the share of samples whose class is predicted.

    In eval mode. Random crops are the same ones in every call, and the state of torch's generators
    is left as it was.

    Returns:
        "accuracy", but of values, and "loss".
    """
    with without_drawing(samples.device):
        torch.default_generator.manual_seed(0)
        outputs = outputs_on(loss, state, samples)
    # On the CPU, since not every device has float64.
    fit = {"loss": loss.criterion(outputs, samples.labels).cpu().double().mean().item()}
    if not samples.labels.is_floating_point():
        right = outputs.argmax(1) == samples.labels
        fit["accuracy"] = right.cpu().double().mean().item()
    return fit
