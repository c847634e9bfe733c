"""Objectives, dense Hessians, their coordinates, and what is solved and minimised in them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from src.ensemble.members import PerSampleLoss, trainable
from src.fragility import chain
from src.fragility import objective as module
from src.fragility.chain import chain_hessian
from src.fragility.influence import loss_changes
from src.fragility.objective import Objective, gauss_newton
from src.fragility.quasi_newton import FLOOR, Coordinates, Refined, minimise
from src.tda.gauss_newton import GaussNewton
from src.tda.hessian import Hessian, flatten
from tests import reference
from tests.conftest import Case
from tests.tools import relative_error, samples

CASE = Case(7, 3)
DECAY = 0.01
STRONG = 1.0  # so that a sample moves the minimum little


def vector(params: dict[str, Tensor]) -> Tensor:
    return flatten({name: p[None] for name, p in params.items()})[0]


@pytest.fixture
def objective(monkeypatch: pytest.MonkeyPatch) -> Objective:
    """Of a trained network; batches do not divide the samples."""
    monkeypatch.setattr(module, "BATCH", 3)
    loss = CASE.loss()
    loss.model.eval()
    return Objective(loss, CASE.checkpoints[-1], CASE.train, DECAY)


@pytest.mark.parametrize("removed", [None, 0, 4, 6])
def test_value_and_gradient_are_those_of_the_definition(
    objective: Objective, removed: int | None
) -> None:
    model = CASE.models[-1].eval()
    expected = reference.objective_without(model, CASE.data[0], removed, DECAY)
    gradient = torch.autograd.grad(expected, list(model.parameters()))
    w = vector(objective.like)
    found, of_found = objective.without(removed).value_and_gradient(w)
    assert relative_error(found, expected.detach()) < 1e-9
    assert relative_error(of_found, torch.cat([g.reshape(-1) for g in gradient])) < 1e-9


def test_the_gauss_newton_matrix_is_that_of_products_with_vectors(objective: Objective) -> None:
    loss, params = objective.loss, objective.like
    expected = GaussNewton(loss, params, CASE.train, 7).dense()
    assert relative_error(gauss_newton(loss, params, CASE.train), expected) < 1e-9


def dense_hessian(objective: Objective, w: Tensor, damp: float) -> Tensor:
    n = len(objective.train)
    kept = [i for i in range(n) if i != objective.removed]
    hessian = Hessian(objective.loss, objective.params(w), objective.train.at(kept), n)
    return len(kept) / n * hessian.dense() + damp * torch.eye(len(w), dtype=w.dtype)


def chained() -> tuple[Objective, Tensor]:
    """Return a chain of convolutions and linear layers on digits, and where it begins."""
    case = Case(20, 3)
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 2, 3, 2), nn.Tanh(), nn.Conv2d(2, 3, 1), nn.Tanh(), nn.Flatten()),
        *(nn.Linear(27, 4), nn.Tanh(), nn.Linear(4, 3)),
    ).double()
    params = trainable(model)
    return Objective(PerSampleLoss(model), params, case.train, DECAY), vector(params)


def test_the_hessian_of_a_chain_is_that_of_products_with_all_unit_vectors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chain, "BATCH", 7)  # which does not divide the samples
    monkeypatch.setattr(chain, "VECTORS", 5)  # nor this the parameters
    objective, w = chained()
    found = chain_hessian(objective.loss, objective.like, objective.train)
    assert torch.equal(found, found.T)
    assert relative_error(found, dense_hessian(objective, w, 0.0)) < 1e-9


@pytest.mark.parametrize("damp", [1e-3, 10.0])
def test_coordinates_whiten_the_damped_hessian(damp: float) -> None:
    objective, w = chained()
    matrix = dense_hessian(objective, w, damp)
    values = torch.linalg.eigvalsh(matrix)
    assert (values[0] < 0) == (damp < 1)  # indefinite, and not
    coordinates = Coordinates.at(objective, w, damp)
    assert relative_error(coordinates.values, values) < 1e-5  # H by float32
    instead = Coordinates.at(objective, w, damp, gauss_newton).values
    assert instead[0] >= (1 - 1e-3) * damp
    t = coordinates.changes(torch.eye(len(w), dtype=w.dtype)).T
    expected = values / values.abs().clamp(min=FLOOR * damp)  # 1 or −1 but for the smallest
    assert (expected.abs() == 1).float().mean() > 0.5
    assert (t.T @ matrix @ t - expected.diag()).abs().max() < 1e-2
    torch.manual_seed(0)
    rows = torch.randn(3, len(w), dtype=w.dtype)
    assert relative_error(coordinates.changes(rows), rows @ t.T) < 1e-9
    assert relative_error(coordinates.gradients(rows), rows @ t) < 1e-9
    assert coordinates.decrement(rows[1]) == pytest.approx((rows[1] @ t).norm().item(), rel=1e-9)


@pytest.mark.parametrize("damp", [1e-2, 10.0])
def test_refined_solutions_are_exact_with_a_hessian_that_is_definite_or_not(damp: float) -> None:
    objective, w = chained()
    hessian = Hessian(objective.loss, objective.like, objective.train, 60)
    matrix = dense_hessian(objective, w, damp)
    assert (torch.linalg.eigvalsh(matrix)[0] < 0) == (damp < 1)
    coordinates = Coordinates.at(objective, w, damp)
    torch.manual_seed(0)
    vectors = torch.randn(2, len(w), dtype=w.dtype)
    solutions, known = Refined(coordinates, 60).solve(hessian, vectors, transpose=False)
    assert relative_error(solutions, torch.linalg.solve(matrix, vectors.T).T) < 1e-9
    assert relative_error(coordinates.inverse(vectors), solutions) > 1e-9  # float32 shows
    assert known["residual"].shape == (2,)
    assert known["residual"].max() < 1e-9


def convex(n: int = 20) -> tuple[Objective, Tensor]:
    """Return logistic regression on digits, whose minimum is one, and where to begin."""
    case = Case(n, 2)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).double()
    params = trainable(model)
    return Objective(PerSampleLoss(model), params, case.train, STRONG), vector(params)


def newton(objective: Objective, w: Tensor) -> Tensor:
    """Return the minimum by plain Newton's steps with the dense Hessian."""
    for _ in range(6):
        gradient = objective.value_and_gradient(w)[1]
        w = w - torch.linalg.solve(dense_hessian(objective, w, objective.decay), gradient)
    assert objective.value_and_gradient(w)[1].norm() < 1e-13
    return w


