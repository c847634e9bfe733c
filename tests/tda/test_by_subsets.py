"""Estimators from models on subsets, against enumeration of all subsets of eight samples."""

from __future__ import annotations

from functools import cache
from itertools import permutations

import numpy as np
import pytest
import torch
from torch import Tensor

from src.ensemble.draws import Draw
from src.ensemble.retraining import Retraining
from src.errors import UserError
from src.subsets.masks import Subsets, prefixes
from src.subsets.means import difference_of_means
from src.subsets.training import subset_losses
from src.tda.datamodel import PENALTIES, linear_fit
from src.tda.shapley import ShapleyValues, shapley
from tests import reference
from tests.conftest import Case
from tests.tools import relative_error

N = 8
CASE = Case(N, 3)
ALL = torch.tensor([[(number >> j) % 2 == 1 for j in range(N)] for number in range(2**N)])
PLACES = 2 ** torch.arange(N)  # of a mask, whose sum is its row in ALL


@cache
def all_losses() -> Tensor:
    """Losses (C, 256, 3) of the models on all subsets, each of them trained."""
    draw = Draw(CASE.seed, CASE.seed)
    chunks = subset_losses(
        CASE.procedure(),
        Retraining(lambda: draw.start(CASE.build), CASE.kept_epochs),
        ALL,
        CASE.test,
        chunk_size=64,
    )
    return torch.cat([*chunks], 1)


def losses_of(masks: Tensor) -> Tensor:
    return all_losses()[:, masks.long() @ PLACES]


def by_subset() -> reference.Values:
    """Return the losses (C, 3) by subset, of which the empty one is here the model without data."""
    return {
        frozenset(mask.nonzero().flatten().tolist()): all_losses()[:, k]
        for k, mask in enumerate(ALL)
    }


def shapley_of(orders: Tensor, lengths: Tensor | None = None) -> ShapleyValues:
    """Return Shapley values by permutations with the losses of `by_subset`."""
    lengths = torch.full((len(orders),), N - 1) if lengths is None else lengths
    masks = [prefixes(o)[:n] for o, n in zip(orders, lengths.tolist(), strict=True)]
    start = all_losses()[:, 0]
    return shapley(orders, lengths, losses_of(torch.cat(masks)), start[-1], all_losses()[:, -1])


def last_epoch(values: Tensor) -> Tensor:
    """Return the last epoch alone, at which the empty set's loss is that of `by_subset`."""
    return values[-1]


def test_banzhaf_of_all_subsets():
    found, _ = difference_of_means(ALL, all_losses())
    expected = reference.banzhaf(by_subset(), N).transpose(0, 1)
    assert relative_error(found, expected) < 1e-9


def test_banzhaf_of_drawn_subsets():
    """Off by as much as its standard error says, on the average over draws and pairs."""
    expected = reference.banzhaf(by_subset(), N).transpose(0, 1)
    ratios = []
    for seed in range(30):
        masks = Subsets.of("independent", 60).masks(N, seed)
        found, error = difference_of_means(masks, losses_of(masks))
        ratios.append(((found - expected) / error).square())
    assert torch.stack(ratios).mean().item() == pytest.approx(1, abs=0.25)


def test_shapley_of_all_permutations():
    orders = torch.tensor([*permutations(range(N))])
    found = shapley_of(orders)
    expected = reference.shapley(by_subset(), N).transpose(0, 1)
    assert relative_error(last_epoch(found.scores), last_epoch(expected)) < 1e-9
    value = (all_losses()[:, 0] - all_losses()[:, -1])[-1]
    assert relative_error(last_epoch(expected).sum(0), value) < 1e-9  # of the naive one, too
    assert relative_error(last_epoch(found.total), value) < 1e-9
    assert found.gap.abs().max() < 1e-12


