"""What draws buy: means over few draws against a loop, and what they cost."""

import numpy as np
import pytest
import torch

from src.analysis.draws_bought import accuracy_by_draws, at_equal_cost
from src.analysis.draws_needed import rotations
from src.analysis.lds import datamodelling_scores
from src.analysis.two_ways import Halves
from src.experiments import METHODS, Scored
from tests import reference
from tests.analysis.test_lds import made

COSTS = {"gd": 1, "if": 3}


def table(n_draws, seconds=2.0):
    samples, masks, losses = made(n_draws)
    spent = dict.fromkeys(samples, seconds)
    return samples, masks, losses, accuracy_by_draws(samples, masks, losses, COSTS, spent)


@pytest.mark.parametrize("n_draws", [2, 3, 6, 13])
def test_means_of_few_draws_are_those_of_a_loop(n_draws):
    samples, masks, losses, found = table(n_draws)
    order, shifts = rotations(n_draws)
    halves = Halves.of(n_draws)

    def naive(scored, predicted):
        scores, of = samples["gd"][scored].mean(0), losses[predicted].mean(0)
        return reference.datamodelling_score(*map(torch.from_numpy, (scores, masks, of)))

    rows = found.query("method == 'gd'").set_index(["losses", "draws"])["lds"]
    for n in (1, 2, n_draws):
        begins = range(n_draws) if n == 1 else shifts
        expected = [naive(np.roll(order, -k)[:n], slice(None)) for k in begins]
        assert rows["all", n] == pytest.approx(np.mean(expected), abs=1e-9)
    both = [*zip(halves.first, halves.second, strict=True)]
    expected = [naive([t], b) for a, b in both for t in a]
    assert rows["other", 1] == pytest.approx(np.mean(expected), abs=1e-9)
    assert rows["other"].index[-1] == n_draws // 2


@pytest.mark.parametrize("n_draws", [8, 13])
def test_the_ends_are_the_versions_of_the_score(n_draws):
    samples, masks, losses, found = table(n_draws)
    scores = datamodelling_scores(samples, masks, losses)
    for method in samples:
        rows = found.query("method == @method").set_index(["losses", "draws"])["lds"]
        for key, version in (
            (("all", 1), "draw_mean"),
            (("all", n_draws), "mean_mean"),
            (("other", 1), "draw_other"),
            (("other", n_draws // 2), "mean_other"),
        ):
            assert rows[key] == pytest.approx(scores[method].versions[version].value, abs=1e-9)


def test_costs_are_multiples_of_one_draw():
    found = table(4)[-1]
    assert (found["trainings"] == found["draws"] * found["method"].map(COSTS)).all()
    assert (found["seconds"] == 2 * found["draws"]).all()
    assert table(4, np.nan)[-1]["seconds"].isna().all()


def test_equal_cost_is_as_many_draws_as_one_of_the_costliest_takes():
    found = table(4)[-1]
    bought = at_equal_cost(found)
    assert list(bought.index) == ["if", "gd"]
    assert bought["draws"].tolist() == [1, 3]
    few = at_equal_cost(table(2)[-1])  # no more than there are
    assert few["draws"].tolist() == [1, 2]
    assert at_equal_cost(found[found["method"] == "gd"]).empty


def test_trainings_of_a_draw():
    def of(method, settings):
        return METHODS[method].trainings(Scored(30, 5, settings))

    assert of("loo", {"protocol": "retrain"}) == 1 + 31
    assert of("loo", {"protocol": "continue"}) == 1 + 5 * 31
    assert [of(m, {}) for m in ("gd", "tracin", "unrolled")] == [1, 2, 2 + 30]
    # The empty set is the start, and the whole one the model itself.
    assert of("shapley", {"n_subsets": 10}) == 1 + 10 * 29
