"""The Gauss–Newton matrix against a Jacobian per sample, and in the Hessian's place."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from src.ensemble.members import PerSampleLoss, squared_error, trainable
from src.errors import UserError
from src.experiments import Paths, parse_experiment
from src.storage.files import load
from src.tda.gauss_newton import GaussNewton
from src.tda.influence import influence
from src.tda.score_files import score_command
from src.tda.solvers import Solver
from src.tda.solvers.conjugate_gradient import ConjugateGradient
from src.tda.solvers.exact import Exact
from src.tda.solvers.lissa import Lissa
from tests import reference
from tests.conftest import DIGITS, Case
from tests.tda.test_hessian import Opaque, Sine
from tests.tda.test_layers import DTYPES
from tests.tda.test_ways import NETS, data_of
from tests.tools import TOLERANCE, call, call_well, relative_error, samples

DAMP = 1e-2


@functools.cache
def expected_matrix(case: Case) -> Tensor:
    """Return the naive matrix at the last checkpoint, once per case."""
    return reference.gauss_newton(case.models[-1], case.data[0])


def test_products_and_matrix(case: Case):
    loss = case.loss()
    loss.model.train()  # it is that of eval mode all the same
    found = GaussNewton(loss, case.checkpoints[-1], case.train, batch_size=4)
    expected = expected_matrix(case)
    vectors = torch.randn(3, len(expected), dtype=case.dtype)
    assert relative_error(found.dense(), expected) < TOLERANCE[case.dtype]
    assert relative_error(found.product(vectors), vectors @ expected) < TOLERANCE[case.dtype]


def test_no_eigenvalue_is_negative_where_the_hessian_has_one():
    case = Case(11, 2)
    found = GaussNewton(case.loss(), case.checkpoints[-1], case.train, batch_size=4).dense()
    eigenvalues = torch.linalg.eigvalsh(found)
    assert eigenvalues[0] > -1e-12 * eigenvalues[-1]
    hessian = reference.hessian(case.models[-1], case.data[0])
    assert torch.linalg.eigvalsh(hessian)[0] < -1e-3 * eigenvalues[-1]


@DTYPES
@pytest.mark.parametrize("name", [name for name in NETS if name != "reentrant checkpoint"])
def test_products_of_any_network(name: str, dtype: torch.dtype):
    build, shape, _ = NETS[name]
    model, data = build().to(dtype), data_of(shape, 5, dtype)
    found = GaussNewton(PerSampleLoss(copy.deepcopy(model)), trainable(model), samples(data), 3)
    n = sum(p.numel() for p in trainable(model).values())
    vectors = torch.randn(2, n, dtype=dtype)
    with sdpa_kernel(SDPBackend.MATH):
        expected = vectors @ reference.gauss_newton(model, data)
    assert relative_error(found.product(vectors), expected) < TOLERANCE[dtype]


@pytest.mark.parametrize(
    ("middle", "said"), [(nn.Tanh(), []), (Sine(), ["Gauss-Newton products by a second backward"])]
)
def test_the_way_is_said_once(middle: nn.Module, said: list[str], capsys: pytest.CaptureFixture):
    model = nn.Sequential(nn.Linear(6, 4), middle, nn.Linear(4, 3)).double()
    data = data_of((6,), 5, torch.float64)
    loss, params = PerSampleLoss(model), trainable(model)
    vectors = torch.randn(2, 43, dtype=torch.float64)
    for _ in range(2):  # of two checkpoints
        found = GaussNewton(loss, params, samples(data), batch_size=3)
        expected = vectors @ reference.gauss_newton(model, data)
        assert relative_error(found.product(vectors), expected) < 1e-9
    lines = capsys.readouterr().err.splitlines()
    assert [text in line for text, line in zip(said, lines, strict=True)] == [True] * len(said)


def test_a_network_without_second_derivatives_is_refused():
    model = nn.Sequential(nn.Linear(6, 3), Once())
    data = samples(data_of((6,), 5, torch.float32))
    found = GaussNewton(PerSampleLoss(model), trainable(model), data, 5)
    with pytest.raises(UserError, match="no second derivatives"):
        found.product(torch.ones(2, 21))


class Once(nn.Module):
    """A layer that is differentiable once."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x."""
        return Opaque.apply(x)


