"""The states of torch's generators, those that a computation on a device draws from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def generator_states(device: torch.device) -> tuple[Tensor, ...]:
    """Return where the generators stand: the CPU's, and a device's of its own."""
    states = (torch.get_rng_state(),)
    if device.type == "cuda":
        states += (torch.cuda.get_rng_state(device),)
    if device.type == "mps":
        states += (torch.mps.get_rng_state(),)
    return states


def set_generators(device: torch.device, states: tuple[Tensor, ...]) -> None:
    """Put the generators where they stood."""
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)
    if device.type == "mps":
        torch.mps.set_rng_state(states[1])


@contextmanager
def without_drawing(device: torch.device) -> Iterator[None]:
    """Leave torch's generators, a device's too, where they stood before."""
    states = generator_states(device)
    try:
        yield
    finally:
        set_generators(device, states)
