"""Stacks of members, and their losses one after another and as one batch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.func import grad, hessian, jvp, vmap

from src.ensemble.members import (
    PerSampleLoss,
    accurate_cross_entropy,
    cross_entropy,
    n_parameters,
    repeat,
    size,
    stack,
    state_of,
    trainable,
    unstack,
)
from src.kernels.fuse import fuse
from src.kernels.library import are_there, without_kernels
from src.models.cnn import CNN2, CNN3
from tests.conftest import Case
from tests.tools import relative_error

BUILDERS = [
    lambda: CNN2((1, 28, 28), 10),
    lambda: CNN2((3, 32, 32), 10),
    lambda: CNN3((3, 32, 32), 10),
]


def test_stack_and_unstack():
    case = Case(3, 2)
    members = stack(case.checkpoints)
    assert size(members) == 2
    for found, expected in zip(unstack(members), case.checkpoints, strict=True):
        assert list(found) == list(expected)
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_what_all_members_share_is_there_once():
    shared, own = torch.zeros(2), torch.ones(2)
    for members in (
        repeat({"shared": shared, "own": own}, 3),
        stack([{"shared": shared, "own": own.clone()} for _ in "abc"]),
    ):
        assert size(members) == 3
        assert members["shared"].data_ptr() == shared.data_ptr()
        assert members["shared"].stride(0) == 0
        assert [member["own"].tolist() for member in unstack(members)] == [[1, 1]] * 3


def test_a_state_is_all_that_a_draw_has_for_its_own():
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 3).requires_grad_(False))
    own = ["0.weight", "0.bias"]
    buffers = ["0.running_mean", "0.running_var", "0.num_batches_tracked"]
    state = state_of(model)
    assert list(state) == [*own, "1.weight", "1.bias", *buffers]
    state["0.running_mean"] += 1
    assert not model[0].running_mean.any()
    loss = PerSampleLoss(model.eval())
    bound, params = loss.at(state)
    assert list(params) == own
    inputs, labels = torch.randn(4, 2), torch.arange(4) % 3
    moved = loss(state, inputs, labels)
    assert torch.equal(bound(params, inputs, labels), moved)
    assert torch.equal(bound.accurate.at(params)[0].fixed["0.running_mean"], torch.ones(2))
    assert not torch.equal(loss(params, inputs, labels), moved)
    model.frozen_weights_are_given = True
    assert list(state_of(model)) == [*own, *buffers]


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
    assert PerSampleLoss(model).computes_together(torch.device("cpu")) == on_cpu
    assert PerSampleLoss(model).computes_together(torch.device("cuda"))
    assert not PerSampleLoss(model, together=False).computes_together(torch.device("cuda"))
    assert PerSampleLoss(model, together=True).computes_together(torch.device("cpu"))


@pytest.mark.parametrize("training", [False, True])
def test_members_together_equal_members_alone(together: bool, training: bool):
    """Also with dropout: all members get the masks of a run alone, from the same state."""
    case = Case(6, 5, dropout=0.4)
    loss = case.loss(together=together)
    loss.model.train(training)
    members = stack(case.checkpoints)
    torch.manual_seed(3)
    found = loss.of_members(members, *case.data[0])
    after = torch.get_rng_state()
    for losses, params in zip(found, case.checkpoints, strict=True):
        torch.manual_seed(3)
        assert relative_error(losses, loss(params, *case.data[0])) < 1e-9
    assert torch.equal(after, torch.get_rng_state())


def test_masks_differ_from_call_to_call(together: bool):
    case = Case(6, 5, dropout=0.4)
    loss = case.loss(together=together)
    first, second = (loss.of_members(repeat(case.checkpoints[0], 2), *case.data[0]) for _ in "ab")
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first, second)


@pytest.mark.parametrize("build", BUILDERS)
@pytest.mark.parametrize("kernels", [False, True])
def test_stacks_of_a_fused_model(build: Callable[[], nn.Module], kernels: bool):
    """Losses and gradients of members at once, with the first convolution's images shared."""
    if kernels and not are_there(torch.float64):
        pytest.skip("needs a C++ compiler")
    model = fuse(build().double())
    n_channels = model.conv1.in_channels
    inputs = torch.rand(3, n_channels, *((28, 28) if n_channels == 1 else (32, 32))).double()
    labels = torch.arange(3)
    members = [
        {name: torch.randn_like(p) * 0.1 for name, p in trainable(model).items()} for _ in "abc"
    ]
    stacked = {name: p.requires_grad_() for name, p in stack(members).items()}
    with contextlib.nullcontext() if kernels else without_kernels():
        loss = PerSampleLoss(model)
        assert loss.computes_together(torch.device("cpu")) == kernels
        found = loss.of_members(stacked, inputs, labels)
        gradients = torch.autograd.grad(found.square().sum(), list(stacked.values()))
        with torch.no_grad():
            assert relative_error(loss.of_members(stacked, inputs, labels), found.detach()) < 1e-12
    alone = PerSampleLoss(model, together=False)
    for m, params in enumerate(members):
        leaves = {name: p.requires_grad_() for name, p in params.items()}
        with without_kernels():
            expected = alone(leaves, inputs, labels)
        assert relative_error(found[m].detach(), expected.detach()) < 1e-12
        of_member = torch.autograd.grad(expected.square().sum(), list(leaves.values()))
        for gradient, e in zip(gradients, of_member, strict=True):
            assert relative_error(gradient[m], e) < 1e-11


