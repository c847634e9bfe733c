"""Which subsets are drawn: sizes, who shares them, and that more of them begin with fewer."""

from __future__ import annotations

import pytest
import torch

from src.errors import UserError
from src.experiments import SUBSET_KINDS
from src.subsets.masks import Subsets, prefixes


def test_truth_is_the_same_for_all_seeds_and_half_is_not():
    for kind, is_same in (("truth", True), ("half", False), ("independent", False)):
        one, other = (Subsets.of(kind).masks(30, seed) for seed in (446, 724))
        assert one.dtype == torch.bool
        assert one.shape == (SUBSET_KINDS[kind].n_subsets, 30)
        assert torch.equal(one, other) == is_same
        assert torch.equal(one, Subsets.of(kind).masks(30, 446))
    assert not torch.equal(
        Subsets.of("truth", 9).masks(30, 446), Subsets.of("half", 9).masks(30, 0)
    )


def test_sizes():
    assert (Subsets.of("half").masks(30, 446).sum(1) == 15).all()
    assert (Subsets.of("truth", fraction=0.3).masks(11, 446).sum(1) == 3).all()
    masks = Subsets.of("independent", 2000, inclusion=0.2).masks(8, 446)
    assert masks.float().mean(0).sub(0.2).abs().max() < 0.04  # 4 standard errors
    assert masks.sum(1).unique().tolist()[:2] == [0, 1]


@pytest.mark.parametrize("kind", ["truth", "half", "independent"])
def test_more_begin_with_fewer(kind: str):
    few, more = (Subsets.of(kind, n).masks(13, 446) for n in (3, 7))
    assert torch.equal(more[:3], few)


def test_samples_are_in_alike():
    masks = Subsets.of("half", 4000).masks(10, 446).double()
    assert (masks.mean(0) - 0.5).abs().max() < 0.032  # 4 standard errors
    together = masks.T @ masks / 4000
    assert (together[0, 1:] - 0.5 * 4 / 9).abs().max() < 0.03


@pytest.mark.parametrize(("fraction", "n"), [(0.01, 30), (0.99, 30), (0.5, 1)])
def test_a_fraction_of_none_or_all(fraction: float, n: int):
    with pytest.raises(UserError, match=f"--fraction .* of {n} training samples is"):
        Subsets.of("half", fraction=fraction).masks(n, 446)


def test_permutations():
    orders = Subsets.of("permutations", 5).permutations(7, 446)
    assert orders.shape == (5, 7)
    assert torch.equal(orders.sort(1).values, torch.arange(7).expand(5, 7))
    assert not torch.equal(orders, Subsets.of("permutations", 5).permutations(7, 724))
    assert torch.equal(orders[:2], Subsets.of("permutations", 2).permutations(7, 446))


def test_prefixes():
    assert prefixes(torch.tensor([2, 0, 3, 1])).int().tolist() == [
        [0, 0, 1, 0],
        [1, 0, 1, 0],
        [1, 0, 1, 1],
    ]
    assert prefixes(torch.tensor([0])).shape == (0, 1)


def test_settings_are_what_decides():
    assert Subsets.of("truth").settings() == {"n_subsets": 100, "fraction": 0.5}
    assert Subsets.of("independent", inclusion=0.3).settings() == {
        "n_subsets": 200,
        "inclusion": 0.3,
    }
    assert Subsets.of("permutations", fraction=0.1).settings() == {"n_subsets": 10}
