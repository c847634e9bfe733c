"""Samples as a model takes them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from src.data.samples import Samples, load_samples, load_tensors, network_inputs
from src.errors import UserError
from src.experiments import TASKS, Paths, parse_experiment
from src.storage.files import save


def test_inputs_lie_between_0_and_1():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(3, 1, 1, 1)
    found = network_inputs(images, TASKS["mnist3"])
    assert found.dtype == torch.float32
    assert found.flatten().tolist() == pytest.approx([0, 0.2, 1])


def test_normalised_inputs_lie_between_minus_1_and_1():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 3, 1, 1)
    found = network_inputs(images, TASKS["cifar10"])
    assert found.flatten().tolist() == pytest.approx([-1, -0.6, 1])


def test_layout_of_the_inputs_changes_no_value():
    images = torch.randint(0, 256, (4, 3, 5, 6), dtype=torch.uint8)
    found = network_inputs(images, TASKS["cifar10"])
    assert torch.equal(found, (images.float() / 255 - 0.5) / 0.5)


def test_batches():
    samples = Samples(torch.arange(7.0), torch.arange(7), torch.arange(7))
    batches = [labels.tolist() for _, labels in samples.batches(3)]
    assert batches == [[0, 1, 2], [3, 4, 5], [6]]
    inputs, labels = samples[torch.tensor([[4, 0], [2, 2]])]
    assert inputs.tolist() == labels.tolist() == [[4, 0], [2, 2]]


def test_a_transform_makes_inputs_when_they_are_used():
    seen = []

    def double(images: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(images.shape))
        return images * 2

    samples = Samples(torch.ones(7, 3), torch.arange(7), torch.arange(7), double)
    assert not seen
    assert samples[1:3][0].tolist() == [[2, 2, 2]] * 2
    assert samples[torch.tensor([4, 0, 2, 2])][0].shape == (4, 3)
    assert seen == [(2, 3), (4, 3)]


def test_samples_of_an_experiment(digits_root: Path):
    train, test, among = load_samples(Paths(digits_root), parse_experiment("cnn2_digits3_20pc"))
    assert (len(train), len(test), among) == (60, 300, None)
    assert train.images.shape == (60, 1, 28, 28)


@pytest.mark.parametrize(
    "wrong",
    [
        {"images": torch.zeros(2, 1, 8, 8, dtype=torch.uint8)},
        {"images": torch.zeros(2, 1, 28, 28)},
        {"images": torch.zeros(3, 1, 28, 28, dtype=torch.uint8)},
        {"indices": torch.arange(3)},
        {"indices": torch.zeros(2, dtype=torch.int64)},
        {"labels": torch.full((2,), 3)},
        {"labels": torch.zeros(2)},
        {"labels": [0, 0]},
        {"labels": torch.zeros(0, dtype=torch.int64)},
    ],
)
def test_tensors_that_do_not_fit_are_refused(tmp_path: Path, wrong: dict):
    content = {
        "task": "digits3",
        "split": "test",
        "images": torch.zeros(2, 1, 28, 28, dtype=torch.uint8),
        "labels": torch.zeros(2, dtype=torch.int64),
        "indices": torch.arange(2),
    }
    path = Paths(tmp_path).tensors("digits3", "test")
    save(path, content)
    assert load_tensors(Paths(tmp_path), TASKS["digits3"], "test").keys() == content.keys()
    save(path, {**content, **wrong})
    with pytest.raises(UserError, match=r"test\.pt does not hold images.*--task digits3"):
        load_tensors(Paths(tmp_path), TASKS["digits3"], "test")
