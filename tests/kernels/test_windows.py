"""The compiled kernels against torch's operations in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad, jvp, vmap

from src.kernels.convolution import convolve_and_pool
from src.kernels.elements import elements, per_image_weight_gradients
from src.kernels.library import are_for, are_there, without_kernels
from src.kernels.pool import pool, take
from tests.tools import relative_error

pytestmark = pytest.mark.skipif(not are_there(torch.float32), reason="needs a C++ compiler")

DTYPES = {torch.float64: 1e-13, torch.float32: 2e-6}
MAPS = [(3, 4, 6, 32), (2, 2, 2, 96), (1, 2, 10, 64)]
# Images (B, H, W, C) and kernel size: windows in pairs and one left over, and a single one. From 16
# channels on they are by transformed weights, 12 windows at once and what is left over, unless the
# kernel is 4x4 or the channels are very many: there, numbers are sums of up to 1,600 products.
CONVOLUTIONS = [
    ((2, 8, 8, 1), 3),
    ((1, 8, 12, 3), 5),
    ((3, 5, 7, 4), 2),
    ((1, 4, 4, 32), 3),
    ((2, 2, 6, 2), 1),
    ((5, 10, 12, 16), 3),
    ((3, 14, 8, 32), 5),
    ((1, 6, 6, 16), 5),
    ((1, 6, 8, 128), 3),
    ((1, 6, 8, 144), 3),
    ((1, 6, 8, 64), 5),
    ((2, 7, 9, 32), 4),
]


@pytest.fixture(params=DTYPES, ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture
def one_thread() -> Iterator[None]:
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


def pooled(maps: Tensor) -> Tensor:
    """Return GELU of maps (B, H, W, C), max-pooled, as one would write it."""
    return F.max_pool2d(F.gelu(maps.permute(0, 3, 1, 2)), 2).permute(0, 2, 3, 1)


def convolved(images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return a convolution of images (B, H, W, C), channels last, as one would write it."""
    return F.conv2d(images.permute(0, 3, 1, 2), weight, bias).permute(0, 2, 3, 1)


