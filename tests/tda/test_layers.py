"""Every kind of layer and its options: the rule is used, and agrees with a loop over samples."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn

from src.ensemble.members import PerSampleLoss, trainable
from src.kernels.library import are_there, without_kernels
from src.tda.gradients import per_sample_gradients
from src.tda.hessian import flatten, unflatten
from src.tda.layers import convolution
from src.tda.layers.parts import OuterProducts
from src.tda.layers.rules import rule_of
from src.tda.ways import way_for
from tests import reference
from tests.tools import TOLERANCE, relative_error

N_CLASSES = 3
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)


class Reduce(nn.Module):
    """A layer, and a frozen head on its output: logits (N, 3) of inputs (N, ...)."""

    def __init__(self, layer: nn.Module, example: Tensor) -> None:
        super().__init__()
        self.layer = layer
        features = layer(example).detach().flatten(1).shape[1]
        self.head = nn.Linear(features, N_CLASSES).requires_grad_(False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits."""
        return self.head(torch.tanh(self.layer(inputs)).flatten(1))


def filled(layer: nn.Module) -> nn.Module:
    """Return a layer in eval mode whose parameters and statistics are none of their defaults."""
    with torch.no_grad():
        for name, tensor in itertools.chain(layer.named_parameters(), layer.named_buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) + 0.5 if "var" in name else 0.5 - tensor)
                tensor.add_(torch.rand_like(tensor), alpha=0.3)
    return layer.eval()


IMAGES = (4, 7, 6)
LAYERS = {
    "linear": (lambda: nn.Linear(5, 4), (5,)),
    "linear without bias": (lambda: nn.Linear(5, 4, bias=False), (5,)),
    "linear over positions": (lambda: nn.Linear(5, 4), (3, 5)),
    "linear over two dimensions of positions": (lambda: nn.Linear(5, 4), (3, 2, 5)),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2), (4, 11)),
    "conv1d groups": (lambda: nn.Conv1d(4, 6, 3, groups=2, bias=False), (4, 9)),
    "conv1d same": (lambda: nn.Conv1d(4, 6, 4, padding="same", dilation=3), (4, 9)),
    "conv2d": (lambda: nn.Conv2d(4, 6, 3), IMAGES),
    "conv2d stride": (lambda: nn.Conv2d(4, 6, (2, 3), stride=(3, 2), padding=(1, 0)), IMAGES),
    "conv2d dilation": (lambda: nn.Conv2d(4, 6, 2, dilation=(2, 3), bias=False), IMAGES),
    "conv2d same": (lambda: nn.Conv2d(4, 6, (2, 4), padding="same", dilation=(1, 2)), IMAGES),
    "conv2d valid": (lambda: nn.Conv2d(4, 6, 3, padding="valid"), IMAGES),
    "conv2d reflect": (lambda: nn.Conv2d(4, 6, 3, padding=(2, 1), padding_mode="reflect"), IMAGES),
    "conv2d circular same": (
        lambda: nn.Conv2d(4, 6, (2, 3), padding="same", padding_mode="circular"),
        IMAGES,
    ),
    "conv2d depthwise": (lambda: nn.Conv2d(4, 8, 3, groups=4, padding=1, stride=2), IMAGES),
    "conv2d two groups": (lambda: nn.Conv2d(4, 6, 3, groups=2), IMAGES),
    "conv3d": (lambda: nn.Conv3d(2, 4, (1, 2, 3), stride=(1, 2, 1), padding=1), (2, 3, 4, 5)),
    "conv3d replicate": (
        lambda: nn.Conv3d(2, 4, 2, padding=1, padding_mode="replicate", groups=2),
        (2, 3, 4, 3),
    ),
    "embedding": (lambda: nn.Embedding(7, 3), 7),
    "embedding with padding": (lambda: nn.Embedding(7, 3, padding_idx=2), 7),
    "embedding, sparse": (lambda: nn.Embedding(7, 3, sparse=True), 7),
    "layer norm": (lambda: nn.LayerNorm(6), (6,)),
    "layer norm over positions": (lambda: nn.LayerNorm(6, bias=False, eps=1e-2), (3, 6)),
    "layer norm of two dimensions": (lambda: nn.LayerNorm((3, 6)), (2, 3, 6)),
    "group norm": (lambda: nn.GroupNorm(2, 4, eps=1e-2), IMAGES),
    "group norm without positions": (lambda: nn.GroupNorm(2, 4), (4,)),
    "rms norm": (lambda: nn.RMSNorm((3, 6)), (2, 3, 6)),
    "rms norm over positions": (lambda: nn.RMSNorm(6, eps=1e-2), (3, 6)),
    "batch norm 1d": (lambda: nn.BatchNorm1d(4), (4,)),
    "batch norm 1d over positions": (lambda: nn.BatchNorm1d(4, eps=1e-2), (4, 5)),
    "batch norm 2d": (lambda: nn.BatchNorm2d(4), IMAGES),
    "batch norm 3d": (lambda: nn.BatchNorm3d(2), (2, 3, 4, 5)),
}
WITHOUT_PARAMETERS = [
    nn.LayerNorm(6, elementwise_affine=False),
    nn.GroupNorm(2, 4, affine=False),
    nn.RMSNorm(6, elementwise_affine=False),
    nn.BatchNorm2d(4, affine=False),
]


