"""Controls: cosines of inputs against a loop, and noise that is drawn from the seed alone."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cosine

from src.ensemble.draws import load_seeds
from src.experiments import Paths, parse_experiment
from src.tda.controls import input_cosines
from src.tda.score_files import load_scores_of
from tests.conftest import DIGITS
from tests.tools import call, call_well, samples


@pytest.mark.parametrize("chunk_size", [1, 3, 100])
def test_cosines_of_inputs(chunk_size):
    rng = torch.Generator().manual_seed(0)
    train, test = (torch.randn(n, 2, 3, generator=rng).double() for n in (7, 5))
    train[2] = 0
    splits = [samples((x, torch.zeros(len(x), dtype=torch.long))) for x in (train, test)]
    found = input_cosines(*splits, chunk_size)
    for i, a in enumerate(train):
        for j, b in enumerate(test):
            expected = 0.0 if i == 2 else 1 - cosine(a.flatten(), b.flatten())
            assert found[i, j].item() == pytest.approx(expected, abs=1e-12)


def test_controls_by_the_script(digits_root, copy_of):
    root, experiment = copy_of(digits_root), parse_experiment(DIGITS)
    arguments = ("--root", root, "--experiment", DIGITS, "--train_samples", 6)
    call_well("run_estimators", *arguments, "--method", "inputs", "noise", "--seed_id", "0-1")
    scores = {
        (m, k): load_scores_of(Paths(root), experiment, m, seed, k)["scores"]
        for m in ("inputs", "noise")
        for k, seed in enumerate(load_seeds()[:2])
    }
    assert {s.shape for s in scores.values()} == {(5, 6, 300)}
    assert scores["inputs", 0].equal(scores["inputs", 1])
    noise = torch.stack([scores["noise", k] for k in (0, 1)])
    assert noise.std().item() == pytest.approx(1, abs=0.03)
    assert abs(np.corrcoef(noise.flatten(1).numpy())[0, 1]) < 0.05
    call("run_estimators", *arguments, "--method", "guess").check_refused("invalid choice: 'guess'")
