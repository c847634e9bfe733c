"""Which training samples are scored: balanced samples of any size, the same for all who ask."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from src.data.scored import SEED, balanced_order, scored_positions
from src.errors import UserError

LABELS = torch.tensor([0] * 9 + [1] * 4 + [2] * 9 + [5] * 1)[
    torch.randperm(23, generator=torch.Generator().manual_seed(0))
]


def most_balanced(n_scored: int) -> list[int]:
    """Return the counts by class, ascending, that are as equal as they can be."""
    left, given = [9, 4, 9, 1], [0] * 4
    for _ in range(n_scored):
        k = min((k for k in range(4) if left[k]), key=lambda k: given[k])
        left[k] -= 1
        given[k] += 1
    return sorted(given)


@pytest.mark.parametrize("n_scored", range(1, 24))
def test_classes_are_as_balanced_as_they_can_be(n_scored: int):
    found = scored_positions(LABELS, n_scored, "x")
    assert found.dtype == torch.int64
    assert found.tolist() == sorted(set(found.tolist()))
    counts = [int((LABELS[found] == c).sum()) for c in (0, 1, 2, 5)]
    assert sorted(counts) == most_balanced(n_scored)


def test_a_larger_sample_holds_a_smaller_one_and_all_are_all():
    samples = [set(scored_positions(LABELS, k, "x").tolist()) for k in range(1, 24)]
    assert all(less < more for less, more in zip(samples, samples[1:], strict=False))
    assert scored_positions(LABELS, None, "x").tolist() == list(range(23))
    assert samples[-1] == set(range(23))


def test_the_state_of_no_generator_matters():
    torch.manual_seed(1)
    first = scored_positions(LABELS, 7, "x")
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002
    assert scored_positions(LABELS, 7, "x").equal(first)


def test_every_sample_of_a_class_is_as_likely():
    labels = np.repeat([0, 1], [4, 6])
    drawn = [balanced_order(labels, np.random.default_rng(seed))[:4] for seed in range(4000)]
    shares = np.bincount(np.concatenate(drawn), minlength=10) / 4000
    # Two of four and two of six; four standard errors of 4000 draws.
    np.testing.assert_allclose(shares, np.repeat([1 / 2, 1 / 3], [4, 6]), atol=0.032)


@pytest.mark.parametrize("shape", [(30,), (30, 2)])
def test_of_values_it_is_a_plain_sample(shape: tuple[int, ...]):
    values = torch.zeros(shape)
    found = scored_positions(values, 12, "x")
    expected = np.random.default_rng(SEED).permutation(30)[:12]
    assert found.tolist() == sorted(expected.tolist())


def test_it_is_drawn_from_what_may_be_scored():
    among = torch.tensor([22, 3, 8, 15, 1])
    assert scored_positions(LABELS, None, "x", among).tolist() == [1, 3, 8, 15, 22]
    assert set(scored_positions(LABELS, 3, "x", among).tolist()) < set(among.tolist())
    with pytest.raises(UserError, match="x has 5 training samples to score: .* from 1 to 5"):
        scored_positions(LABELS, 6, "x", among)


@pytest.mark.parametrize("n_scored", [0, -1, 24, 2.0, True, "3"])
def test_wrong_numbers(n_scored: object):
    with pytest.raises(UserError, match="choose a whole number from 1 to 23"):
        scored_positions(LABELS, n_scored, "x")
