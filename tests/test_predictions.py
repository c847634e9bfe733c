"""Predictions of all seeds against plain models."""

from pathlib import Path

import pytest
import torch

from src.draws import load_seeds
from src.errors import UserError
from src.experiments import Paths, parse_experiment
from src.models import build
from src.predictions import load_predictions
from tests.conftest import DIGITS

EXPERIMENT = parse_experiment(DIGITS)


def test_predictions_are_those_of_the_last_checkpoints(digits_root: Path):
    paths, seeds = Paths(digits_root), load_seeds()[:3]
    found = load_predictions(paths, EXPERIMENT, seeds, {2, 17}, {0, 5, 299})
    assert list(found["train"]) == [2, 17]
    assert list(found["test"]) == [0, 5, 299]
    for t, seed in enumerate(seeds):
        path = paths.checkpoint(EXPERIMENT, seed, EXPERIMENT.kept_epochs[-1])
        model = build(EXPERIMENT)
        model.load_state_dict(torch.load(path, weights_only=True)["model_state_dict"])
        for split, name in (("train", "train_10pc"), ("test", "test")):
            images = torch.load(paths.tensors("digits3", name), weights_only=True)["images"]
            for position, labels in found[split].items():
                logits = model(images[position : position + 1] / 255)
                assert labels[t] == logits.argmax()


def test_predictions_need_checkpoints(digits_root: Path, tmp_path: Path):
    (tmp_path / "data").symlink_to(digits_root / "data")
    with pytest.raises(UserError, match="does not exist; make it with: python run_cnn_training"):
        load_predictions(Paths(tmp_path), EXPERIMENT, load_seeds(), {0}, {0})
