"""Whether members can be one batched computation: found out by computing.

Not every operation has a batching rule: torch's recurrences have none, nor has a function of one's
own that is written for autograd alone, nor one that looks at a number. Members of such a network
are computed one after another.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from src.ensemble.generators import generator_states, set_generators, without_drawing
from src.ensemble.members import PerSampleLoss, Stack, repeat, size
from src.ensemble.memory import is_out_of_memory
from src.messages import say

N_TRIED = 4  # samples


def find_whether_together(
    loss: PerSampleLoss,
    members: Stack,
    inputs: Tensor,
    labels: Tensor,
    buffers: frozenset[str] = frozenset(),
    *,
    own_batches: bool = False,
) -> None:
    """Have `loss.computes_together` know whether a batch over members gives what each alone does.

    It is tried once for a mode of the model, with two members and a few samples, and where
    gradients are taken with these; what is found is said. Generators, members and model are left as
    they were.

    Args:
        loss: The per-sample loss; what its caller has told it is not questioned.
        members: The stack.
        inputs: (B, ...).
        labels: (B,).
        buffers: Names of the buffers that a pass may change.
        own_batches: Whether members will have batches of their own.
    """
    with_gradients = torch.is_grad_enabled()
    key = ("tried together", loss.model.training, with_gradients, own_batches)
    one_by_one = ("one by one", loss.model.training)
    if (
        key in loss.found
        or loss.together is not None
        or size(members) == 1
        or not loss.computes_together(labels.device)
    ):
        return
    two = {name: tensor[:2].detach() for name, tensor in members.items()}
    batch = inputs[:N_TRIED], labels[:N_TRIED]
    if own_batches:
        batch = tuple(repeat({"": t}, 2)[""].clone() for t in batch)

    def compute() -> tuple[Tensor, ...]:
        leaves = {
            name: t.clone().requires_grad_(with_gradients) if name in loss.trainable else t
            for name, t in two.items()
        }
        losses, changed = loss.forward_of_members(leaves, *batch, buffers, own_batches=own_batches)
        if with_gradients and losses.requires_grad:
            losses.sum().backward()
        gradients = [t.grad for t in leaves.values() if t.grad is not None]
        return losses.detach(), *gradients, *changed.values()

    reason = ""
    with without_drawing(labels.device):
        states = generator_states(labels.device)
        loss.found[one_by_one] = True
        try:
            alone = compute()
        finally:
            loss.found[one_by_one] = False
        set_generators(labels.device, states)
        try:
            with warnings.catch_warnings():
                # What it does member by member after all comes with a warning at every step.
                warnings.filterwarnings("error", "There is a performance drop")
                together = compute()
        except Exception as error:  # whatever a forward may raise that is given batched tensors
            if is_out_of_memory(error):
                raise
            *_, operation = str(error).split("not yet implemented the batching rule for ")
            reason = (operation.splitlines() or [type(error).__name__])[0].split(". ")[0][:100]
            if isinstance(error, UserWarning):
                reason = f"no batching rule for {reason}"
        else:
            if not _agree(together, alone):
                reason = "a batch over members gives other numbers"
    loss.found[one_by_one] = bool(reason)
    loss.found[key] = True
    if reason and not loss.found.get(("one by one", not loss.model.training)):
        say(f"{type(loss.model).__name__}: members are computed one at a time ({reason})")


def _agree(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> bool:
    """Say whether tensors are equal, to rounding of their largest numbers."""
    if len(found) != len(expected):
        return False
    # Counters and flags compare as numbers; in float32, since not every device has float64.
    found, expected = (
        [t if t.is_floating_point() else t.float() for t in tensors]
        for tensors in (found, expected)
    )
    sizes = [e.nan_to_num(0, 0, 0).abs().max().item() for e in expected]
    relative, rounding = (1e-9, 1e-13) if expected[0].dtype == torch.float64 else (1e-3, 1e-5)
    return all(
        torch.isclose(
            f, e, rtol=0, atol=relative * size + rounding * max(sizes), equal_nan=True
        ).all()
        for f, e, size in zip(found, expected, sizes, strict=True)
    )
