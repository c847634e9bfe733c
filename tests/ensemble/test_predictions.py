"""Predictions of all seeds against plain models."""

from pathlib import Path

import pytest
import torch

from src.ensemble.draws import load_seeds
from src.ensemble.predictions import load_predictions
from src.errors import UserError
from src.experiments import Paths, parse_experiment
from src.models import build
from src.storage.files import digest
from tests.conftest import DIGITS

EXPERIMENT = parse_experiment(DIGITS)


def parameters(paths: Paths, seed: int) -> list[dict]:
    """Return the parameters in a seed's checkpoints."""
    files = (paths.checkpoint(EXPERIMENT, seed, epoch) for epoch in EXPERIMENT.kept_epochs)
    return [torch.load(file, weights_only=True)["model_state_dict"] for file in files]


def test_predictions_are_those_of_the_last_checkpoints(digits_root: Path):
    paths, seeds = Paths(digits_root), load_seeds()[:3]
    checkpoints = {seed: digest(parameters(paths, seed)) for seed in seeds}
    indices = {
        split: torch.load(paths.tensors("digits3", name), weights_only=True)["indices"].tolist()
        for split, name in EXPERIMENT.splits.items()
    }
    wanted = {
        "train": {indices["train"][i] for i in (2, 17)},
        "test": {indices["test"][i] for i in (0, 5, 299)},
    }
    found = load_predictions(paths, EXPERIMENT, checkpoints, **wanted)
    assert {split: found[split].keys() for split in found} == wanted
    for t, seed in enumerate(seeds):
        path = paths.checkpoint(EXPERIMENT, seed, EXPERIMENT.kept_epochs[-1])
        model = build(EXPERIMENT)
        model.load_state_dict(torch.load(path, weights_only=True)["model_state_dict"])
        for split, name in (("train", "train_10pc"), ("test", "test")):
            images = torch.load(paths.tensors("digits3", name), weights_only=True)["images"]
            for index, labels in found[split].items():
                position = indices[split].index(index)
                logits = model(images[position : position + 1] / 255)
                assert labels[t] == logits.argmax()


def test_predictions_need_checkpoints(digits_root: Path, tmp_path: Path):
    (tmp_path / "data").symlink_to(digits_root / "data")
    with pytest.raises(UserError, match="does not exist; make it with: python run_cnn_training"):
        load_predictions(Paths(tmp_path), EXPERIMENT, {446: ""}, {0}, {0})


def test_predictions_need_the_checkpoints_that_the_scores_are_of(digits_root: Path):
    checkpoints = {446: digest(parameters(Paths(digits_root), 724))}
    with pytest.raises(UserError, match="446 holds other checkpoints than the scores"):
        load_predictions(Paths(digits_root), EXPERIMENT, checkpoints, set(), set())
