"""The states of torch's generators, those that a computation on a device draws from."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor


def without_drawing(device: torch.device) -> AbstractContextManager:
    """Return a context behind which torch's generators, a device's too, stand as before it."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


def generator_states(device: torch.device) -> tuple[Tensor, ...]:
    """Return where the generators stand: the CPU's, and a device's of its own."""
    on_cpu = torch.get_rng_state()
    return (on_cpu, torch.cuda.get_rng_state(device)) if device.type == "cuda" else (on_cpu,)


def set_generators(device: torch.device, states: tuple[Tensor, ...]) -> None:
    """Put the generators where they stood."""
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)
