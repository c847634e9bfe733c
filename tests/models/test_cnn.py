"""Names, shapes and maps of the convolutional networks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad, vmap

from src.experiments import parse_experiment
from src.kernels.blocks import Block, used_sizes
from src.kernels.fuse import fuse
from src.kernels.patches import convolve_patches
from src.kernels.pool import gelu_and_pool
from src.models import build
from tests.tools import relative_error

SHAPES = {
    "cnn2_mnist3_10pc": {
        "conv1.weight": (32, 1, 3, 3),
        "conv1.bias": (32,),
        "conv2.weight": (64, 32, 3, 3),
        "conv2.bias": (64,),
        "fc1.weight": (128, 1600),
        "fc1.bias": (128,),
        "fc2.weight": (10, 128),
        "fc2.bias": (10,),
    },
    "cnn2_cifar10_10pc": {
        "conv1.weight": (32, 3, 5, 5),
        "conv1.bias": (32,),
        "conv2.weight": (64, 32, 5, 5),
        "conv2.bias": (64,),
        "fc1.weight": (128, 1600),
        "fc1.bias": (128,),
        "fc2.weight": (10, 128),
        "fc2.bias": (10,),
    },
    "cnn3_mnist3_10pc": {
        "conv1.weight": (32, 1, 3, 3),
        "conv1.bias": (32,),
        "conv2.weight": (64, 32, 3, 3),
        "conv2.bias": (64,),
        "conv3.weight": (128, 64, 3, 3),
        "conv3.bias": (128,),
        "fc1.weight": (256, 2048),
        "fc1.bias": (256,),
        "fc2.weight": (10, 256),
        "fc2.bias": (10,),
    },
}
SHAPES["cnn3_cifar10_10pc"] = {**SHAPES["cnn3_mnist3_10pc"], "conv1.weight": (32, 3, 3, 3)}


@pytest.mark.parametrize("name", SHAPES)
def test_parameters(name: str):
    """Names, order and shapes: state dicts of the published code load."""
    model = build(parse_experiment(name))
    assert [(n, tuple(p.shape)) for n, p in model.named_parameters()] == list(SHAPES[name].items())
    assert all(p.requires_grad for p in model.parameters())
    model.load_state_dict({n: torch.zeros(shape) for n, shape in SHAPES[name].items()})


@pytest.mark.parametrize("name", SHAPES)
def test_forward(name: str):
    experiment = parse_experiment(name)
    images = torch.rand(2, *experiment.task.input_shape)
    assert build(experiment)(images).shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("cnn2_mnist3_10pc", (64, 5, 5)),
        ("cnn2_cifar10_10pc", (64, 5, 5)),
        ("cnn3_mnist3_10pc", (128, 4, 4)),
        ("cnn3_cifar10_10pc", (128, 4, 4)),
    ],
)
def test_last_map(name: str, shape: tuple[int, ...]):
    experiment = parse_experiment(name)
    model = build(experiment)
    seen = []
    model.fc1.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
    last = model.conv3 if hasattr(model, "conv3") else model.conv2
    last.register_forward_hook(lambda *call: seen.append(call[-1].shape))
    model(torch.rand(1, *experiment.task.input_shape))
    convolved, flat = seen
    assert flat == (1, shape[0] * shape[1] * shape[2])
    assert (convolved[1], convolved[2] // 2, convolved[3] // 2) == shape


@pytest.mark.parametrize("name", SHAPES)
def test_by_hand(name: str):
    """The order convolution, GELU, pooling, by torch's own layers with the model's weights."""
    experiment = parse_experiment(name)
    model = fuse(build(experiment).double())
    paddings = {"cnn3_mnist3_10pc": (0, 2, 2), "cnn3_cifar10_10pc": (0, 0, 2)}.get(name, (0, 0))
    images = torch.rand(2, *experiment.task.input_shape, dtype=torch.float64)

    def by_hand(images: Tensor, params: dict[str, Tensor]) -> Tensor:
        for i, padding in enumerate(paddings, start=1):
            weight, bias = params[f"conv{i}.weight"], params[f"conv{i}.bias"]
            images = F.max_pool2d(F.gelu(F.conv2d(images, weight, bias, padding=padding)), 2)
        images = F.gelu(F.linear(images.flatten(1), params["fc1.weight"], params["fc1.bias"]))
        return F.linear(images, params["fc2.weight"], params["fc2.bias"])

    params = dict(model.named_parameters())
    expected = by_hand(images, params)
    with torch.no_grad():
        torch.testing.assert_close(model(images), expected, rtol=1e-12, atol=1e-14)
    found, expected = (
        torch.autograd.grad(logits.square().sum(), list(params.values()))
        for logits in (model(images), expected)
    )
    for gradient, e in zip(found, expected, strict=True):
        assert relative_error(gradient, e) < 1e-12


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("cnn2_mnist3_10pc", [26, 12, 5]),
        ("cnn2_cifar10_10pc", [32, 14, 5]),
        ("cnn3_mnist3_10pc", [28, 13, 7, 4]),
        ("cnn3_cifar10_10pc", [30, 14, 6, 4]),
    ],
)
def test_used_sizes(name: str, sizes: list[int]):
    """The last used row reaches the logits, those below do not, and no more is computed."""
    experiment = parse_experiment(name)
    model = build(experiment)
    images = torch.rand(1, *experiment.task.input_shape)
    fuse(model)
    images.requires_grad_()
    (gradient,) = torch.autograd.grad(model(images).square().sum(), images)
    rows = gradient.abs().amax((0, 1, 3))
    assert (rows[: sizes[0]] > 0).all()
    assert (rows[sizes[0] :] == 0).all()
    n = len(sizes) - 1
    blocks = [Block(model.get_submodule(f"conv{i}"), None, None) for i in range(1, n + 1)]
    assert used_sizes(images.shape[2], blocks, 0) == sizes


@pytest.mark.parametrize(("channels", "kernel_size"), [(1, 3), (3, 5)])
def test_convolution_by_patches(channels: int, kernel_size: int):
    """What a GPU computes equals conv2d: values, gradients, and batched over weights."""
    x = torch.randn(2, channels, 9, 8, dtype=torch.float64)
    weight = torch.randn(3, 4, channels, kernel_size, kernel_size, dtype=torch.float64)
    bias = torch.randn(3, 4, dtype=torch.float64)

    def squares(convolve: Callable) -> Callable:
        return lambda w, b: convolve(w, b).square().sum()

    def by_patches(w: Tensor, b: Tensor) -> Tensor:
        return convolve_patches(x, w, b)

    def by_conv2d(w: Tensor, b: Tensor) -> Tensor:
        return F.conv2d(x, w, b)

    found = vmap(by_patches)(weight, bias)
    expected = torch.stack([by_conv2d(w, b) for w, b in zip(weight, bias, strict=True)])
    assert relative_error(found, expected) < 1e-12
    found = vmap(grad(squares(by_patches), argnums=(0, 1)))(weight, bias)
    for m in range(3):
        of_member = grad(squares(by_conv2d), argnums=(0, 1))(weight[m], bias[m])
        for g, e in zip(found, of_member, strict=True):
            assert relative_error(g[m], e) < 1e-12


@pytest.mark.parametrize("shape", [(3, 4, 6, 8), (2, 3, 6, 10), (1, 1, 2, 2)])
@pytest.mark.parametrize("mean", [-6, -0.75, 0, 2])
def test_gelu_and_pool(shape: tuple[int, ...], mean: float):
    """Windows on either side of GELU's minimum, at -0.75, and across it; without gradients, too."""
    maps = mean + torch.randn(shape, dtype=torch.float64, generator=torch.manual_seed(0))
    expected = F.max_pool2d(F.gelu(maps), 2)
    maps = maps.contiguous(memory_format=torch.channels_last)
    with_gradients = gelu_and_pool(maps)
    with torch.no_grad():
        without = gelu_and_pool(maps)
        of_members = vmap(gelu_and_pool)(torch.stack([maps, -maps]))
    for found in (with_gradients, without, of_members[0]):
        assert relative_error(found, expected) < 1e-12
    assert without.stride() == with_gradients.stride()


def test_what_is_not_a_number_stays_so_when_pooled():
    maps = torch.tensor([[[[1.0, torch.nan], [-2.0, 0.5]]]])
    with torch.no_grad():
        assert gelu_and_pool(maps).isnan().all()