def data_of(shape: tuple[int, ...] | int, n: int, dtype: torch.dtype) -> reference.Data:
    """Return inputs of a shape, or sequences of so many ids, and labels."""
    if isinstance(shape, int):
        inputs = torch.randint(shape, (n, 5))
    else:
        inputs = torch.randn(n, *shape, dtype=dtype)
    return inputs, torch.arange(n) % N_CLASSES


def check(model: nn.Module, data: reference.Data, dtype: torch.dtype, at_once: int = 100) -> None:
    """Hold everything that gradients are asked for against a loop over single samples."""
    loss, params = PerSampleLoss(copy.deepcopy(model)), trainable(model)
    inputs, labels = data
    chunks = [
        per_sample_gradients(loss, params, *batch)
        for batch in zip(inputs.split(at_once), labels.split(at_once), strict=True)
    ]
    expected = reference.gradients(model, data)
    tolerance = TOLERANCE[dtype]

    def joined(results: list[Tensor], dim: int = 0) -> Tensor:
        return torch.cat(results, dim)

    assert relative_error(joined([flatten(g.stack()) for g in chunks]), expected) < tolerance
    assert relative_error(joined([g.norms() for g in chunks]), expected.norm(dim=1)) < tolerance
    products = joined([joined([g.inner(h) for h in chunks], 1) for g in chunks])
    assert relative_error(products, expected @ expected.T) < tolerance
    vectors = torch.randn(3, expected.shape[1], dtype=dtype)
    products = joined([g.contract(unflatten(vectors, params)) for g in chunks], 1)
    assert relative_error(products, vectors @ expected.T) < tolerance


@DTYPES
@pytest.mark.parametrize("kind", LAYERS)
def test_gradients_by_rule(kind: str, dtype: torch.dtype):
    build, shape = LAYERS[kind]
    data = data_of(shape, 5, dtype)
    model = Reduce(filled(build()).to(dtype), data[0]).to(dtype)
    check(model, data, dtype)
    way = way_for(PerSampleLoss(model.eval()), trainable(model), *data)
    assert set(way.layers) == {"layer"}


@pytest.mark.parametrize("at_once", [1, 2])
@pytest.mark.parametrize("kind", ["conv2d depthwise", "embedding", "linear over positions"])
def test_chunks_that_do_not_divide(kind: str, at_once: int):
    build, shape = LAYERS[kind]
    data = data_of(shape, 5, torch.float64)
    model = Reduce(filled(build()).double(), data[0]).double()
    check(model, data, torch.float64, at_once)


