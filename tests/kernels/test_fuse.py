"""The pass over plain networks: what it finds, and that it changes no number."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap

from src.ensemble.members import PerSampleLoss, repeat, trainable
from src.kernels import blocks
from src.kernels.fuse import by_kernels, fuse
from src.kernels.library import are_there, without_kernels
from tests.tools import relative_error

TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5}


class Net(nn.Module):
    """A network of one convolution whose forward is given."""

    def __init__(self, forward: Callable, **settings: object) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 32, **{"kernel_size": 3, **settings})
        self.fc = nn.Linear(32, 4)
        self.register_buffer("scale", torch.ones(1))
        self.calls = 0
        self.written = forward

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.written(self, images).mean((2, 3)))


def block(*layers: object, pool: nn.Module | None = None) -> list:
    return [nn.Conv2d(*layers), nn.GELU(), pool or nn.MaxPool2d(2)]


def three() -> nn.Module:
    return nn.Sequential(
        *block(3, 24, 3),
        *block(24, 40, 5, 1, 2),
        nn.Dropout(0.3),
        *block(40, 64, 3, 1, "same"),
        nn.Flatten(),
        nn.LazyLinear(4),
    )


def strided() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.ReLU(), *block(8, 16, 2), nn.Flatten(), nn.LazyLinear(4)
    )


def without_bias() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1, bias=False),
        nn.GELU(),
        nn.MaxPool2d((2, 2), 2),
        *block(32, 32, 4, 1, 3),
        nn.Flatten(),
        nn.LazyLinear(4),
    )


def pooled(net: Net, x: Tensor) -> Tensor:
    return F.max_pool2d(F.gelu(net.conv(x)), 2)


FOUND = {
    "three": three,
    "strided": strided,
    "without bias": without_bias,
    "functions": lambda: Net(pooled),
    "odd padding": lambda: Net(pooled, kernel_size=5, padding=(1, 3)),
    "keywords": lambda: Net(
        lambda net, x: torch.max_pool2d(F.gelu(net.conv(x), approximate="none"), kernel_size=[2, 2])
    ),
}  # fmt: skip

NOT_FOUND = {
    "tanh": lambda net, x: F.max_pool2d(F.gelu(net.conv(x), approximate="tanh"), 2),
    "3x3": lambda net, x: F.max_pool2d(F.gelu(net.conv(x)), 3),
    "overlapping": lambda net, x: F.max_pool2d(F.gelu(net.conv(x)), 2, 1),
    "ceil": lambda net, x: F.max_pool2d(F.gelu(net.conv(x)), 2, ceil_mode=True),
    "padded": lambda net, x: F.max_pool2d(F.gelu(net.conv(x)), 2, padding=1),
    "map used twice": lambda net, x: (
        F.max_pool2d(F.gelu(maps := net.conv(x)), 2) + F.avg_pool2d(maps, 2)
    ),
    "GELU used twice": lambda net, x: (
        F.max_pool2d(g := F.gelu(net.conv(x)), 2) + F.avg_pool2d(g, 2)
    ),
    "control flow": lambda net, x: pooled(net, x if x.sum() > 0 else -x),
    "random": lambda net, x: pooled(net, x) * (random.random() < 0.5),
    "noise": lambda net, x: pooled(net, x) + torch.rand(()),
    "numpy's noise": lambda net, x: pooled(net, x) + np.random.rand(),
    "no_grad": lambda net, x: _without_gradient(net, x),
    "counter": lambda net, x: (setattr(net, "calls", net.calls + 1), pooled(net, x))[1],
    "relu": lambda net, x: F.max_pool2d(F.relu(net.conv(x)), 2),
}


def _without_gradient(net: Net, x: Tensor) -> Tensor:
    with torch.no_grad():
        return pooled(net, x)


def pair(build: Callable[[], nn.Module], dtype: torch.dtype) -> tuple[nn.Module, nn.Module, Tensor]:
    """Return a plain network, the fused one of the same parameters, and images."""
    images = torch.rand(4, 3, 17, 19, dtype=dtype)
    plain = build().to(dtype)
    plain(images)  # gives lazy layers their sizes
    return plain, fuse(copy.deepcopy(plain)), images


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list:
    """How many blocks each fused operation had."""
    found, run = [], blocks.run

    def counted(images: Tensor, *layers: tuple) -> Tensor:
        found.append(len(layers))
        return run(images, *layers)

    monkeypatch.setattr(blocks, "run", counted)
    return found


@pytest.mark.parametrize("name", FOUND)
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("kernels", [True, False])
def test_same_numbers(runs: list, name: str, dtype: torch.dtype, kernels: bool):
    """Outputs, gradients, Hessian products and stacks, with parameters of the same names."""
    if kernels and not are_there(dtype):
        pytest.skip("needs a C++ compiler")
    plain, fused, images = pair(FOUND[name], dtype)
    assert [*plain.state_dict()] == [*fused.state_dict()]
    plain.eval(), fused.eval()
    params = trainable(plain)
    vectors = {name: torch.randn(2, *p.shape, dtype=dtype) for name, p in params.items()}

    def quantities(model: nn.Module) -> list[Tensor]:
        def loss(params: dict) -> Tensor:
            return functional_call(model, params, (images,)).square().sum()

        def product(vector: dict) -> dict:
            return jvp(grad(loss), (params,), (vector,))[1]

        with torch.no_grad():
            outputs = model(images)
            of_stack = vmap(loss)(repeat(params, 2))
            _, tangent = jvp(loss, (params,), ({n: v[0] for n, v in vectors.items()},))
        gradients = torch.autograd.grad(model(images).square().sum(), [*model.parameters()])
        stacked = vmap(grad(loss))(repeat(params, 2))
        products = vmap(product)(vectors)
        return [outputs, of_stack, tangent, *gradients, *stacked.values(), *products.values()]

    expected = quantities(plain)
    assert not runs
    if kernels:
        found = quantities(fused)
    else:
        with without_kernels():
            found = quantities(fused)
    assert runs
    factor = 100 if dtype == torch.float32 else 10
    for f, e in zip(found, expected, strict=True):
        assert relative_error(f, e) < factor * TOLERANCES[dtype]
    assert relative_error(found[0], expected[0]) < TOLERANCES[dtype]


@pytest.mark.parametrize("name", NOT_FOUND)
def test_what_has_to_stay_as_it_is(runs: list, name: str):
    plain, fused, images = pair(lambda: Net(NOT_FOUND[name]), torch.float64)
    results = []
    for model in (plain, fused):
        torch.manual_seed(0), random.seed(0), np.random.seed(0)
        outputs = model(images)
        results.append((outputs, *torch.autograd.grad(outputs.sum(), [model.fc.weight])))
    for found, expected in zip(*reversed(results), strict=True):
        assert torch.equal(found, expected)
    assert not runs
    assert plain.calls == fused.calls


def test_a_region_of_another_precision_stays_one(runs: list):
    def in_half(net: Net, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return pooled(net, x).float()

    plain, fused, images = pair(lambda: Net(in_half), torch.float32)
    assert torch.equal(fused(images), plain(images))
    assert not runs


def test_modes_and_hooks(runs: list):
    """Dropout is that of the mode; a hook sees what it would, wherever it is."""
    plain, fused, images = pair(three, torch.float64)
    # Masks are drawn in the order of memory, which that of a fused map always is.
    images = images.to(memory_format=torch.channels_last)
    for training in (True, False, True):
        results = []
        for model in (plain, fused):
            torch.manual_seed(1)
            results.append(model.train(training)(images))
        assert relative_error(results[1], results[0]) < 1e-12
    assert runs == [2, 1] * 3
    for at in (0, 1, 2, 6):
        seen = []

        def see(_: nn.Module, args: tuple, output: Tensor, seen: list = seen) -> None:
            seen.append((args[0], output))

        handles = [model[at].register_forward_hook(see) for model in (plain.eval(), fused.eval())]
        outputs = [model(images) for model in (plain, fused)]
        assert relative_error(outputs[1], outputs[0]) < 1e-12
        for expected, found in zip(*seen, strict=True):
            part = expected[..., : found.shape[-2], : found.shape[-1]]
            assert relative_error(found, part) < 1e-12
        for handle in handles:
            handle.remove()
    with pytest.raises(RuntimeError, match="channels"):
        fused(images[:, :2])
    assert relative_error(fused(images[:1]), plain(images[:1])) < 1e-12


class Scaled(nn.Module):
    """A pattern in a part of a module, which has a setting."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(*block(3, 32, 3))
        self.scales = [1.0]
        self.negative = False

    def forward(self, x: Tensor) -> Tensor:
        """Return the features' means."""
        means = self.features(-x if self.negative else x).mean((2, 3))
        return means * self.scales[0]