def pooled_by_definition(images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return pooled(convolved(images, weight, bias))


def a_convolution(
    shape: tuple[int, ...], kernel: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    tensors = (
        torch.randn(shape),
        torch.randn(64, shape[3], kernel, kernel) / kernel,
        torch.randn(64),
    )
    return tuple(tensor.to(dtype) for tensor in tensors)


def check_gradients(found: Tensor, expected: Tensor, inputs: list, doubles: list, tolerance: float):
    """Compare gradients that begin with the same random ones, which are not contiguous."""
    start = torch.randn(*expected.shape[:3], 2 * expected.shape[3], dtype=torch.float64)[..., ::2]
    found = torch.autograd.grad(found, inputs, start.to(found.dtype))
    expected = torch.autograd.grad(expected, doubles, start)
    for gradient, e in zip(found, expected, strict=True):
        # As torch's, GELU is exact relative to its argument, not to itself where that is small.
        assert (gradient - e).abs().max() < tolerance * max(1, e.abs().max())


@pytest.mark.parametrize("shape", MAPS)
@pytest.mark.parametrize("mean", [-6, -0.75, 0, 2])
def test_pool(dtype: torch.dtype, shape: tuple[int, ...], mean: float):
    """Windows on either side of GELU's minimum, at -0.75, and across it; with gradients, too."""
    maps = (mean + torch.randn(shape)).to(dtype)
    doubles = maps.double().requires_grad_()
    expected, largest = pooled(doubles), doubles.abs().max()
    assert (pool(maps) - expected).abs().max() < DTYPES[dtype] * largest
    found = pool(maps.requires_grad_())
    assert (found - expected).abs().max() < DTYPES[dtype] * largest
    # Far below 0, GELU in float32 cannot tell which element of a window is its largest.
    check_gradients(found, expected, [maps], [doubles], 10 * DTYPES[dtype])


@pytest.mark.parametrize(("shape", "kernel"), CONVOLUTIONS)
def test_convolve_and_pool(dtype: torch.dtype, shape: tuple[int, ...], kernel: int):
    inputs = a_convolution(shape, kernel, dtype)
    doubles = [tensor.double().requires_grad_() for tensor in inputs]
    expected = pooled(convolved(*doubles))
    assert relative_error(convolve_and_pool(*inputs), expected) < DTYPES[dtype]
    inputs = [tensor.requires_grad_() for tensor in inputs]
    found = convolve_and_pool(*inputs)
    assert relative_error(found, expected) < DTYPES[dtype]
    check_gradients(found, expected, inputs, doubles, DTYPES[dtype])


@pytest.mark.parametrize("n_channels", [3, 16])
def test_a_part_of_larger_images(n_channels: int):
    images, weight, bias = a_convolution((2, 9, 8, n_channels), 3, torch.float64)
    for part in (images[:, :8], images[:, 1:7, 2:8], images.transpose(1, 2)[:, :, 1:]):
        expected = pooled(convolved(part, weight, bias))
        assert relative_error(convolve_and_pool(part, weight, bias), expected) < 1e-13


def test_gradients_of_the_weight_alone():
    images, weight, bias = a_convolution((2, 8, 8, 1), 3, torch.float64)
    weight.requires_grad_()
    (found,) = torch.autograd.grad(convolve_and_pool(images, weight, bias).sum(), weight)
    (expected,) = torch.autograd.grad(pooled(convolved(images, weight, bias)).sum(), weight)
    assert relative_error(found, expected) < 1e-13


def test_gradients_of_gradients():
    images, weight, bias = a_convolution((1, 4, 6, 2), 3, torch.float64)
    inputs = [tensor[:32].clone().requires_grad_() for tensor in (weight, bias)]
    assert torch.autograd.gradgradcheck(
        lambda weight, bias: convolve_and_pool(images, weight, bias), inputs
    )
    maps = torch.randn(1, 2, 2, 32, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(pool, maps)


@pytest.mark.parametrize("value", [-5.0, -0.6, 0.0, 1.5])
def test_the_first_of_equals_has_the_gradient(dtype: torch.dtype, value: float):
    maps = torch.full((1, 4, 4, 32), value, dtype=dtype).requires_grad_()
    (gradient,) = torch.autograd.grad(pool(maps).sum(), maps)
    (expected,) = torch.autograd.grad(pooled(maps).sum(), maps)
    assert ((gradient != 0) == (expected != 0)).all()


@pytest.mark.parametrize("kernel", [3, 5])
def test_as_exact_as_torch(kernel: int):
    """Also by transformed weights, of which larger tiles would lose digits."""
    inputs = a_convolution((4, 14, 14, 32), kernel, torch.float32)
    expected = pooled(convolved(*(tensor.double() for tensor in inputs)))
    error, of_torch = (
        (found - expected).square().mean()
        for found in (convolve_and_pool(*inputs), pooled(convolved(*inputs)))
    )
    assert error < 3 * of_torch  # 2.6 with AVX2, less with AVX-512


@pytest.mark.parametrize("kernel", [3, 5])
def test_not_a_number_in_an_image(kernel: int):
    """All windows over it are not numbers, and only they."""
    images, weight, bias = a_convolution((2, 14, 14, 32), kernel, torch.float32)
    images[1, 6, 7, 5] = torch.nan
    found = convolve_and_pool(images, weight, bias).isnan()
    expected = convolved(images, weight, bias).isnan().double()
    expected = F.max_pool2d(expected.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1) > 0
    assert expected.any()
    assert (found == expected).all()


@pytest.mark.parametrize("grads", [False, True])
def test_what_is_not_a_number_stays_so_in_its_window_alone(dtype: torch.dtype, grads: bool):
    maps = torch.randn(1, 4, 4, 32).to(dtype)
    for x, c in ((0, 3), (1, 7)):
        maps[0, 1, x, c] = torch.nan
    expected = torch.zeros(1, 2, 2, 32, dtype=torch.bool)
    expected[0, 0, 0, [3, 7]] = True
    assert (pool(maps.requires_grad_(grads)).isnan() == expected).all()


def test_gelu_is_as_exact_as_torch():
    """Over the range in which it is neither 0 nor its argument, and far beyond."""
    x = torch.linspace(-12, 12, 2**18)
    maps = x.view(1, 1, -1, 32).repeat_interleave(2, 1).repeat_interleave(2, 2)
    found, expected = pool(maps).flatten(), F.gelu(x.double())
    error, of_torch = ((g - expected).abs().max() for g in (found, F.gelu(x)))
    assert error < 3 * of_torch  # 2.6 with AVX2, less with AVX-512
    far = torch.tensor([-1e30, -1e4, -20.0, 20.0, 1e4, 1e30] + [0.0] * 26)
    found = pool(far.expand(1, 2, 2, 32)).flatten()
    assert (found == far.clamp(min=0)).all()


def test_derivative_of_gelu():
    x = torch.linspace(-30, 30, 2**16).requires_grad_()
    maps = x.view(1, 1, -1, 32).repeat_interleave(2, 1).repeat_interleave(2, 2)
    (found,) = torch.autograd.grad(pool(maps).sum(), x)
    doubles = x.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(F.gelu(doubles).sum(), doubles)
    assert (found - expected).abs().max() < 1e-6


def test_as_many_threads_as_there_are_or_one(request: pytest.FixtureRequest):
    images, weight, bias = a_convolution((3, 9, 11, 3), 4, torch.float32)
    results = []
    for _ in range(2):
        inputs = [tensor.clone().requires_grad_() for tensor in (images, weight, bias)]
        results.append(convolve_and_pool(*inputs))
        request.getfixturevalue("one_thread")
    assert torch.equal(*results)


@pytest.mark.parametrize(("shape", "kernel"), [((2, 8, 8, 1), 3), ((3, 6, 8, 32), 3)])
def test_transformations_of_torch_func(shape: tuple[int, ...], kernel: int):
    """A Hessian product, batched over vectors, as the influence function takes it."""
    images, weight, bias = a_convolution(shape, kernel, torch.float64)
    vectors = torch.randn(3, *weight.shape, dtype=torch.float64), torch.randn(3, 64).double()

    def loss(weight: Tensor, bias: Tensor) -> Tensor:
        pooled = convolve_and_pool(images.tanh(), weight, bias)
        return pooled.square().square().sum()

    def composed(weight: Tensor, bias: Tensor) -> Tensor:
        return pooled_by_definition(images.tanh(), weight, bias).square().square().sum()

    def products(of: Callable) -> tuple[Tensor, ...]:
        def product(*vector: Tensor) -> tuple[Tensor, ...]:
            return jvp(grad(of, argnums=(0, 1)), (weight, bias), vector)[1]

        return torch.func.vmap(product)(*vectors)

    def reversed_twice(vector: Tensor) -> Tensor:
        def directional(w: Tensor) -> Tensor:
            return (grad(loss)(w, bias) * vector).sum()

        return grad(directional)(weight)

    expected = products(composed)
    for found, e in zip(products(loss), expected, strict=True):
        assert relative_error(found, e) < 1e-11
    no_bias = jvp(grad(loss), (weight, bias), (vectors[0][0], torch.zeros_like(bias)))[1]
    assert relative_error(reversed_twice(vectors[0][0]), no_bias) < 1e-11


def test_a_batch_of_weights_and_of_images():
    """As the members of a stack have them, also within another batch."""
    images = torch.randn(2, 3, 1, 6, 6, 32, dtype=torch.float64)
    weight = torch.randn(3, 32, 32, 3, 3, dtype=torch.float64)
    bias = torch.randn(3, 32, dtype=torch.float64)
    found = vmap(vmap(convolve_and_pool), in_dims=(0, None, None))(images, weight, bias)
    with torch.no_grad():
        shared = vmap(convolve_and_pool, in_dims=(None, 0, 0))(images[0, 0], weight, bias)
    for m in range(3):
        for i in range(2):
            expected = pooled_by_definition(images[i, m], weight[m], bias[m])
            assert relative_error(found[i, m], expected) < 1e-12
        expected = pooled_by_definition(images[0, 0], weight[m], bias[m])
        assert relative_error(shared[m], expected) < 1e-12


def test_gradients_of_what_a_batch_shares():
    images = torch.randn(2, 6, 6, 32, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 32, 32, 3, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(32, dtype=torch.float64, requires_grad=True)
    inputs = (images, weight, bias)
    found = vmap(convolve_and_pool, in_dims=(None, 0, None))(*inputs)
    expected = torch.stack([pooled_by_definition(images, w, bias) for w in weight])
    gradients, of_expected = (
        torch.autograd.grad(x.square().sum(), inputs) for x in (found, expected)
    )
    for gradient, e in zip(gradients, of_expected, strict=True):
        assert relative_error(gradient, e) < 1e-12


@pytest.mark.parametrize("n_channels", [1, 32])
def test_tangents_of_each_operand(n_channels: int):
    inputs = a_convolution((2, 6, 8, n_channels), 3, torch.float64)
    for i in range(3):
        tangents = tuple(
            torch.randn_like(x) if i == j else torch.zeros_like(x) for j, x in enumerate(inputs)
        )
        _, found = jvp(convolve_and_pool, inputs, tangents)
        _, expected = jvp(pooled_by_definition, inputs, tangents)
        assert relative_error(found, expected) < 1e-12


@pytest.mark.parametrize("shape", [(3, 6, 8, 32), (1, 4, 4, 64), (2, 7, 6, 32), (2, 6, 9, 16)])
def test_weight_gradients_of_each_image(dtype: torch.dtype, shape: tuple[int, ...]):
    """Of maps whose last row or column may fill no window, too."""
    images = torch.randn(shape, dtype=dtype)
    weight = torch.randn(64, shape[3], 3, 3, dtype=dtype)
    maps = convolved(images, weight, torch.zeros(64, dtype=dtype)).requires_grad_()
    (gradient,) = torch.autograd.grad(pooled(maps).square().sum(), maps)
    found = per_image_weight_gradients(images, gradient, (3, 3))
    for i in range(len(images)):
        expected = torch.nn.grad.conv2d_weight(
            images[i : i + 1].permute(0, 3, 1, 2).double(),
            weight.shape,
            gradient[i : i + 1].permute(0, 3, 1, 2).double(),
        )
        assert relative_error(found[i], expected) < DTYPES[dtype]
    assert per_image_weight_gradients(images[..., :5], gradient, (3, 3)) is None
    # Not of max-pooling: two in a window; one where no window is.
    gradient[0, 0, 0, 5] = gradient[0, 0, 1, 5] = 1
    assert per_image_weight_gradients(images, gradient, (3, 3)) is None
    gradient = torch.zeros_like(gradient)
    gradient[-1, -1, -1, 5] = 1
    fills_windows = shape[1] % 2 == shape[2] % 2 == 0
    assert (per_image_weight_gradients(images, gradient, (3, 3)) is None) == (not fills_windows)


@pytest.mark.parametrize("n_outputs", [64, 40])
@pytest.mark.parametrize("shape", [(3, 6, 8, 32), (1, 4, 4, 1), (2, 8, 6, 3)])
def test_gradients_by_elements(dtype: torch.dtype, shape: tuple[int, ...], n_outputs: int):
    """Of the weight by each image, and of the images, of which a later layer has its own."""
    images, weight, bias = (
        x[:n_outputs] if i else x for i, x in enumerate(a_convolution(shape, 3, dtype))
    )
    images.requires_grad_()
    found = elements(images, weight.requires_grad_(), bias)
    pooled_elements = found.pooled()
    loss = pooled_elements.square().sum()
    of_images, of_elements = torch.autograd.grad(loss, (images, found.elements))
    of_weight = found.weight_gradients(of_elements)
    doubles = [x.detach().double() for x in (images, weight, bias)]
    expected = pooled_by_definition(*doubles)
    assert relative_error(pooled_elements, expected) < DTYPES[dtype]
    for i in range(len(images)):
        image, w = doubles[0][i : i + 1].requires_grad_(), doubles[1].requires_grad_()
        of_one = pooled_by_definition(image, w, doubles[2]).square().sum()
        by_image, by_weight = torch.autograd.grad(of_one, (image, w))
        assert relative_error(of_images[i : i + 1], by_image) < 2 * DTYPES[dtype]
        assert relative_error(of_weight[i], by_weight) < 2 * DTYPES[dtype]


def test_what_kernels_are_for():
    maps = torch.zeros(1, 2, 2, 32)
    assert are_for(maps)
    assert not are_for(maps, maps.double())
    assert not are_for(maps.half())
    assert not are_for(maps.to("meta"))
    assert take(64)
    assert not take(10)
    with without_kernels():
        assert not are_for(maps)
