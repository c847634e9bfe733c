"""Consistency of top samples: against plain sets, by chance, and with ties."""

from itertools import combinations

import numpy as np
import pytest

from src.analysis.top_samples import (
    consistency_table,
    jaccard_by_chance,
    jaccard_of_seeds,
    mean_over_pairs,
    numbers_of_top,
)
from tests import reference


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize(("method", "sign"), [("loo", 1), ("if", -1)])
@pytest.mark.parametrize("shape", [(2, 1, 1), (3, 7, 1), (5, 12, 9)])
@pytest.mark.parametrize("at_once", [1, 100, 2**22])
def test_it_is_what_sets_give(monkeypatch, rng, method, sign, shape, at_once):
    monkeypatch.setattr("src.analysis.top_samples._COMPARED_AT_ONCE", at_once)
    samples = rng.normal(size=shape)
    ks = [k for k in (1, 2, 5) if k <= shape[1]]
    found = jaccard_of_seeds(samples, method, ks)
    for k, of_seeds in zip(ks, found, strict=True):
        assert (of_seeds == of_seeds.T).all()
        expected = reference.top_consistency(sign * samples, k)
        assert mean_over_pairs(of_seeds).value == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("n", "k"), [(1, 1), (4, 1), (4, 4), (6, 3), (7, 5)])
def test_chance_is_the_mean_over_all_sets(n, k):
    sets = [set(chosen) for chosen in combinations(range(n), k)]
    expected = np.mean([len(a & b) / len(a | b) for a in sets for b in sets])
    assert jaccard_by_chance(n, k) == pytest.approx(expected, rel=1e-9)


def test_noise_has_the_consistency_of_chance_and_so_have_equal_scores(rng):
    for samples in (rng.normal(size=(20, 30, 50)), np.ones((20, 30, 50))):
        for row in consistency_table({"gd": samples}).itertuples():
            assert row.jaccard == pytest.approx(row.by_chance, rel=0.2)


def test_half_of_the_samples_tie_at_the_end(rng):
    """Two samples always lead; the third is any of the other eight: 1/8 is 1, and 7/8 are 2/4."""
    samples = np.zeros((200, 10, 3))
    samples[:, [2, 5]] = 1
    [of_seeds] = jaccard_of_seeds(samples, "gd", [3])
    assert mean_over_pairs(of_seeds).value == pytest.approx(1 / 8 + 7 / 8 / 2, abs=0.02)


def test_the_same_ranking_is_consistent_whatever_its_scale(rng):
    ranking = rng.normal(size=(30, 4))
    samples = np.stack([scale * ranking for scale in (1, 2, 1e-6)])
    table = consistency_table({"if": samples})
    assert table["k"].tolist() == [1, 2, 3]
    assert (table[["jaccard", "low", "high"]] == 1).all(axis=None)
    assert consistency_table({"if": samples[:2]})[["low", "high"]].isna().all(axis=None)


def test_numbers_of_top_samples():
    assert numbers_of_top(300) == {3: 0.01, 15: 0.05, 30: 0.1}
    assert numbers_of_top(150) == {2: 0.01, 8: 0.05, 15: 0.1}
    assert numbers_of_top(10) == {1: 0.1}
    assert numbers_of_top(1) == {1: 0.1}


def test_intervals_hold_the_consistency_of_many_seeds(rng):
    """Seeds of either of two rankings: two seeds agree wholly with a chance of 1/2, else hardly."""
    rankings = rng.normal(size=(2, 40, 200))
    truth = mean_over_pairs(jaccard_of_seeds(rankings, "gd", [4])[0]).value / 2 + 0.5
    held = 0
    for _ in range(40):
        which = rng.integers(2, size=12)
        low, high = mean_over_pairs(jaccard_of_seeds(rankings[which], "gd", [4])[0]).interval()
        held += low <= truth <= high
    assert held >= 32