def test_the_device_decides_unless_told(monkeypatch: pytest.MonkeyPatch):
    case = Case(3, 2)
    called = []
    monkeypatch.setattr(
        "src.ensemble.members.vmap", lambda *_, **__: called.append(1) or (lambda *_: (None, {}))
    )
    members = repeat(case.checkpoints[0], 2)
    PerSampleLoss(case.build()).of_members(members, *case.data[0])
    assert not called
    PerSampleLoss(case.build(), together=True).of_members(members, *case.data[0])
    assert called


@pytest.mark.parametrize("n_classes", [1, 2, 10])
@pytest.mark.parametrize("spread", [0.0, 1.0, 30.0])
def test_accurate_cross_entropy_and_its_derivatives(n_classes: int, spread: float):
    """In float64 it is torch's, with ties, confident and wrong samples, in both orders."""
    logits = spread * torch.randn(6, n_classes, dtype=torch.float64)
    labels = torch.arange(6) % n_classes
    found = accurate_cross_entropy(logits, labels)
    assert relative_error(found, cross_entropy(logits, labels)) < 1e-14

    def hessians(criterion: Callable) -> torch.Tensor:
        def total(z: torch.Tensor) -> torch.Tensor:
            return criterion(z, labels).sum()

        def product(tangent: torch.Tensor) -> torch.Tensor:
            return jvp(grad(total), (logits,), (tangent,))[1]

        identity = torch.eye(logits.numel(), dtype=torch.float64)
        tangents = identity.unflatten(1, logits.shape)
        return torch.stack([grad(total)(logits), *vmap(product)(tangents)])

    assert relative_error(hessians(accurate_cross_entropy), hessians(cross_entropy)) < 1e-12


@pytest.mark.parametrize("label", [0, 1, 2])
@pytest.mark.parametrize("gap", [10.0, 20.0, 40.0])
def test_derivatives_of_a_confident_sample_keep_their_digits(label: int, gap: float):
    """Against float64: the largest class's probability is 1 to float32's precision."""
    logits = torch.tensor([[0.0, gap, 1.0]])
    labels = torch.tensor([label])

    def derivatives(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        def loss(z: torch.Tensor) -> torch.Tensor:
            return accurate_cross_entropy(z, labels).sum()

        return loss(z), grad(loss)(z), hessian(loss)(z)

    # Even float64 has no digits of the usual form at a gap of 40: probabilities by hand.
    others = torch.tensor([-gap, -torch.inf, 1 - gap], dtype=torch.float64).exp()
    p = others / (1 + others.sum())
    p[1] = 1 / (1 + others.sum())
    rest = p.sum() - p  # 1 − p_k, without cancelling
    rest[1] = p[0] + p[2]
    target = torch.zeros(3, dtype=torch.float64)
    target[label] = 1
    gradient = torch.where(target == 1, -rest, p)
    curvature = -torch.outer(p, p)
    curvature.diagonal().copy_(p * rest)
    value = others.sum().log1p() + gap - logits[0, label].double()
    for found, expected in zip(derivatives(logits), (value, gradient, curvature), strict=True):
        assert relative_error(found.squeeze(), expected) < 1e-6


@pytest.mark.parametrize("n_classes", [2, 3])
def test_accurate_cross_entropy_of_huge_logits(n_classes: int):
    logits = torch.zeros(n_classes)[None].repeat(2, 1)
    logits[:, 0], logits[:, 1] = 1e4, -1e4
    logits.requires_grad_()
    losses = accurate_cross_entropy(logits, torch.tensor([0, 1]))
    assert losses.tolist() == [0, 2e4]
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    assert gradient[0].tolist() == [0] * n_classes
    assert gradient[1, :2].tolist() == [1, -1]


def test_attribution_alone_takes_the_accurate_form():
    """And a criterion of one's own stays as it is."""
    loss = PerSampleLoss(nn.Linear(2, 3))
    assert loss.criterion is cross_entropy
    assert loss.accurate.criterion is accurate_cross_entropy
    assert loss.accurate.accurate is loss.accurate

    def own(outputs: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return outputs.square().sum(1)

    loss = PerSampleLoss(nn.Linear(2, 3), own)
    assert loss.accurate is loss