def test_shapley_of_drawn_permutations():
    expected = last_epoch(reference.shapley(by_subset(), N).transpose(0, 1))
    ratios = []
    for seed in range(30):
        found = shapley_of(Subsets.of("permutations", 100).permutations(N, seed))
        ratios.append(((last_epoch(found.scores) - expected) / last_epoch(found.errors)).square())
        assert found.gap.abs().max() < 1e-12
    assert torch.stack(ratios).mean().item() == pytest.approx(1, abs=0.25)


def test_truncated_permutations():
    """Samples behind add nothing, and what is lost is the gap of the efficiency."""
    orders = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7], [7, 6, 5, 4, 3, 2, 1, 0]])
    found = shapley_of(orders, torch.tensor([2, 7]))
    loss = {s: last[-1] for s, last in by_subset().items()}
    own = {0: frozenset(), 1: {0}, 2: {0, 1}}
    last = {j: frozenset(range(j + 1, N)) for j in range(N)}  # in front of j in the second one
    for j in range(N):
        first = loss[frozenset(own[j])] - loss[frozenset(own[j]) | {j}] if j < 2 else 0
        second = loss[last[j]] - loss[last[j] | {j}]
        assert torch.allclose(last_epoch(found.scores)[j], (first + second) / 2, rtol=1e-9)
    gaps = torch.stack([loss[frozenset(range(N))] - loss[frozenset({0, 1})], torch.zeros(3)])
    assert torch.allclose(last_epoch(found.gap), gaps.mean(0), rtol=1e-9)
    assert torch.allclose(last_epoch(found.gap_error), gaps.std(0) / 2**0.5, rtol=1e-9)


def test_errors_of_a_single_permutation_are_not_known():
    found = shapley_of(torch.arange(N)[None])
    assert found.scores.isfinite().all()
    assert found.errors.isnan().all()
    assert found.gap_error.isnan().all()


def test_standard_error_of_means():
    masks = Subsets.of("half", 21).masks(N, 446)
    losses = losses_of(masks).float()
    found, error = difference_of_means(masks, losses)
    for j in range(N):
        without, within = losses[:, ~masks[:, j]].double(), losses[:, masks[:, j]].double()
        assert torch.allclose(found[:, j], without.mean(1) - within.mean(1), atol=1e-12)
        squared = without.var(1) / without.shape[1] + within.var(1) / within.shape[1]
        assert torch.allclose(error[:, j], squared.sqrt(), rtol=1e-9)


@pytest.mark.parametrize("column", [False, True])
def test_a_sample_in_none_or_in_all(column: bool):
    masks = Subsets.of("half", 5).masks(N, 446)
    masks[:, 3] = column
    with pytest.raises(UserError, match="the first at position 3, are in all or in none of 5"):
        difference_of_means(masks, torch.zeros(1, 5, 2))


def test_datamodel_against_normal_equations():
    masks = Subsets.of("half", 23).masks(N, 446)
    losses = losses_of(masks)[-1]
    weights, penalties, explained = linear_fit(masks, losses)
    for z in range(3):
        errors = [reference.ridge_error(masks, losses[:, z], penalty) for penalty in PENALTIES]
        assert penalties[z] == PENALTIES[int(np.argmin(errors))]
        expected, _ = reference.ridge(masks, losses[:, z], penalties[z].item())
        assert relative_error(weights[:, z], expected) < 1e-9
        variance = losses[:, z].var(correction=0).item()
        assert explained[z].item() == pytest.approx(1 - min(errors) / variance, rel=1e-9)


def test_datamodel_finds_planted_weights():
    planted = torch.tensor([[-2.0], [1], [0], [0], [0.5], [0], [-1], [0]], dtype=torch.float64)
    masks = Subsets.of("independent", 60).masks(N, 1)
    weights, _, explained = linear_fit(masks, 3 + masks.double() @ planted)
    assert torch.allclose(weights, planted, atol=0.02)
    assert explained.item() > 0.99


def test_losses_that_are_all_the_same():
    masks = Subsets.of("half", 12).masks(N, 1)
    weights, _, explained = linear_fit(masks, torch.full((12, 2), 0.7))
    assert weights.abs().max() < 1e-12
    assert explained.tolist() == [0, 0]
