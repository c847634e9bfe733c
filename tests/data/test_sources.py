"""Where images come from: scikit-learn, and folders in the hub's layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from src.data.sources import load_splits
from src.errors import UserError
from src.experiments import TASKS
from tests.tools import run_script


def write_clone(folder: Path, n: int, mode: str = "L") -> np.ndarray:
    """Write a small data set in the hub's layout: parquet files with encoded images.

    Returns:
        The pixels of both splits, uint8 (n, 28, 28) or (n, 32, 32, 3).
    """
    import datasets

    shape = {"L": (28, 28), "RGB": (32, 32, 3)}[mode]
    pixels = np.random.default_rng(0).integers(0, 256, (n, *shape), dtype=np.uint8)
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list("0123456789"))}
    )
    for split in ("train", "test"):
        data = datasets.Dataset.from_dict(
            {
                "image": [Image.fromarray(p) for p in pixels],
                "label": [(i + (split == "test")) % 10 for i in range(n)],
            },
            features=features,
        )
        folder.mkdir(parents=True, exist_ok=True)
        data.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return pixels


def test_digits():
    task, digits = TASKS["digits3"], load_digits()
    split = load_splits(task, None)[1]["train"]
    assert split.labels.tolist() == digits.target.tolist()
    images = split.inputs([0, 700, 3])
    assert (images.shape, images.dtype) == ((3, 1, 28, 28), torch.uint8)
    # Made small again, an image is the original.
    for image, i in zip(images, (0, 700, 3), strict=True):
        assert image.float().mean().item() == pytest.approx(
            digits.images[i].mean() * 255 / 16, abs=3
        )
        coarse = torch.nn.functional.adaptive_avg_pool2d(image.float(), 8)[0].flatten()
        original = torch.from_numpy(digits.images[i]).float().flatten()
        assert torch.corrcoef(torch.stack([coarse, original]))[0, 1] > 0.95


@pytest.mark.parametrize(
    ("name", "mode", "layout"),
    [("mnist3", "L", "mnist"), ("cifar10", "RGB", "plain_text"), ("mnist3", "L", ".")],
)
def test_a_folder_in_the_layout_of_the_hub(tmp_path: Path, name: str, mode: str, layout: str):
    task = TASKS[name]
    pixels = write_clone(tmp_path / task.repository / layout, 23, mode)
    train, test = load_splits(task, tmp_path)[1].values()
    assert train.labels.tolist() == [i % 10 for i in range(23)]
    assert test.labels.tolist() == [(i + 1) % 10 for i in range(23)]
    assert train.origin == str(tmp_path / task.repository)
    chosen = [20, 3, 7]
    images = train.inputs(chosen)
    assert (images.shape, images.dtype) == ((3, *task.input_shape), torch.uint8)
    expected = torch.from_numpy(pixels[chosen]).reshape(3, *task.input_shape[1:], -1)
    assert torch.equal(images, expected.permute(0, 3, 1, 2))


def test_the_environment_variable_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    task = TASKS["mnist3"]
    write_clone(tmp_path / "a" / task.repository, 12)
    monkeypatch.setenv("TDA_DATASETS", str(tmp_path / "a"))
    assert load_splits(task, None)[1]["test"].origin == str(tmp_path / "a" / task.repository)
    with pytest.raises(UserError, match="does not exist: --source"):  # an option goes first
        load_splits(task, tmp_path / "b")


def test_a_folder_that_cannot_be_read(tmp_path: Path):
    folder = tmp_path / "ylecun" / "mnist"
    folder.mkdir(parents=True)
    (folder / "train-00000-of-00001.parquet").write_bytes(b"no parquet")
    with pytest.raises(UserError, match="cannot read"):
        load_splits(TASKS["mnist3"], tmp_path)


def test_a_hub_that_is_not_reached_names_both_ways_out(tmp_path: Path):
    result = run_script(
        "run_subset_generation.py", "--root", tmp_path, "--task", "mnist3", HF_HUB_OFFLINE="1"
    )
    result.check_refused("ylecun/mnist", "--source DIR", "TDA_DATASETS", "digits3")
    assert not list(tmp_path.iterdir())