@pytest.mark.parametrize("middle", [nn.Tanh(), Sine()], ids=["forward mode", "backward passes"])
def test_of_the_squared_error(middle: nn.Module):
    model = nn.Sequential(nn.Linear(6, 4), middle, nn.Linear(4, 2)).double()
    inputs, targets = torch.randn(5, 6).double(), torch.randn(5, 2).double()
    loss = PerSampleLoss(model, squared_error)
    found = GaussNewton(loss, trainable(model), samples((inputs, targets)), batch_size=2).dense()
    rows = [reference.jacobian(model, inputs, i) for i in range(5)]
    assert relative_error(found, sum(j.T @ j for j in rows) / 5) < 1e-9


@pytest.mark.parametrize(
    "solver",
    [Exact(DAMP), ConjugateGradient(DAMP, tolerance=1e-11, max_iterations=1000)],
    ids=["exact", "cg"],
)
def test_influence(case: Case, solver: Solver):
    if case.dtype == torch.float32 and isinstance(solver, ConjugateGradient):
        solver = ConjugateGradient(DAMP, 1e-6, 1000)
    given = case.loss(), case.checkpoints[-1], case.train, case.test, solver
    found, _ = influence(*given, chunk_size=3, curvature=GaussNewton)
    expected = expected_scores(case)
    assert relative_error(found, case.matrix(expected)) < TOLERANCE[case.dtype]


@functools.cache
def expected_scores(case: Case) -> Tensor:
    """Return the naive scores (n_pairs,), once per case."""
    return reference.influence_gauss_newton(case.models[-1], *case.data, case.pairs, DAMP)


def test_lissa_is_a_pass_over_the_batches_matrices():
    case = Case(11, 4)
    given = case.loss(), case.checkpoints[-1], case.train, case.test, Lissa(damp=0.05, scale=10.0)
    found, _ = influence(*given, chunk_size=3, curvature=GaussNewton)
    for z in range(case.n_test):
        v = reference.gradient(case.models[-1], case.data[1], z)
        h = v
        for start in (0, 8):
            batch = tuple(t[start : start + 8] for t in case.data[0])
            h = v + 0.95 * h - reference.gauss_newton(case.models[-1], batch) @ h / 10
        expected = -reference.gradients(case.models[-1], case.data[0]) @ h / 10
        assert relative_error(found[:, z], expected) < 1e-9


def test_by_the_script(digits_root: Path, copy_of: Callable[[Path], Path]):
    root, experiment = copy_of(digits_root), parse_experiment(DIGITS)
    path = Paths(root).scores(experiment, "if", 446)
    given = ("run_if", "--root", root, "--experiment", DIGITS, "--seed_id", 0)
    assert "curvature" not in load(path, "")["settings"]
    assert "finished before" in call_well(*given)  # files of before say nothing of a curvature
    ggn = (*given, "--solver", "cg", "--damp", 1, "--curvature", "ggn", "--train_samples", 3)
    call(*given, "--curvature", "ggn").check_refused("curvature is None, now ggn", "--curvature")
    out = call_well(*ggn, "--overwrite")
    assert "100.0% of the systems reached 0.001" in out
    assert "finished before" in call_well(*ggn)
    settings = load(path, "")["settings"]
    assert settings["curvature"] == "ggn"
    command = score_command(Paths(root), experiment, "if", 0, settings)
    assert "--solver cg" in command
    assert "--curvature ggn" in command
    call(*given, "--train_samples", 3).check_refused("curvature is ggn, now None")
    call(*given, "--curvature", "fisher").check_refused("invalid choice: 'fisher'")