@pytest.mark.parametrize("kind", LAYERS)
def test_only_the_weight_or_only_the_bias_is_trainable(kind: str):
    build, shape = LAYERS[kind]
    data = data_of(shape, 4, torch.float64)
    for frozen in ("bias", "weight"):
        model = Reduce(filled(build()).double(), data[0]).double()
        if getattr(model.layer, "bias", None) is None:
            continue
        getattr(model.layer, frozen).requires_grad_(False)
        check(model, data, torch.float64)


@pytest.mark.skipif(not are_there(torch.float32), reason="needs a C++ compiler")
@DTYPES
@pytest.mark.parametrize("padding_mode", ["zeros", "reflect"])
@pytest.mark.parametrize("padding", [0, 2, (1, 2), "same"])
def test_convolutions_that_are_pooled(
    monkeypatch: pytest.MonkeyPatch, padding: object, padding_mode: str, dtype: torch.dtype
):
    """Padded ones, too, by the kernel of max-pooled maps: as by patches, and as by a loop."""
    layer = nn.Conv2d(16, 32, 3, padding=padding, padding_mode=padding_mode)
    pooled = nn.Sequential(layer, nn.GELU(), nn.MaxPool2d(2))
    data = data_of((16, 9, 8), 5, dtype)
    model = Reduce(pooled.to(dtype), data[0].to(dtype)).to(dtype)
    by_kernel = per_sample_gradients(PerSampleLoss(model), trainable(model), *data).stack()
    with without_kernels():
        by_patches = per_sample_gradients(PerSampleLoss(model), trainable(model), *data).stack()
    for name, expected in by_patches.items():
        assert relative_error(by_kernel[name], expected) < TOLERANCE[dtype]
    patches: list[None] = []
    monkeypatch.setattr(convolution, "_by_patches", lambda *_: patches.append(None))
    check(model, data, dtype)
    assert not patches


@pytest.mark.parametrize("layer", WITHOUT_PARAMETERS, ids=lambda layer: type(layer).__name__)
def test_layers_without_parameters_are_in_nobodys_way(layer: nn.Module):
    first = nn.Conv2d(4, 4, (2, 1)) if not isinstance(layer, nn.LayerNorm | nn.RMSNorm) else None
    first = first or nn.Conv2d(4, 3, 1)
    model = Reduce(nn.Sequential(first, layer).eval(), torch.ones(1, *IMAGES)).double()
    check(model, data_of(IMAGES, 4, torch.float64), torch.float64)


def test_products_of_a_layer_with_one_position_are_not_formed():
    model = nn.Linear(5, N_CLASSES).double()
    data = data_of((5,), 4, torch.float64)
    found = per_sample_gradients(PerSampleLoss(model), trainable(model), *data)
    assert isinstance(found.parts[""], OuterProducts)


class Doubled(nn.Linear):
    """A linear layer that computes something else."""

    def forward(self, x: Tensor) -> Tensor:
        """Return twice the outputs."""
        return 2 * super().forward(x)


class Named(nn.Linear):
    """A linear layer by another name."""


@pytest.mark.parametrize(
    ("layer", "has_rule"),
    [
        (Named(2, 2), True),
        (Doubled(2, 2), False),
        (nn.Bilinear(2, 2, 2), False),
        (nn.ConvTranspose2d(2, 2, 2), False),
        (nn.Embedding(3, 2, scale_grad_by_freq=True), False),
        (nn.Embedding(3, 2, max_norm=1.0), False),
        (nn.BatchNorm1d(2).train(), False),
        (nn.BatchNorm1d(2, track_running_stats=False).eval(), False),
        (nn.modules.linear.NonDynamicallyQuantizableLinear(2, 2), True),
    ],
    ids=str,
)
def test_which_layers_have_a_rule(layer: nn.Module, has_rule: bool):
    assert (rule_of(layer) is not None) == has_rule


def test_a_subclass_with_a_forward_of_its_own_goes_the_general_way():
    model = nn.Sequential(Doubled(5, 4), nn.Tanh(), Named(4, N_CLASSES)).double()
    data = data_of((5,), 4, torch.float64)
    check(model, data, torch.float64)
    assert set(way_for(PerSampleLoss(model), trainable(model), *data).layers) == {"2"}
