"""The three solvers: against definitions, against each other, and in both directions."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor

from src.ensemble.members import n_parameters
from src.errors import DivergedError, UserError
from src.tda.hessian import Hessian
from src.tda.solvers import Solver
from src.tda.solvers.conjugate_gradient import ConjugateGradient, conjugate_gradient
from src.tda.solvers.exact import Exact
from src.tda.solvers.lissa import Lissa
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
    assert relative_error(found, expected) < TOLERANCE[case.dtype]
    growth = solver.scale * expected.norm(dim=1) / vectors.norm(dim=1)
    assert relative_error(known["growth"], growth) < TOLERANCE[case.dtype]
    first = hessian.batch_product(0, vectors).norm(dim=1) / vectors.norm(dim=1)
    assert (known["radius"] >= first).all()
    largest = largest_radius(case, solver.batch_size)
    assert known["radius"].max() <= largest * (1 + TOLERANCE[case.dtype])


@functools.cache
def largest_radius(case: Case, batch_size: int) -> float:
    """Return the largest spectral radius of a batch's Hessian, once per case."""
    hessian = Hessian(case.loss(), case.checkpoints[-1], case.train, batch_size)
    return max(spectral_radii(hessian))


def spectral_radii(hessian: Hessian) -> list[float]:
    """Return the spectral radius of each batch's Hessian."""
    identity = torch.eye(n_parameters(hessian.params), dtype=hessian.batches[0][0].dtype)
    matrices = (hessian.batch_product(b, identity) for b in range(len(hessian.batches)))
    return [torch.linalg.eigvalsh((m + m.T) / 2).abs().max().item() for m in matrices]


class Batches:
    """Stands in for a Hessian of which every batch's matrix is given."""

    name = "Hessian"
    vectors_at_once = 2

    def __init__(self, matrices: list[Tensor]) -> None:
        self.matrices = matrices
        self.batches = [(None, torch.zeros(8))] * len(matrices)

    def batch_product(self, batch: int, vectors: Tensor) -> Tensor:
        """Return the products of vectors (K, P) with a batch's matrix."""
        return vectors @ self.matrices[batch]


def symmetric(eigenvalues: list[float]) -> Tensor:
    basis = torch.linalg.qr(torch.randn(len(eigenvalues), len(eigenvalues)).double()).Q
    return basis * torch.tensor(eigenvalues).double() @ basis.T


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("damp", [0.0, 0.01, 0.5])
@pytest.mark.parametrize("n_batches", [1, 2, 5, 12])
def test_no_accepted_scale_of_lissa_turns_a_sign(transpose: bool, damp: float, n_batches: int):
    """Refused soon after the largest eigenvalue; what is accepted has vᵀ M v > 0, as an inverse."""
    hessian = Batches([symmetric([400.0, 90, 7, 0.5, 0.01, -0.01])] * n_batches)
    vectors = torch.randn(8, 6).double()
    accepted = set()
    for scale in (1e-9, 1, 25, 100, 200, 300, 390, 1000, 1e4):
        try:
            found, known = Lissa(damp, scale).solve(hessian, vectors, transpose=transpose)
        except DivergedError as error:
            assert f"--scale {scale:g} is too small" in str(error)
            continue
        accepted.add(scale)
        assert ((found * vectors).sum(1) > 0).all()
        assert known["radius"].max() <= 400 + 1e-9
    assert {1e3, 1e4} <= accepted <= {300, 390, 1e3, 1e4}


@pytest.mark.parametrize("transpose", [False, True])
def test_the_scale_that_lissa_proposes_does(transpose: bool):
    hessian, vectors = Batches([symmetric([9.0, 3, 1])] * 4), torch.randn(3, 3).double()
    says = r"training samples \d+ to \d+ has a spectral radius of [89].*; try --scale"
    with pytest.raises(DivergedError, match=says) as caught:
        Lissa(0.01, 2).solve(hessian, vectors, transpose=transpose)
    Lissa(0.01, float(str(caught.value).split()[-1])).solve(hessian, vectors, transpose=transpose)


@pytest.mark.parametrize("transpose", [False, True])
def test_lissa_refuses_to_grow_along_negative_curvature(transpose: bool):
    """A tenth of the radius that a single product may have, but forty times."""
    hessian = Batches([torch.diag(torch.tensor([1.0, -10])).double()] * 40)
    vectors = torch.ones(2, 2).double()
    with pytest.raises(DivergedError, match="negative the recursion grows"):
        Lissa(0.01, 100).solve(hessian, vectors, transpose=transpose)
    Lissa(0.01, 1e4).solve(hessian, vectors, transpose=transpose)


