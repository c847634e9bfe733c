"""A walk through prefixes: where it is truncated, and that it goes on from kept losses."""

from __future__ import annotations

import torch
from torch import Tensor

from src.subsets.walk import Walk, is_settled

ORDERS = torch.tensor([[2, 0, 3, 1, 4], [4, 3, 2, 1, 0], [0, 1, 2, 3, 4]])
WHOLE = torch.tensor([[9.0, 9, 9, 9], [0, 1, 2, 3]])  # two epochs, of which the last one decides
NOISE = torch.tensor([0.1, -0.1, 0.1, -0.1])


def losses(*offsets: float) -> Tensor:
    """Return losses (2, M, 4) that are so far from those of the whole set at the last epoch."""
    last = WHOLE[1] + NOISE + torch.tensor(offsets)[:, None]
    return torch.stack([torch.zeros_like(last), last])


def test_the_standard_error_decides():
    error = NOISE.std() / 2
    found = is_settled(
        losses(0.99 * error, -0.99 * error, 1.01 * error, -1.01 * error)[1], WHOLE[1]
    )
    assert found.tolist() == [True, True, False, False]
    assert not is_settled(torch.zeros(3, 1), torch.zeros(1)).any()  # nothing is known of its error


def test_truncation():
    walk = Walk(ORDERS, WHOLE)
    assert walk.ahead().shape == (4, 5)
    assert walk.take(losses(3, 2)).shape == (2, 2, 4)
    assert walk.ahead().int().tolist() == [[1, 0, 1, 1, 0], [1, 1, 1, 1, 0]]
    assert walk.take(losses(0, 1)).shape == (2, 1, 4)  # settled: what is behind is not kept
    assert (walk.lengths, walk.n_behind) == ([3, 0], 4)
    walk.take(losses(3, 2, 1, 1))
    assert not walk.is_over
    walk.take(losses(0))
    assert walk.is_over
    assert walk.lengths == [3, 4, 1]
    assert walk.n_behind == 12
    assert walk.masks().int().sum(1).tolist() == [1, 2, 3, 1, 2, 3, 4, 1]
    assert walk.masks()[3].int().tolist() == [0, 0, 0, 0, 1]


def test_what_was_kept_leads_to_the_same_place():
    walk, again = Walk(ORDERS, WHOLE), Walk(ORDERS, WHOLE)
    for taken in (losses(3, 2), losses(0, 1), losses(5), losses(4)):
        again.take(walk.take(taken))
        assert again.lengths == walk.lengths
        assert torch.equal(again.ahead(), walk.ahead())


def test_a_single_training_sample():
    walk = Walk(torch.tensor([[0], [0]]), WHOLE)
    assert walk.is_over
    assert walk.lengths == [0, 0]
    assert walk.masks().shape == (0, 1)
    assert walk.n_behind == 0
