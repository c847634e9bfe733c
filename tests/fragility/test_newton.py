"""Objectives, Gauss–Newton coordinates, and what is solved and minimised in them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from src.ensemble.members import PerSampleLoss, trainable
from src.fragility import objective as module
from src.fragility.influence import loss_changes
from src.fragility.objective import Objective, gauss_newton
from src.fragility.quasi_newton import Coordinates, WhitenedMinres, descend
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


def test_in_its_coordinates_the_damped_matrix_is_the_identity(objective: Objective) -> None:
    w = vector(objective.like)
    t = Coordinates.at(objective, w, 0.05, CASE.train).to_parameters
    matrix = GaussNewton(objective.loss, objective.like, CASE.train, 7).dense()
    identity = torch.eye(len(w), dtype=w.dtype)
    assert relative_error(t.T @ (matrix + 0.05 * identity) @ t, identity) < 1e-9


def test_minres_solves_with_the_exact_hessian_also_where_it_is_indefinite(
    objective: Objective,
) -> None:
    w, damp = vector(objective.like), 1e-3
    hessian = Hessian(objective.loss, objective.like, CASE.train, 7)
    matrix = hessian.dense() + damp * torch.eye(len(w), dtype=w.dtype)
    assert torch.linalg.eigvalsh(matrix)[0] < 0  # or this shows less than it says
    coordinates = Coordinates.at(objective, w, damp, CASE.train)
    torch.manual_seed(0)
    vectors = torch.randn(2, len(w), dtype=w.dtype)
    solver = WhitenedMinres(damp, 1e-13, 600, 7, coordinates)
    solutions, known = solver.solve(hessian, vectors, transpose=False)
    assert relative_error(solutions, torch.linalg.solve(matrix, vectors.T).T) < 1e-6
    torch.testing.assert_close(
        known["residual"], (vectors - solutions @ matrix).norm(dim=1) / vectors.norm(dim=1)
    )


def convex() -> tuple[Objective, Tensor]:
    """Return logistic regression on digits, whose minimum is one, and where to begin."""
    case = Case(300, 2)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).double()
    params = trainable(model)
    return Objective(PerSampleLoss(model), params, case.train, STRONG), vector(params)


def test_descending_ends_at_the_stated_gradient_norm() -> None:
    objective, w = convex()
    coordinates = Coordinates.at(objective, w, STRONG, objective.train)
    at, norm = descend(objective, w, coordinates, 100, 1e-8)
    assert norm <= 1e-8
    assert norm == objective.value_and_gradient(at)[1].norm()
    few, norm_of_few = descend(objective, w, coordinates, 2, 1e-8)
    assert 1e-8 < norm_of_few < objective.value_and_gradient(w)[1].norm()
    assert not torch.equal(few, at)


def test_influence_predicts_leaving_out_on_a_convex_case() -> None:
    """Sign, factor 1 / n and damping: the changes are those of retraining to the minimum."""
    objective, w = convex()
    n = len(objective.train)
    chosen = torch.arange(0, n, 25)
    tests = samples(Case(300, 2).data[1])
    coordinates = Coordinates.at(objective, w, STRONG, objective.train)
    w, _ = descend(objective, w, coordinates, 200, 1e-9)
    coordinates = Coordinates.at(objective, w, STRONG, objective.train)
    solver = WhitenedMinres(STRONG, 1e-12, 200, n, coordinates)
    params = objective.params(w)
    predicted, _ = loss_changes(
        objective.loss, params, objective.train, objective.train.at(chosen), tests, solver
    )
    actual = []
    for j in chosen.tolist():
        at, norm = descend(objective.without(j), w, coordinates, 60, 1e-9)
        assert norm < 1e-7
        moved = objective.loss(objective.params(at), *tests[:])
        actual.append(moved - objective.loss(params, *tests[:]))
    actual = torch.stack(actual).detach()
    for z in range(2):
        pair = torch.stack([predicted[:, z], actual[:, z]])
        assert torch.corrcoef(pair)[0, 1] > 0.999
        slope = (pair[0] * pair[1]).sum() / pair[0].square().sum()
        assert abs(slope - 1) < 0.02
