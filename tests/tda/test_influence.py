"""Influence functions against a solve per pair, and against leave-one-out where both are exact."""

from __future__ import annotations

import copy
import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import linregress, pearsonr
from sklearn.datasets import load_digits
from torch import Tensor, nn

from src.ensemble.members import PerSampleLoss, trainable
from src.tda.influence import influence
from src.tda.solvers import Solver
from src.tda.solvers.conjugate_gradient import ConjugateGradient
from src.tda.solvers.exact import Exact
from src.tda.solvers.lissa import Lissa
from tests import reference
from tests.conftest import Case
from tests.tools import TOLERANCE, relative_error, samples

DAMP = 0.3  # the Hessian of a network is not positive definite; with this on its diagonal it is


def scores_of(case: Case, solver: Solver, chunk_size: int) -> tuple[Tensor, Tensor | None]:
    """Return the scores (n_train, n_test) at the last checkpoint."""
    return influence(
        case.loss(), case.checkpoints[-1], case.train, case.test, solver, chunk_size=chunk_size
    )


@functools.cache
def expected_lissa(case: Case, damp: float, scale: float) -> Tensor:
    """Return the naive scores (n_pairs,), once per case."""
    return reference.influence_lissa(case.models[-1], *case.data, case.pairs, damp, scale)


@functools.cache
def expected_exact(case: Case) -> Tensor:
    """Return the naive scores (n_pairs,), once per case."""
    return reference.influence_exact(case.models[-1], *case.data, case.pairs, DAMP)


@pytest.mark.parametrize("solver", [Lissa(), Lissa(damp=0.05, scale=10)], ids=str)
def test_lissa(case: Case, solver: Lissa, chunk_size: int):
    """The reference runs LiSSA on every test gradient, whichever side is the smaller one."""
    expected = expected_lissa(case, solver.damp, solver.scale)
    found, known = scores_of(case, solver, chunk_size)
    n_solved = min(case.n_train, case.n_test)
    assert {name: len(values) for name, values in known.items()} == {
        "growth": n_solved,
        "radius": n_solved,
    }
    assert relative_error(found, case.matrix(expected)) < TOLERANCE[case.dtype]


@pytest.mark.parametrize(
    "solver",
    [Exact(DAMP), ConjugateGradient(DAMP, tolerance=1e-11, max_iterations=1000)],
    ids=["exact", "cg"],
)
def test_inverse(case: Case, solver: Solver, chunk_size: int):
    if case.dtype == torch.float32 and isinstance(solver, ConjugateGradient):
        solver = replace(solver, tolerance=1e-6)
    expected = expected_exact(case)
    found, known = scores_of(case, solver, chunk_size)
    assert relative_error(found, case.matrix(expected)) < TOLERANCE[case.dtype]
    if isinstance(solver, ConjugateGradient):
        residual = known["residual"]
        assert residual.shape == (min(case.n_train, case.n_test),)
        assert (residual < 10 * solver.tolerance).all()


def test_cg_of_scipy():
    case = Case(5, 6)
    expected = reference.influence_cg(case.models[-1], *case.data, case.pairs, DAMP)
    found, _ = scores_of(case, ConjugateGradient(DAMP, 1e-12, 1000), 4)
    assert relative_error(found, case.matrix(expected)) < 1e-9


def test_at_the_published_scale_lissa_is_grad_dot():
    """Why the other solvers are there: the published setting does not see the Hessian."""
    case = Case(19, 7)
    dot = reference.grad_dot(case.models[-1], *case.data, case.pairs)
    found, _ = scores_of(case, Lissa(), 100)
    assert pearsonr(found.flatten(), dot).statistic < -0.9999


# Regularised logistic regression on digits: retraining is cheap, the optimum unique. θ minimises
# (1/n) Σ L(z_i) + λ/2 |θ|². Without z_j the sum loses a term and keeps 1/n, so to first order
# θ_∖j − θ = (H + λ I)⁻¹ g(z_j) / n, and the loss of z moves by g(z)ᵀ (H + λ I)⁻¹ g(z_j) / n:
# leave-one-out is −IF / n, sign and scale included.
N_TRAIN, N_TEST, RIDGE = 150, 50, 0.1
LEFT_OUT = list(range(0, N_TRAIN, 3))


def fit(data: reference.Data, start: nn.Linear, left_out: int | None = None) -> nn.Linear:
    """Return the logistic regression at its optimum, with a sample left out or none."""
    inputs, labels = data
    weights = torch.ones(len(labels), dtype=torch.float64)
    if left_out is not None:
        weights[left_out] = 0
    model = copy.deepcopy(start)
    optimizer = torch.optim.LBFGS(
        model.parameters(),
        max_iter=1000,
        tolerance_grad=1e-9,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        losses = F.cross_entropy(model(inputs), labels, reduction="none") * weights
        penalty = sum(p.square().sum() for p in model.parameters())
        value = losses.sum() / len(labels) + RIDGE / 2 * penalty
        value.backward()
        return value

    optimizer.step(objective)
    objective()
    assert max(p.grad.abs().max() for p in model.parameters()) < 1e-7
    return model


@pytest.mark.parametrize(
    "solver",
    [
        Exact(RIDGE),
        pytest.param(ConjugateGradient(RIDGE, tolerance=1e-8), marks=pytest.mark.slow),
    ],
    ids=["exact", "cg"],
)
def test_converged_influence_predicts_leave_one_out(solver: Solver):
    model, train, test, left_out = convex_case()
    scores, _ = influence(
        PerSampleLoss(model), trainable(model), samples(train), samples(test), solver, chunk_size=64
    )
    predicted = -scores[LEFT_OUT].numpy() / N_TRAIN
    assert pearsonr(predicted.ravel(), left_out.ravel()).statistic > 0.99
    assert linregress(predicted.ravel(), left_out.ravel()).slope == pytest.approx(1, abs=0.15)


@functools.cache
def convex_case() -> tuple[nn.Linear, reference.Data, reference.Data, np.ndarray]:
    """Return model, training and test data, and leave-one-out scores (len(LEFT_OUT), N_TEST)."""
    digits = load_digits()
    chosen = np.random.default_rng(0).permutation(len(digits.target))[: N_TRAIN + N_TEST]
    inputs = torch.from_numpy(digits.data[chosen]) / 16
    labels = torch.from_numpy(digits.target[chosen]).long()
    train, test = (inputs[:N_TRAIN], labels[:N_TRAIN]), (inputs[N_TRAIN:], labels[N_TRAIN:])

    def losses(model: nn.Linear) -> Tensor:
        return F.cross_entropy(model(test[0]), test[1], reduction="none").detach()

    model = fit(train, nn.Linear(64, 10).double())
    left_out = [losses(fit(train, model, j)) - losses(model) for j in LEFT_OUT]
    return model, train, test, np.stack(left_out)
