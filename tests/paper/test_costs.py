"""What missing files would cost: how short measurements are multiplied up, and what they leave."""

import math

import pytest
import torch

from src.ensemble.setup import Setup
from src.experiments import PAPER_STEPS, Paths, parse_experiment
from src.paper import costs
from src.paper.exhibits import EXHIBITS
from src.paper.listing import Costs, duration, listing
from src.paper.needed import Asked
from tests.tools import call_well, save_images


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("costs")
    for split, n in (("train_10pc", 12), ("test", 20)):
        save_images(Paths(root), split, n)
    return root


@pytest.fixture
def setup(root):
    experiment = parse_experiment("cnn2_digits3_10pc")
    return Setup.load(experiment, Paths(root), torch.device("cpu"), 10)


def test_stages_are_multiplied_up(setup, monkeypatch):
    """With every measurement one second, and eight rows timed of ten that are scored."""

    def one_second(self, run):
        run()
        return 1.0

    monkeypatch.setattr(costs._Timed, "_time", one_second)
    found = costs.seconds_of_steps(setup)
    n_epochs, n_checkpoints = 15, 5
    training = n_epochs * 1 / costs._STEPS  # one batch an epoch
    assert found["training"] == pytest.approx(training)
    assert found["loo"] == pytest.approx(11 / 8 * (training + n_checkpoints))
    assert found["ats"] == pytest.approx(10 / 8 * n_checkpoints)
    assert found["gd_and_gc"] == n_checkpoints
    assert found["if"] == n_checkpoints  # half as many take as long, so a vector more takes nothing
    assert found.keys() == {"training", *PAPER_STEPS}


def test_measuring_leaves_generators_and_mode_alone(setup):
    setup.loss.model.eval()
    before = torch.get_rng_state()
    found = costs.seconds_of_steps(setup)
    assert torch.get_rng_state().equal(before)
    assert not setup.loss.model.training
    assert all(0 < seconds < 60 for seconds in found.values())


def test_what_is_listed(root):
    asked = Asked("quick", [0, 1], None, [])
    lines = listing(
        [EXHIBITS["pairs"], EXHIBITS["full"]],
        asked,
        Paths(root),
        Costs(Paths(root), torch.device("cpu"), "tiny"),
    )
    said = list(lines)
    assert said[0] == "pairs: Pairs of low and of high noise"
    assert said[1].startswith(
        "  cnn2_digits3_10pc (10 training samples): 0 of 2 seeds, the rest about"
    )
    assert (
        said[3] == "  cnn2_digits3_50pc (10 training samples): 0 of 2 seeds, the rest not measured"
    )
    assert said[4].startswith("not measured, cnn2_digits3_50pc: ")
    assert "run_subset_generation.py --task digits3" in said[4]
    assert said[5].startswith("what is missing of 1 of 2 experiments: about ")
    assert said[6] == "what makes it:"
    assert len(said) == 9
    assert not (root / "results").exists()


def test_the_script_lists(root):
    said = call_well("run_paper", "--root", root, "--list", "--scale", "quick", "--only", "pairs")
    assert said.startswith("pairs: ")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(3.4, "3 s"), (89, "89 s"), (600, "10 min"), (2 * 3600, "2.0 h"), (50 * 3600, "50 h")],
)
def test_durations(seconds, said):
    assert duration(seconds) == f"about {said}"
    assert duration(math.nan) == "not measured"
