"""Stacks of members, and their losses one after another and as one batch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from src.members import (
    PerSampleLoss,
    n_parameters,
    repeat,
    size,
    stack,
    trainable,
    unstack,
)
from tests.conftest import Case
from tests.tools import relative_error


def test_stack_and_unstack():
    case = Case(3, 2)
    members = stack(case.checkpoints)
    assert size(members) == 2
    for found, expected in zip(unstack(members), case.checkpoints, strict=True):
        assert list(found) == list(expected)
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_repeated_members_do_not_share_memory():
    params = {"p": torch.zeros(2)}
    members = repeat(params, 3)
    members["p"][1] = 1
    assert members["p"].tolist() == [[0, 0], [1, 1], [0, 0]]
    assert params["p"].tolist() == [0, 0]


def test_only_trainable_parameters():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2).requires_grad_(False))
    params = trainable(model)
    assert list(params) == ["0.weight", "0.bias"]
    assert n_parameters(params) == 9
    params["0.bias"] += 1
    assert not torch.equal(params["0.bias"], model[0].bias)


@pytest.mark.parametrize(
    ("model", "on_cpu"),
    [
        (nn.Conv2d(1, 1, 1), False),
        (nn.Sequential(nn.Conv2d(1, 1, 1).requires_grad_(False), nn.Linear(1, 1)), True),
    ],
    ids=["own convolutions", "shared convolutions"],
)
def test_members_run_one_by_one_where_a_batch_would_group_convolutions(
    model: nn.Module, on_cpu: bool
):
    assert PerSampleLoss(model).vectorises(torch.device("cpu")) == on_cpu
    assert PerSampleLoss(model).vectorises(torch.device("cuda"))
    assert not PerSampleLoss(model, vectorise=False).vectorises(torch.device("cuda"))
    assert PerSampleLoss(model, vectorise=True).vectorises(torch.device("cpu"))


@pytest.mark.parametrize("training", [False, True])
def test_members_together_equal_members_alone(vectorise: bool, training: bool):
    """Also with dropout: all members get the masks of a run alone, from the same state."""
    case = Case(6, 5, dropout=0.4)
    loss = case.loss(vectorise=vectorise)
    loss.model.train(training)
    members = stack(case.checkpoints)
    torch.manual_seed(3)
    found = loss.of_members(members, *case.data[0])
    after = torch.get_rng_state()
    for losses, params in zip(found, case.checkpoints, strict=True):
        torch.manual_seed(3)
        assert relative_error(losses, loss(params, *case.data[0])) < 1e-9
    assert torch.equal(after, torch.get_rng_state())


def test_masks_differ_from_call_to_call(vectorise: bool):
    case = Case(6, 5, dropout=0.4)
    loss = case.loss(vectorise=vectorise)
    first, second = (loss.of_members(repeat(case.checkpoints[0], 2), *case.data[0]) for _ in "ab")
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first, second)


def test_batches_of_their_own(vectorise: bool):
    case = Case(6, 5)
    loss = case.loss(vectorise=vectorise)
    positions = torch.tensor([[0, 3, 5], [4, 1, 2]])
    inputs, labels = case.data[0]
    found = loss.of_members(stack(case.checkpoints), inputs[positions], labels[positions])
    for losses, params, chosen in zip(found, case.checkpoints, positions, strict=True):
        assert relative_error(losses, loss(params, inputs[chosen], labels[chosen])) < 1e-9


def test_the_device_decides_unless_told(monkeypatch: pytest.MonkeyPatch):
    case = Case(3, 2)
    called = []
    monkeypatch.setattr("src.members.vmap", lambda *_, **__: called.append(1) or (lambda *_: None))
    members = repeat(case.checkpoints[0], 2)
    PerSampleLoss(case.build()).of_members(members, *case.data[0])
    assert not called
    PerSampleLoss(case.build(), vectorise=True).of_members(members, *case.data[0])
    assert called