def test_minimising_ends_at_the_minimum_with_the_stated_decrement() -> None:
    objective, w = convex()
    coordinates = Coordinates.at(objective, w, STRONG)
    minimum = newton(objective, w)
    for tolerance in (1e-3, 1e-5, 1e-7):
        at = minimise(objective, w, coordinates, 100, tolerance)
        assert coordinates.decrement(objective.value_and_gradient(at)[1]) <= tolerance
        assert (at - minimum).norm() <= tolerance / STRONG  # H + c I is at least that
        assert torch.equal(minimise(objective, at, coordinates, 100, tolerance), at)
    few = minimise(objective, w, coordinates, 1, 1e-7)
    before, after = (coordinates.decrement(objective.value_and_gradient(v)[1]) for v in (w, few))
    assert 1e-7 < after < before


def test_minimising_leaves_a_point_of_negative_curvature() -> None:
    objective, w = chained()
    assert torch.linalg.eigvalsh(dense_hessian(objective, w, DECAY))[0] < -1e-3
    for _ in range(10):
        coordinates = Coordinates.at(objective, w, DECAY)
        w = minimise(objective, w, coordinates, 50, 1e-7)
    assert coordinates.decrement(objective.value_and_gradient(w)[1]) <= 1e-7
    assert torch.linalg.eigvalsh(dense_hessian(objective, w, DECAY))[0] > -1e-6


def test_minimising_from_an_optimum_ends_at_the_minimum_without_a_sample() -> None:
    objective, w = convex()
    w = newton(objective, w)
    coordinates = Coordinates.at(objective, w, STRONG)
    without = objective.without(7)
    begin = coordinates.decrement(without.value_and_gradient(w)[1])
    at = minimise(without, w, coordinates, 40, 1e-3 * begin)
    assert coordinates.decrement(without.value_and_gradient(at)[1]) <= 1e-3 * begin
    moved = newton(without, w) - w
    assert relative_error(at - w, moved) < 1e-2
    assert moved.norm() > 1e-3
    at = minimise(without, w, coordinates, 40, 1e-6 * begin)
    assert relative_error(at - w, moved) < 1e-5
    still = minimise(objective, w, coordinates, 40, 1e-3 * begin)
    assert torch.equal(still, w)  # the control


def test_influence_predicts_leaving_out_on_a_convex_case() -> None:
    """Sign, factor 1 / n and damping: the changes are those of retraining to the minimum."""
    objective, w = convex(300)
    n = len(objective.train)
    chosen = torch.arange(0, n, 25)
    tests = samples(Case(300, 2).data[1])
    coordinates = Coordinates.at(objective, w, STRONG)
    w = newton(objective, minimise(objective, w, coordinates, 200, 1e-5))
    coordinates = Coordinates.at(objective, w, STRONG)
    solver = Refined(coordinates, n)
    params = objective.params(w)
    predicted, _ = loss_changes(
        objective.loss, params, objective.train, objective.train.at(chosen), tests, solver
    )
    actual = []
    for j in chosen.tolist():
        at = minimise(objective.without(j), w, coordinates, 60, 1e-8)
        moved = objective.loss(objective.params(at), *tests[:])
        actual.append(moved - objective.loss(params, *tests[:]))
    actual = torch.stack(actual).detach()
    for z in range(2):
        pair = torch.stack([predicted[:, z], actual[:, z]])
        assert torch.corrcoef(pair)[0, 1] > 0.999
        slope = (pair[0] * pair[1]).sum() / pair[0].square().sum()
        assert abs(slope - 1) < 0.02
