"""Per-sample gradients against one backward pass a sample, and against a worked example."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from src.ensemble.members import PerSampleLoss, repeat, state_of, trainable
from src.tda.gradients import per_sample_gradients
from src.tda.hessian import flatten, unflatten
from tests import reference
from tests.conftest import Case
from tests.tools import TOLERANCE, relative_error


def half_squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return half the squared error of each sample."""
    return (outputs[:, 0] - targets).square() / 2


def test_worked_example():
    """y = wx + b, w = b = 1, x = 2, target 5: (y − 5)(x, 1) = −2 (2, 1)."""
    params = {"weight": torch.ones(1, 1), "bias": torch.ones(1)}
    loss = PerSampleLoss(nn.Linear(1, 1), half_squared_error)
    inputs, targets = torch.tensor([[2.0]]), torch.tensor([5.0])
    found = per_sample_gradients(loss, params, inputs, targets)
    assert found.stack()["weight"].tolist() == [[[-4.0]]]
    assert found.stack()["bias"].tolist() == [[-2.0]]
    assert found.norms().item() == pytest.approx(20**0.5)
    assert found.inner(found).item() == 20


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Sigmoid()])
def test_worked_example_behind_an_activation(activation):
    """The same with y = a(wx + b) at wx + b = 3: (y − 5) a'(3) (x, 1)."""
    params = {"0.weight": torch.ones(1, 1).double(), "0.bias": torch.ones(1).double()}
    model = nn.Sequential(nn.Linear(1, 1), activation).double()
    inputs, targets = torch.tensor([[2.0]]).double(), torch.tensor([5.0]).double()
    loss = PerSampleLoss(model, half_squared_error)
    found = per_sample_gradients(loss, params, inputs, targets).stack()
    y = 1 / (1 + math.exp(-3))
    slope = -2 if isinstance(activation, nn.ReLU) else (y - 5) * y * (1 - y)
    assert found["0.weight"].item() == pytest.approx(2 * slope)
    assert found["0.bias"].item() == pytest.approx(slope)


def test_gradients_of_all_samples(case: Case):
    loss = case.loss()
    loss.model.train()  # gradients are those of eval mode all the same
    for model, params in zip(case.models, case.checkpoints, strict=True):
        train, test = (per_sample_gradients(loss, params, *data) for data in case.data)
        expected_train, expected_test = (reference.gradients(model, data) for data in case.data)
        tolerance = TOLERANCE[case.dtype]
        assert relative_error(flatten(train.stack()), expected_train) < tolerance
        assert relative_error(train.norms(), expected_train.norm(dim=1)) < tolerance
        assert relative_error(train.inner(test), expected_train @ expected_test.T) < tolerance
        vectors = unflatten(expected_test, params)
        assert relative_error(train.contract(vectors), expected_test @ expected_train.T) < tolerance


class Sequence(nn.Module):
    """Linear layers over positions, one of them frozen, and a dilated convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(2, 6, (2, 3), stride=(2, 1), padding=(1, 0), dilation=(1, 2))
        self.norm = nn.LayerNorm(6).requires_grad_(False)
        self.frozen = nn.Linear(6, 6).requires_grad_(False)
        self.adapter = nn.Linear(6, 6, bias=False)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(6, 4)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, 4) of images (B, 2, H, W)."""
        tokens = self.norm(self.embed(images).flatten(2).mT)
        tokens = torch.tanh(self.frozen(tokens) + self.adapter(self.dropout(tokens)))
        return self.head(tokens.mean(1))


def test_layers_over_positions_frozen_layers_and_dilated_convolutions():
    model = Sequence().double()
    data = torch.randn(5, 2, 6, 7, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0])
    params = trainable(model)
    assert list(params) == [
        "embed.weight",
        "embed.bias",
        "adapter.weight",
        "head.weight",
        "head.bias",
    ]
    found = per_sample_gradients(PerSampleLoss(model), params, *data)
    expected = reference.gradients(model, data)
    assert relative_error(flatten(found.stack()), expected) < 1e-9
    assert relative_error(found.inner(found), expected @ expected.T) < 1e-9
    assert relative_error(found.contract(unflatten(expected, params)), expected @ expected.T) < 1e-9


def test_states_with_other_running_statistics():
    """Of which the first are the model's own: what is found out there has to hold elsewhere."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)).double()
    loss, data = PerSampleLoss(model), (torch.randn(5, 3).double(), torch.arange(5) % 2)
    for step in range(3):
        plain = copy.deepcopy(model)
        for moved in (plain[1].running_mean, plain[1].running_var):
            moved.add_(step * torch.rand(4))
        bound, params = loss.at(state_of(plain))
        found = per_sample_gradients(bound, params, *data)
        assert relative_error(flatten(found.stack()), reference.gradients(plain, data)) < 1e-9


def test_flatten_and_unflatten_are_inverse():
    case = Case(3, 2)
    stack = repeat(case.checkpoints[0], 2)
    back = unflatten(flatten(stack), case.checkpoints[0])
    assert list(back) == list(stack)
    assert all(torch.equal(back[name], stack[name]) for name in stack)
