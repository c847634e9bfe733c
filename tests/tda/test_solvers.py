"""The three solvers: against definitions, against each other, and in both directions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from src.members import n_parameters
from src.tda.hessian import Hessian
from src.tda.solvers import ConjugateGradient, Exact, Lissa, Solver, conjugate_gradient
from tests import reference
from tests.conftest import Case
from tests.tools import TOLERANCE, relative_error

# scale 1e4 is the published setting; at 10 the Hessian has an effect.
LISSAS = [Lissa(), Lissa(damp=0.01, scale=10)]


def hessian_for(case: Case, solver: Solver) -> Hessian:
    """Return the Hessian of the case's last checkpoint in the solver's batches."""
    return Hessian(case.loss(), case.checkpoints[-1], case.train, solver.batch_size)


def random_vectors(case: Case, n: int) -> Tensor:
    """Return vectors (n, P)."""
    return torch.randn(n, n_parameters(case.checkpoints[-1]), dtype=case.dtype)


@pytest.mark.parametrize("at_once", [1, 2, 3])
@pytest.mark.parametrize("solver", LISSAS, ids=str)
def test_lissa_is_the_recursion(case: Case, solver: Lissa, at_once: int):
    vectors, hessian = random_vectors(case, 3), hessian_for(case, solver)
    hessian.vectors_at_once = at_once
    found, known = solver.solve(hessian, vectors, transpose=False)
    expected = torch.stack(
        [
            reference.lissa(case.models[-1], case.data[0], v, solver.damp, solver.scale)
            for v in vectors
        ]
    )
    assert known == {}
    assert relative_error(found, expected) < TOLERANCE[case.dtype]


@pytest.mark.parametrize("solver", LISSAS, ids=str)
def test_transposed_lissa_equals_direct_lissa(case: Case, solver: Lissa):
    """(M u)ᵀ v = uᵀ (Mᵀ v) for all pairs."""
    hessian = hessian_for(case, solver)
    u, v = random_vectors(case, 4), random_vectors(case, 3)
    direct = solver.solve(hessian, u, transpose=False)[0] @ v.T
    transposed = u @ solver.solve(hessian, v, transpose=True)[0].T
    tolerance = {torch.float64: 1e-9, torch.float32: 1e-6}[case.dtype]
    assert relative_error(transposed, direct) < tolerance


def test_lissa_is_not_symmetric():
    """Were M symmetric, the test above could not tell the order of the batches."""
    case, solver = Case(19, 7), Lissa(damp=0.01, scale=0.5)
    hessian, v = hessian_for(case, solver), random_vectors(case, 2)
    direct, transposed = (solver.solve(hessian, v, transpose=t)[0] for t in (False, True))
    assert relative_error(transposed, direct) > 1e-6


@pytest.mark.parametrize("damp", [0.3, 1.0])
def test_exact_solves(case: Case, damp: float):
    solver, vectors = Exact(damp), random_vectors(case, 3)
    solution, known = solver.solve(hessian_for(case, solver), vectors, transpose=True)
    matrix = reference.hessian(case.models[-1], case.data[0])
    matrix = matrix + damp * torch.eye(len(matrix), dtype=case.dtype)
    assert known == {}
    assert relative_error(solution @ matrix, vectors) < TOLERANCE[case.dtype]


def test_cg_and_exact_agree(case: Case):
    tolerance = {torch.float64: 1e-11, torch.float32: 1e-6}[case.dtype]
    cg = ConjugateGradient(damp=0.3, tolerance=tolerance, max_iterations=1000)
    vectors = random_vectors(case, 3)
    by_cg, known = cg.solve(hessian_for(case, cg), vectors, transpose=True)
    exact, _ = Exact(damp=0.3).solve(hessian_for(case, cg), vectors, transpose=True)
    assert (known["residual"] < 10 * tolerance).all()
    assert relative_error(by_cg, exact) < TOLERANCE[case.dtype]


def test_the_residual_of_cg_is_the_true_one():
    case = Case(11, 3)
    vectors = random_vectors(case, 3)
    vectors[1] = 0
    solver = ConjugateGradient(damp=0.1, tolerance=1e-10, max_iterations=3)
    solution, known = solver.solve(hessian_for(case, solver), vectors, transpose=False)
    residual = known["residual"]
    matrix = reference.hessian(case.models[-1], case.data[0])
    left = vectors - solution @ (matrix + 0.1 * torch.eye(len(matrix), dtype=torch.float64))
    expected = left.norm(dim=1) / vectors.norm(dim=1)
    assert residual[[0, 2]].tolist() == pytest.approx(expected[[0, 2]].tolist())
    assert (residual[[0, 2]] > 1e-10).all()
    assert residual[1] == 0
    assert (solution[1] == 0).all()


def test_cg_on_rows_that_need_different_numbers_of_iterations():
    """Finished rows leave; each row gets its own solution."""
    eigenvalues = torch.arange(1, 21, dtype=torch.float64)
    vectors = torch.zeros(4, 20, dtype=torch.float64)
    vectors[0, 3] = 2.0  # an eigenvector: one iteration
    vectors[1, :5] = 1.0  # five
    vectors[3] = 1.0  # twenty
    calls = []

    def matvec(x: Tensor) -> Tensor:
        calls.append(len(x))
        return x * eigenvalues

    found, curvature = conjugate_gradient(matvec, vectors, 1e-10, 50)
    assert relative_error(found, vectors / eigenvalues) < 1e-9
    assert calls[:2] == [3, 2]
    assert calls[-1] == 1
    assert len(calls) <= 20
    assert (curvature[[0, 1, 3]] >= 1 - 1e-12).all()
    assert curvature[2] == torch.inf  # zeros need no direction


def test_cg_without_positive_curvature_goes_on():
    """On a small problem it converges all the same; the curvature tells."""
    eigenvalues = torch.tensor([3.0, 1.0, 0.5, -2.0], dtype=torch.float64)
    vectors = torch.ones(2, 4, dtype=torch.float64)
    vectors[1, 3] = 0  # no part in the direction of negative curvature
    found, curvature = conjugate_gradient(lambda x: x * eigenvalues, vectors, 1e-12, 10)
    assert curvature[0] <= 0 < curvature[1]
    assert relative_error(found, vectors / eigenvalues) < 1e-9


def test_cg_returns_the_iterate_of_smallest_residual():
    """Here the residual grows in the first steps: the start is better than the second iterate."""
    eigenvalues = torch.tensor([3.0, 1.0, -1.0, -2.1], dtype=torch.float64)
    vectors = torch.ones(1, 4, dtype=torch.float64)
    for max_iterations in (1, 2, 3):
        found, _ = conjugate_gradient(lambda x: x * eigenvalues, vectors, 1e-12, max_iterations)
        assert (vectors - found * eigenvalues).norm() <= vectors.norm()


def test_cg_breaks_down_without_harm():
    """Zero curvature in the first iteration: the best iterate is the start."""
    eigenvalues = torch.tensor([1.0, -1.0], dtype=torch.float64)
    ones = torch.ones(1, 2, dtype=torch.float64)
    found, curvature = conjugate_gradient(lambda x: x * eigenvalues, ones, 1e-12, 10)
    assert found.tolist() == [[0.0, 0.0]]
    assert curvature.tolist() == [0.0]


def test_curvature_of_cg_is_that_of_the_hessian_alone():
    case = Case(11, 3)
    solver = ConjugateGradient(damp=5.0, tolerance=1e-12)
    _, known = solver.solve(hessian_for(case, solver), random_vectors(case, 2), transpose=False)
    spectrum = torch.linalg.eigvalsh(reference.hessian(case.models[-1], case.data[0]))
    assert (known["curvature"] >= spectrum[0] - 1e-9).all()
    assert (known["curvature"] <= spectrum[-1]).all()
