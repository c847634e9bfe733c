"""The kernel's descent of perceptrons against torch's operations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from src.fragility.descent import Objective, descend, flat
from src.kernels.library import are_there, without_kernels
from tests.tools import relative_error

pytestmark = pytest.mark.skipif(not are_there(torch.float64), reason="needs a C++ compiler")

M, CLASSES = 3, 4


def stack(widths: list[int], dtype: torch.dtype) -> list[Tensor]:
    """Return layers of M networks."""
    sizes = zip(widths, [*widths[1:], CLASSES], strict=True)
    return [torch.randn(M, n_out, n_in + 1, dtype=dtype) for n_in, n_out in sizes]


def problem(n: int, layers: list[Tensor], activation: str, *, anchored: bool) -> Objective:
    """Return an objective of n random samples, some of them left out, with random labels."""
    dtype = layers[0].dtype
    kept = torch.rand(M, n, dtype=dtype).round()
    return Objective(
        torch.randn(layers[0].shape[2] - 1, n, dtype=dtype),
        kept,
        kept[:, None] * torch.randn(M, CLASSES, n, dtype=dtype).softmax(1),
        0.05,
        activation,
        [layer[:1].expand(M, -1, -1) for layer in layers] if anchored else None,
    )


def both(layers: list[Tensor], objective: Objective, steps: int) -> tuple[Tensor, Tensor]:
    """Return what descent ends at, by the kernel and by torch."""
    found = flat(descend(layers, objective, [(0.05, steps)]))
    with without_kernels():
        return found, flat(descend(layers, objective, [(0.05, steps)]))


@pytest.mark.parametrize("n", [1, 31, 32, 33, 150])
@pytest.mark.parametrize("widths", [[1], [3, 1], [4, 5, 7], [2, 50]], ids=str)
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("anchored", [False, True])
def test_awkward_sizes(n, widths, activation, anchored):
    torch.manual_seed(0)
    layers = stack(widths, torch.float64)
    found, expected = both(layers, problem(n, layers, activation, anchored=anchored), 20)
    assert relative_error(found, expected) < 1e-12


def test_float32():
    torch.manual_seed(0)
    layers = stack([4, 5], torch.float32)
    for activation in ("relu", "tanh"):
        found, expected = both(layers, problem(40, layers, activation, anchored=False), 20)
        assert relative_error(found, expected) < 1e-5


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("size", [1e-9, 1e-3, 30.0, 1e3, 1e6])
def test_small_and_large_activations(activation, size):
    torch.manual_seed(0)
    layers = stack([4, 5], torch.float64)
    layers[0] *= size
    objective = problem(33, layers, activation, anchored=False)
    found, expected = both(layers, objective, 1)
    changed, of_torch = found - flat(layers), expected - flat(layers)
    assert relative_error(changed, of_torch) < 1e-9
    assert changed.abs().max() > 1e-4


def test_what_is_no_number_stays_none():
    layers = stack([4, 5], torch.float64)
    layers[0][1, 2, 3] = float("nan")
    for activation in ("relu", "tanh"):
        found, _ = both(layers, problem(33, layers, activation, anchored=False), 3)
        assert found.isfinite().all(1).tolist() == [True, False, True]
