"""Whether a sample's loss is its own: found out by computing, not from a list of layers.

Attribution rests on L(z; θ), the loss of one sample at given parameters. There is none where the
samples of a batch see each other, or where a network's outputs rest on more than its parameters.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call

from src.data.samples import Samples
from src.ensemble.generators import without_drawing
from src.ensemble.members import Params, PerSampleLoss, State
from src.ensemble.memory import is_out_of_memory
from src.errors import UserError

ADVICE = "normalise each sample by itself (GroupNorm, LayerNorm) or by statistics that stay fixed"


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


def require_independence(loss: PerSampleLoss, state: State, inputs: Tensor, labels: Tensor) -> None:
    """Check that in eval mode a loss does not depend on who else is in the batch.

    Args:
        loss: The per-sample loss, its model in eval mode.
        state: The state of one member.
        inputs: (B, ...), B at least 2.
        labels: (B,).

    Raises:
        UserError: It does.
    """
    pair = few(len(labels), 2).to(labels.device)

    def evaluate(inputs: Tensor, labels: Tensor) -> Tensor:
        return loss(state, inputs, labels)

    # Among three, since a loss may also be divided by how many there are.
    if _see_each_other(evaluate, inputs[pair], labels[pair], n_equals=3):
        raise UserError(
            f"{type(loss.model).__name__}: in eval mode a sample's loss depends on the other "
            f"samples of its batch, so that it has no attribution of its own; {ADVICE}"
        )


def require_independent_samples(loss: PerSampleLoss, state: State, samples: Samples) -> None:
    """Check as `require_independence` does, once for a loss, whatever the model's mode is.

    The state of torch's generators is left as it was, and the model too.
    """
    if "independent" not in loss.found:
        moved = {**state, **move(loss.parameters(state), torch.Generator().manual_seed(0))}
        with trial(loss, samples, training=False):
            require_independence(loss, moved, *_two(samples))
        loss.found["independent"] = True


@dataclass(frozen=True)
class Training:
    """What training a network does beside moving its parameters.

    Attributes:
        changes: Names of the buffers that it changes.
        mixes: Whether what a batch does to a sample's loss, or to buffers, depends on who is in it,
            so that a sample is left out only by taking it out of the batch.
    """

    changes: frozenset[str]
    mixes: bool


def look_at_training(loss: PerSampleLoss, state: State, samples: Samples) -> Training:
    """Find out what training a network does, once for a loss, by passes in training mode.

    The state of torch's generators is left as it was, and the model too.

    Args:
        loss: The per-sample loss.
        state: The state of one member.
        samples: The training samples.
    """
    if "training" not in loss.found:
        with trial(loss, samples, training=True):
            loss.found["training"] = _look_at_training(loss, state, samples)
    return loss.found["training"]


def _look_at_training(loss: PerSampleLoss, state: State, samples: Samples) -> Training:
    before = dict(loss.model.named_buffers()) | loss.fixed | state
    names = frozenset(name for name, _ in loss.model.named_buffers())
    moved = before | move(loss.parameters(state), torch.Generator().manual_seed(0))
    after: list[State] = []
    changed: set[str] = set()

    def evaluate(inputs: Tensor, labels: Tensor) -> Tensor:
        torch.manual_seed(0)  # dropout draws the same for the same size of batch
        copies = {name: before[name].clone() for name in names}
        versions = {name: tensor._version for name, tensor in copies.items()}
        values = moved | copies
        outputs = functional_call(loss.model, values, (inputs,))
        after.append({name: values[name] for name in names})
        # Batch normalisation's statistics keep their version.
        changed.update(
            name
            for name, tensor in copies.items()
            if values[name] is not tensor
            or tensor._version != versions[name]
            or _differ(tensor, before[name])
        )
        return loss.criterion(outputs, labels)

    inputs, labels = _two(samples)
    mixes = _see_each_other(evaluate, inputs, labels, n_equals=2)
    if changed:
        # A buffer may count samples, so that one more of them shows, too.
        evaluate(*(t[:1].expand(3, *t.shape[1:]).clone() for t in (inputs, labels)))
        mixes = mixes or any(_differ(found[n], after[0][n]) for found in after for n in changed)
    # Of a single sample nothing shows what another would do.
    return Training(frozenset(changed), mixes or (bool(changed) and len(samples) == 1))


def require_batches(
    loss: PerSampleLoss, state: State, samples: Samples, batch_size: int, *, without_one: bool
) -> None:
    """Check that the network can be trained on the batches of an epoch, by trying the smallest.

    Args:
        loss: The per-sample loss.
        state: The state of one member.
        samples: The training samples.
        batch_size: Samples in a batch.
        without_one: Whether batches are to do without one of their samples, too.

    Raises:
        UserError: A batch is too small for a network whose samples see each other.
    """
    training = look_at_training(loss, state, samples)
    if not training.mixes:
        return
    smallest = len(samples) % batch_size or min(batch_size, len(samples))
    left = smallest - without_one
    reason = "nothing is left"
    if left > 0:
        positions = torch.arange(left, device=samples.device)
        try:
            with trial(loss, samples, training=True):
                loss.forward(state, *samples[positions], training.changes)
        except (ValueError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            reason = str(error).splitlines()[0][:100]
        else:
            return
    raise UserError(
        f"{type(loss.model).__name__}: with {len(samples)} training samples and a batch size of "
        f"{batch_size} a batch has {_counted(smallest)}"
        f"{f', {left} without the one that is left out' if without_one else ''}, too few for a "
        f"network in which samples see each other in training ({reason}): choose another batch "
        "size or number of samples"
    )


def _counted(n_samples: int) -> str:
    return "1 sample" if n_samples == 1 else f"{n_samples} samples"


def _two(samples: Samples) -> tuple[Tensor, Tensor]:
    """Return inputs and labels of two samples: of one, where there is no other, twice."""
    return samples[torch.tensor([0, len(samples) - 1], device=samples.device)]


@contextlib.contextmanager
def trial(loss: PerSampleLoss, samples: Samples, *, training: bool) -> Iterator[None]:
    """Compute in a mode of the model, without gradients, and leave model and generators alone."""
    modes = [(module, module.training) for module in loss.model.modules()]
    loss.model.train(training)
    try:
        with without_drawing(samples.device), torch.no_grad():
            yield
    finally:
        for module, was_training in modes:
            module.training = was_training


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
    if found.shape != expected.shape:
        return True
    return ((found != expected) & ~(found.isnan() & expected.isnan())).any().item()
