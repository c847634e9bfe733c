"""Whether a sample's loss is its own: found out by computing, not from a list of layers.

Attribution rests on L(z; θ), the loss of one sample at given parameters. There is none where the
samples of a batch see each other, or where a network's outputs rest on more than its parameters.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable

import torch
from torch import Tensor

from src.data.samples import Samples
from src.ensemble.draws import without_drawing
from src.ensemble.members import Params, PerSampleLoss
from src.errors import UserError

ADVICE = "normalise each sample by itself (GroupNorm, LayerNorm) or by statistics that stay fixed"

_checked: weakref.WeakSet[PerSampleLoss] = weakref.WeakSet()


def few(n_samples: int, n_wanted: int) -> Tensor:
    """Return positions of at most `n_wanted` of so many samples, spread from first to last."""
    return torch.linspace(0, n_samples - 1, min(n_samples, n_wanted)).round().long()


def move(params: Params, generator: torch.Generator) -> Params:
    """Return parameters moved by a tenth of their size, or a little where they are zero.

    What rests on them then shows: a gate that is zero as yet, an iteration that has converged.
    """

    def moved(p: Tensor) -> Tensor:
        size = p.square().mean().sqrt()
        noise = torch.randn(p.shape, generator=generator).to(p)
        return p + torch.where(size > 0, 0.1 * size, 0.01) * noise

    return {name: moved(p) for name, p in params.items()}


def require_independence(
    loss: PerSampleLoss, params: Params, inputs: Tensor, labels: Tensor
) -> None:
    """Check that in eval mode a loss does not depend on who else is in the batch.

    Args:
        loss: The per-sample loss, its model in eval mode.
        params: The parameters of one member.
        inputs: (B, ...), B at least 2.
        labels: (B,).

    Raises:
        UserError: It does.
    """
    pair = few(len(labels), 2).to(labels.device)

    def evaluate(inputs: Tensor, labels: Tensor) -> Tensor:
        return loss(params, inputs, labels)

    # Among three, since a loss may also be divided by how many there are.
    if _see_each_other(evaluate, inputs[pair], labels[pair], n_equals=3):
        raise UserError(
            f"{type(loss.model).__name__}: in eval mode a sample's loss depends on the other "
            f"samples of its batch, so that it has no attribution of its own; {ADVICE}"
        )


def require_independent_training(loss: PerSampleLoss, params: Params, samples: Samples) -> None:
    """Check that members can be trained as a stack with loss weights, once for a loss.

    Members of a stack share what a network keeps besides its trainable parameters, and a weight of
    zero takes a sample out of a batch only if the others do not see it. The state of torch's
    generators is left as it was, and the model too.

    Args:
        loss: The per-sample loss.
        params: The parameters of one member.
        samples: The training samples.

    Raises:
        UserError: Training changes buffers, or a sample's loss depends on others of its batch.
    """
    if loss in _checked:
        return
    model, name = loss.model, type(loss.model).__name__
    params = move(params, torch.Generator().manual_seed(0))
    changed: set[str] = set()

    def evaluate(inputs: Tensor, labels: Tensor) -> Tensor:
        torch.manual_seed(0)  # dropout draws the same for the same size of batch
        before = dict(model.named_buffers())
        values = params | {key: buffer.clone() for key, buffer in before.items()}
        losses = loss(values, inputs, labels)
        changed.update(key for key, old in before.items() if _differ(values[key], old))
        return losses

    was_training = model.training
    model.train()
    try:
        with (
            without_drawing(samples.device),
            torch.no_grad(),
        ):
            pair = samples[torch.tensor([0, len(samples) - 1], device=samples.device)]
            mixes = _see_each_other(evaluate, *pair, n_equals=2)
    finally:
        model.train(was_training)
    if changed:
        raise UserError(
            f"{name}: training changes its buffers ({', '.join(sorted(changed)[:3])}), which the "
            f"members of an ensemble would share; {ADVICE}"
        )
    if mixes:
        raise UserError(
            f"{name}: in training a sample's loss depends on the other samples of its batch, so "
            f"that leaving it out takes more than a loss weight of zero; {ADVICE}"
        )
    _checked.add(loss)


def _see_each_other(
    evaluate: Callable[[Tensor, Tensor], Tensor], inputs: Tensor, labels: Tensor, n_equals: int
) -> bool:
    """Say whether the losses of two samples are others in batches of their own copies."""
    together = evaluate(inputs, labels)
    among_equals = [
        evaluate(*(t[i].expand(n_equals, *t[i].shape).clone() for t in (inputs, labels)))[i]
        for i in range(2)
    ]
    tolerance = 1e-9 if together.dtype == torch.float64 else 1e-4
    difference = (together - torch.stack(among_equals)).abs().max()
    return (difference > tolerance * together.abs().max()).item()


def _differ(found: Tensor, expected: Tensor) -> bool:
    return ((found != expected) & ~(found.isnan() & expected.isnan())).any().item()