def other_layer(model: Scaled) -> None:
    model.features[1] = nn.ReLU()


def hook_on_a_part(model: Scaled) -> None:
    model.features.register_forward_hook(lambda _, __, output: output + 1)


def hook_on_a_gelu(model: Scaled) -> None:
    model.features[1].register_forward_pre_hook(lambda _, args: (args[0] + 1,))


@pytest.mark.parametrize(
    "change",
    [
        lambda model: setattr(model, "negative", True),
        lambda model: model.scales.__setitem__(0, 3.0),
        other_layer,
        hook_on_a_part,
        hook_on_a_gelu,
    ],
    ids=["setting", "list", "layer", "hook on a part", "hook on a GELU"],
)
def test_what_changes_after_the_pass(change: Callable):
    """A network whose settings, layers or hooks change computes what they are now."""
    plain, fused, images = pair(Scaled, torch.float64)
    before = plain(images)
    for model in (plain, fused):
        change(model)
    expected = plain(images)
    assert relative_error(before, expected) > 1e-3
    assert relative_error(fused(images), expected) < 1e-12


def test_a_hook_on_all_modules():
    plain, fused, images = pair(Scaled, torch.float64)
    seen = []
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, *_: seen.append(type(module).__name__)
    )
    try:
        plain(images)
        expected = [*seen]
        seen.clear()
        fused(images)
    finally:
        handle.remove()
    assert seen == expected


def test_a_pattern_in_a_part_of_what_cannot_be_traced(runs: list):
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(*block(3, 32, 3))

        def forward(self, x: Tensor) -> Tensor:
            return self.features(x if x.sum() > 0 else -x).mean((2, 3))

    plain, fused, images = pair(Outer, torch.float64)
    assert relative_error(fused(-images), plain(-images)) < 1e-12
    assert runs == [1]


@pytest.mark.skipif(not are_there(torch.float32), reason="needs a C++ compiler")
def test_members_are_together_where_kernels_take_all_their_convolutions():
    cpu = torch.device("cpu")
    plain, fused, _ = pair(three, torch.float32)
    assert not PerSampleLoss(plain).computes_together(cpu)
    assert PerSampleLoss(fused).computes_together(cpu)
    with without_kernels():
        assert not PerSampleLoss(fused).computes_together(cpu)
    assert not by_kernels(pair(strided, torch.float32)[1])
    fused[3].register_forward_hook(lambda *_: None)
    assert PerSampleLoss(fused).computes_together(cpu)