def test_lissa_of_a_vector_of_zeros():
    vectors = torch.zeros(1, 2).double()
    found, known = Lissa().solve(Batches([torch.eye(2).double()] * 3), vectors, transpose=True)
    assert found.tolist() == [[0, 0]]
    assert known["growth"].tolist() == known["radius"].tolist() == [0]


def test_the_growth_of_lissa_where_the_hessian_has_no_effect():
    vectors = torch.ones(1, 2).double()
    hessian = Batches([torch.zeros(2, 2).double()] * 3)
    for transpose in (False, True):
        _, known = Lissa(damp=0.0).solve(hessian, vectors, transpose=transpose)
        assert known["growth"].tolist() == pytest.approx([4])


def test_the_damping_of_lissa_is_below_1():
    with pytest.raises(UserError, match="--damp is 1: .* below 1"):
        Lissa(damp=1)


def test_what_solvers_say():
    known = {"growth": torch.tensor([3.0, 4]), "radius": torch.tensor([5.0, 9.9])}
    says = Lissa(0.01).describe(known)
    assert says.startswith("growth 3 to 4, ")
    assert says.endswith("Hessians 9.9 or more, so that --scale has to be above 10")
    known = {"curvature": torch.tensor([-0.2, -0.2]), "condition": torch.tensor([30.0, 30])}
    assert Exact(0.3).describe(known) == "condition of H + damp I up to 30"
    assert "with --damp above 0.2 is it positive definite" in Exact(0.1).describe(known)
    known = {"residual": torch.tensor([0.5, 1e-4]), "curvature": torch.tensor([-0.2, 1])}
    assert "largest 5.0e-01; 50.0% of the systems" in ConjugateGradient(0.3).describe(known)
    assert "with --damp above 0.2 are" in ConjugateGradient(0.1).describe(known)


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
    assert relative_error(solution @ matrix, vectors) < TOLERANCE[case.dtype]
    spectrum = torch.linalg.eigvalsh(matrix)
    tolerance = TOLERANCE[case.dtype]
    smallest = spectrum[0].item() - damp
    assert known["curvature"].tolist() == pytest.approx([smallest] * 3, abs=tolerance)
    condition = (spectrum.abs().max() / spectrum.abs().min()).item()
    assert known["condition"].tolist() == pytest.approx([condition] * 3, rel=10 * tolerance)


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


class Matrix:
    """Stands in for a Hessian that is a given matrix."""

    name = "Hessian"

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix

    def dense(self) -> Tensor:
        """Return the matrix."""
        return self.matrix.clone()

    def product(self, vectors: Tensor) -> Tensor:
        """Return the products of vectors (K, P) with it."""
        return vectors @ self.matrix


@pytest.mark.parametrize(
    ("eigenvalues", "damp"),
    [([3.0, 1, 0], 0.0), ([3.0, 1, 1e-17], 0.0), ([3.0, 1, -0.5], 0.5), ([0.0, 0, 0], 0.0)],
)
def test_exact_refuses_a_singular_matrix(eigenvalues: list[float], damp: float):
    matrix, vectors = torch.diag(torch.tensor(eigenvalues).double()), torch.ones(2, 3).double()
    with pytest.raises(DivergedError, match=rf"singular: with --damp {damp:g} .* well above"):
        Exact(damp).solve(Matrix(matrix), vectors, transpose=True)


def test_cg_refuses_a_vector_of_zeros_as_a_solution():
    """Of the second system no iterate is better than the start, and its scores would be 0."""
    matrix = torch.diag(torch.tensor([1.0, -1]).double())
    vectors = torch.tensor([[1.0, 0], [1, 1]]).double()
    with pytest.raises(DivergedError, match="of 1 of 2 systems .* curvature 0: use a larger"):
        ConjugateGradient(damp=0.0).solve(Matrix(matrix), vectors, transpose=True)


@pytest.mark.parametrize("solver", [ConjugateGradient(), Exact()], ids=["cg", "exact"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_products_that_are_not_finite_are_refused(solver: Solver, value: float):
    matrix = torch.eye(2).double()
    matrix[1, 1] = value
    with pytest.raises(DivergedError, match="not finite"):
        solver.solve(Matrix(matrix), torch.ones(1, 2).double(), transpose=True)


def test_cg_of_a_vector_that_is_not_finite_is_refused():
    vectors = torch.tensor([[torch.nan, 1]]).double()
    with pytest.raises(DivergedError, match="not finite"):
        ConjugateGradient().solve(Matrix(torch.eye(2).double()), vectors, transpose=True)
