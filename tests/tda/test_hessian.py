"""Hessian products and the dense Hessian against two backward passes."""

from __future__ import annotations

import copy
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import src.tda.hessian
from src.ensemble import memory
from src.ensemble.members import PerSampleLoss, trainable
from src.errors import UserError
from src.experiments import REPOSITORY, parse_experiment
from src.models import build
from src.tda.hessian import Hessian
from tests import reference
from tests.conftest import Case
from tests.tda.test_layers import DTYPES
from tests.tda.test_ways import NETS, data_of
from tests.tools import TOLERANCE, relative_error, samples


def test_forward_mode_rules_are_loaded_without_a_warning():
    """In a process of its own, since torch loads them once."""
    code = """
import warnings
from src.tda.hessian import load_forward_mode_rules
warnings.simplefilter("error")
load_forward_mode_rules()
"""
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_products_and_matrix(case: Case):
    model, params = case.models[-1], case.checkpoints[-1]
    loss = case.loss()
    loss.model.train()  # the Hessian is that of eval mode all the same
    hessian = Hessian(loss, params, case.train, batch_size=4)
    expected = reference.hessian(model, case.data[0])
    vectors = torch.randn(3, len(expected), dtype=case.dtype)
    tolerance = TOLERANCE[case.dtype]
    assert relative_error(hessian.dense(), expected) < tolerance
    assert relative_error(hessian.product(vectors), vectors @ expected) < tolerance


@pytest.mark.parametrize("batch", [0, 1, 2])
def test_batches_follow_the_stored_order(batch: int):
    case = Case(11, 2)
    hessian = Hessian(case.loss(), case.checkpoints[0], case.train, batch_size=5)
    assert len(hessian.batches) == 3
    inputs, labels = case.data[0]
    part = slice(5 * batch, 5 * batch + 5)
    vector = torch.randn(sum(p.numel() for p in case.checkpoints[0].values()), dtype=torch.float64)
    expected = reference.hessian_vector_product(
        case.models[0], (inputs[part], labels[part]), vector
    )
    assert relative_error(hessian.batch_product(batch, vector[None])[0], expected) < 1e-9


@pytest.mark.parametrize("at_once", [1, 2, 100])
def test_vectors_in_chunks(monkeypatch: pytest.MonkeyPatch, at_once: int):
    case = Case(5, 2)
    n = sum(p.numel() for p in case.checkpoints[0].values())
    vectors = torch.randn(5, n, dtype=torch.float64)
    whole = Hessian(case.loss(), case.checkpoints[0], case.train, 3).product(vectors)
    monkeypatch.setattr(src.tda.hessian, "hessian_vectors", lambda *_: at_once)
    hessian = Hessian(case.loss(), case.checkpoints[0], case.train, 3)
    assert relative_error(hessian.product(vectors), whole) < 1e-9


def test_small_networks_take_more_vectors_at_once_on_a_cpu():
    small = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    train = samples((torch.zeros(150, 4), torch.arange(150) % 3))
    at_once = Hessian(PerSampleLoss(small), trainable(small), train, 150).vectors_at_once
    assert at_once > 100 * memory.CPU_HESSIAN_BATCH // 150
    loss = PerSampleLoss(build(parse_experiment("cnn2_mnist3_10pc")))
    train = samples((torch.zeros(30, 1, 28, 28), torch.arange(30) % 3))
    hessian = Hessian(loss, trainable(loss.model), train, 30)
    assert hessian.vectors_at_once == memory.CPU_HESSIAN_BATCH // 30


def test_a_matrix_that_does_not_fit_is_refused_with_its_size():
    experiment = parse_experiment("cnn2_mnist3_10pc")
    loss = PerSampleLoss(build(experiment))
    train = samples((torch.zeros(2, 1, 28, 28), torch.tensor([0, 1])))
    says = r"225,034 parameters needs 754\.6 GiB.*are free: use --solver cg or lissa"
    with pytest.raises(UserError, match=says):
        Hessian(loss, trainable(loss.model), train, 2).dense()


@DTYPES
@pytest.mark.parametrize("name", [name for name in NETS if name != "reentrant checkpoint"])
def test_products_of_any_network(name: str, dtype: torch.dtype):
    build, shape, _ = NETS[name]
    model, data = build().to(dtype), data_of(shape, 5, dtype)
    loss, params = PerSampleLoss(copy.deepcopy(model)), trainable(model)
    hessian = Hessian(loss, params, samples(data), batch_size=3)
    vectors = torch.randn(2, sum(p.numel() for p in params.values()), dtype=dtype)
    with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
        expected = torch.stack(
            [reference.hessian_vector_product(model, data, vector) for vector in vectors]
        )
    assert relative_error(hessian.product(vectors), expected) < TOLERANCE[dtype]


class SlowSine(torch.autograd.Function):
    """A sine by numpy, which neither forward mode nor vmap has a rule for."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # noqa: ANN001
        """Return the sine."""
        ctx.save_for_backward(x)
        return torch.from_numpy(np.sin(x.detach().numpy()))

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:  # noqa: ANN001
        """Return the derivative, by this function again."""
        (x,) = ctx.saved_tensors
        return gradient * SlowSine.apply(x + math.pi / 2)


class Sine(nn.Module):
    """That function as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the sine."""
        return SlowSine.apply(x)


class Opaque(torch.autograd.Function):
    """The identity, with a derivative by numpy that is not differentiable itself."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # noqa: ANN001
        """Return x."""
        return x.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> Tensor:  # noqa: ANN001
        """Return the gradient."""
        return gradient


@pytest.mark.parametrize(
    ("middle", "said"), [(nn.Tanh(), []), (Sine(), ["by a second backward pass"])]
)
def test_the_way_is_said_once(middle: nn.Module, said: list[str], capsys: pytest.CaptureFixture):
    model = nn.Sequential(nn.Linear(6, 4), middle, nn.Linear(4, 3)).double()
    data = data_of((6,), 5, torch.float64)
    loss, params = PerSampleLoss(model), trainable(model)
    vectors = torch.randn(2, sum(p.numel() for p in params.values()), dtype=torch.float64)
    expected = torch.stack([reference.hessian_vector_product(model, data, v) for v in vectors])
    for _ in range(2):  # of two checkpoints
        hessian = Hessian(loss, params, samples(data), batch_size=3)
        assert relative_error(hessian.product(vectors), expected) < 1e-9
    lines = capsys.readouterr().err.splitlines()
    assert [text in line for text, line in zip(said, lines, strict=True)] == [True] * len(said)


def test_a_network_without_second_derivatives_is_refused():
    class Net(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return Opaque.apply(super().forward(x))

    model = Net(6, 3)
    hessian = Hessian(
        PerSampleLoss(model), trainable(model), samples(data_of((6,), 5, torch.float32)), 5
    )
    with pytest.raises(UserError, match="no second derivatives"):
        hessian.product(torch.ones(2, 21))
