"""The optimisers of stacks: first steps and trainings against torch's, one model at a time."""

from __future__ import annotations

import pytest
import torch

from src.ensemble.optimizer import OptimizerSettings

SETTINGS = [
    OptimizerSettings(1e-3, 5e-3),
    OptimizerSettings(2e-2, 0.1, "adamw"),
    OptimizerSettings(0.05, 1e-2, "sgd"),
    OptimizerSettings(0.05, 1e-2, "sgd", momentum=0.9),
]


def by_name(settings: OptimizerSettings) -> str:
    return f"{settings.name}-{settings.momentum:g}"


@pytest.mark.parametrize("settings", SETTINGS, ids=by_name)
def test_first_step_is_that_of_the_optimiser(settings):
    torch.manual_seed(0)
    start = {"w": torch.randn(3, 4, dtype=torch.float64), "b": torch.zeros(3, dtype=torch.float64)}
    gradients = {name: torch.randn(5, *p.shape, dtype=torch.float64) for name, p in start.items()}
    gradients["w"][2] = 0  # as of a sample whose loss is flat
    expected = {name: p.expand(5, *p.shape).clone() for name, p in start.items()}
    for name, p in expected.items():
        p.grad = gradients[name].clone()
    settings.optimizer(expected).step()
    found = settings.first_step(start, gradients)
    for name in start:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("settings", SETTINGS, ids=by_name)
def test_one_optimiser_of_a_stack_is_one_for_each_member(settings):
    torch.manual_seed(0)
    start = torch.randn(4, 6, dtype=torch.float64)
    gradients = torch.randn(3, 4, 6, dtype=torch.float64)  # of three steps

    def trained(rows: torch.Tensor, of_steps: torch.Tensor) -> torch.Tensor:
        p = rows.clone().requires_grad_()
        optimizer = settings.optimizer({"p": p})
        for gradient in of_steps:
            p.grad = gradient.clone()
            optimizer.step()
        return p.detach()

    together = trained(start, gradients)
    for m in range(4):
        assert torch.equal(together[m], trained(start[m], gradients[:, m]))
