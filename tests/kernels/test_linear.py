"""Linear layers of frozen networks against torch's own."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call, jvp, vjp, vmap

from src.kernels.fuse import fuse
from src.kernels.linear import FrozenLinear, Linear
from tests.tools import relative_error

TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5}


def pair(dtype: torch.dtype, *, bias: bool) -> tuple[nn.Linear, nn.Module]:
    """Return torch's layer and the one under test, of the same parameters."""
    torch.manual_seed(0)
    plain = nn.Linear(7, 5, bias=bias, dtype=dtype).requires_grad_(False)
    return plain, fuse(copy.deepcopy(plain))


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(6, 11, 7), (1, 11, 7), (6, 1, 7), (1, 1, 7), (4, 7)], ids=str)
def test_outputs_and_derivatives(dtype: torch.dtype, bias: bool, shape: tuple[int, ...]):
    """Values, the derivatives of both modes, and the forward-mode one of the other."""
    plain, layer = pair(dtype, bias=bias)
    x, tangent = torch.randn(2, *shape, dtype=dtype)
    cotangent = torch.randn(*shape[:-1], 5, dtype=dtype)

    def derivatives(module: nn.Module) -> tuple[torch.Tensor, ...]:
        def cubed(x: torch.Tensor) -> torch.Tensor:
            return module(x) ** 3

        outputs, pull = vjp(cubed, x)
        _, pushed = jvp(cubed, (x,), (tangent,))
        _, of_pull = jvp(lambda x: vjp(cubed, x)[1](cotangent)[0], (x,), (tangent,))
        return outputs, pull(cotangent)[0], pushed, of_pull

    for found, expected in zip(derivatives(layer), derivatives(plain), strict=True):
        assert found.shape == expected.shape
        assert relative_error(found, expected) < TOLERANCES[dtype]


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_one_batch_of_several_members(dtype: torch.dtype):
    plain, layer = pair(dtype, bias=True)
    x = torch.randn(3, 4, 11, 7, dtype=dtype)
    assert relative_error(vmap(layer)(x), plain(x)) < TOLERANCES[dtype]


def test_layers_of_a_model_are_replaced_and_keep_their_parameters():
    class Odd(nn.Linear):
        pass

    model = nn.ModuleDict(
        {"a": nn.Sequential(nn.Linear(7, 7)), "b": nn.Linear(7, 2), "c": Odd(2, 2)}
    )
    before = copy.deepcopy(model.state_dict())
    parameters = list(model.parameters())
    model["a"].requires_grad_(False)
    fuse(model)
    assert [type(layer) for layer in (model["a"][0], model["b"], model["c"])] == [
        FrozenLinear,
        Linear,
        Odd,
    ]
    assert all(p is q for p, q in zip(model.parameters(), parameters, strict=True))
    assert all(torch.equal(model.state_dict()[name], p) for name, p in before.items())


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_a_weight_of_each_member(dtype: torch.dtype):
    """Outputs and gradients, also of an input that members share, and within another transform."""
    layer = fuse(nn.Linear(7, 5, dtype=dtype))
    weight = torch.randn(3, 5, 7, dtype=dtype, requires_grad=True)
    bias = torch.randn(3, 5, dtype=dtype, requires_grad=True)

    def outputs(weight: torch.Tensor, bias: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    for shape, dim in (((3, 4, 7), 0), ((4, 7), None)):
        x = torch.randn(shape, dtype=dtype, requires_grad=True)
        found = vmap(outputs, (0, 0, dim))(weight, bias, x)
        expected = x @ weight.mT + bias[:, None]
        assert relative_error(found, expected) < TOLERANCES[dtype]
        with torch.no_grad():
            without = vmap(outputs, (0, 0, dim))(weight, bias, x)
        assert relative_error(without, expected) < TOLERANCES[dtype]
        for gradients in zip(
            torch.autograd.grad(found.square().sum(), (weight, bias, x)),
            torch.autograd.grad(expected.square().sum(), (weight, bias, x)),
            strict=True,
        ):
            assert relative_error(*gradients) < TOLERANCES[dtype]
    x, tangent = torch.randn(2, 4, 7, dtype=dtype)
    _, found = vmap(lambda w, b: jvp(lambda x: outputs(w, b, x), (x,), (tangent,)))(weight, bias)
    assert relative_error(found, tangent @ weight.mT) < TOLERANCES[dtype]
