"""The networks of the study of influence functions' fragility."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from src.models.fragile import NETWORKS, LeNet, small_tanh


def test_the_small_network_has_the_published_number_of_parameters() -> None:
    model = small_tanh((1, 28, 28), 10)
    assert sum(p.numel() for p in model.parameters()) == 2_616
    strides = [layer.stride[0] for layer in model if isinstance(layer, nn.Conv2d)]
    assert strides == [1, 2, 1, 2, 1, 1]


def test_the_small_network_is_tanh_after_each_convolution_and_a_mean() -> None:
    torch.manual_seed(0)
    model, images = small_tanh((1, 28, 28), 10), torch.rand(3, 1, 28, 28)
    x = images
    for layer in model:
        if not isinstance(layer, nn.Conv2d):
            continue
        x = torch.tanh(nn.functional.conv2d(x, layer.weight, layer.bias, layer.stride))
    assert x.shape == (3, 10, 2, 2)
    expected = torch.stack(
        [model[-1](sum(one[:, i, j] for i in range(2) for j in range(2)) / 4) for one in x]
    )
    torch.testing.assert_close(model(images), expected)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_every_network_takes_images_of_both_sizes(name: str, shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    model = NETWORKS[name](shape, 7).eval()
    logits = model(torch.rand(2, *shape))
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()
    assert not any(isinstance(module, nn.Dropout) for module in model.modules())


def test_lenet_has_its_published_number_of_parameters() -> None:
    assert sum(p.numel() for p in LeNet((1, 28, 28), 10).parameters()) == 61_706


@pytest.mark.parametrize("n", [13, 14])
def test_a_vgg_has_as_many_layers_with_weights_as_its_name_says(n: int) -> None:
    layers = [*NETWORKS[f"vgg{n}"]((1, 28, 28), 10).modules()]
    assert sum(isinstance(layer, nn.Conv2d | nn.Linear) for layer in layers) == n
    assert sum(isinstance(layer, nn.Linear) for layer in layers) == 3
