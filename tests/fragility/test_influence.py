"""Predicted changes against the inverse Hessian by autograd, and retraining of a convex loss."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from src.ensemble.members import PerSampleLoss, trainable
from src.fragility.compare import agreement
from src.fragility.descent import (
    cross_entropy_objective,
    descend,
    flat,
    to_stack,
    values_and_gradients,
)
from src.fragility.influence import (
    lissa,
    loss_changes,
    parameter_changes,
    repeated,
    stable_lissa_changes,
)
from src.fragility.iris_measurement import iris
from src.tda.solvers.exact import Exact
from tests import reference
from tests.fragility.networks import data, perceptron
from tests.tools import relative_error, samples

REMOVED = torch.tensor([4, 0, 9])


def test_changes_are_those_of_the_inverse_hessian():
    model, train, test = perceptron(3, 1, nn.Tanh), samples(data()), samples(data(2))
    given = PerSampleLoss(model), trainable(model), train, train.at(REMOVED)
    found, _ = parameter_changes(*given, Exact(0.1, 4))
    matrix = reference.hessian(model, data()) + 0.1 * torch.eye(found.shape[1]).double()
    slopes = reference.gradients(model, data())[REMOVED]
    expected = torch.linalg.solve(matrix, slopes.T).T / len(train)
    assert relative_error(found, expected) < 1e-9
    found, _ = loss_changes(*given, test, Exact(0.1, 4))
    assert relative_error(found, expected @ reference.gradients(model, data(2)).T) < 1e-9


def logistic_regression(decay: float) -> tuple:
    """Return iris's samples and the minimum of logistic regression on them, a stack of one."""
    train = iris(torch.device("cpu"))
    start = [torch.zeros(1, 3, 5).double()]
    objective = cross_entropy_objective(train[:], 3, [None], decay, "relu")
    optimum = descend(start, objective, [(1.0, 20_000)])
    assert values_and_gradients(optimum, objective)[1].norm() < 1e-13
    return train, optimum


@pytest.mark.parametrize(("decay", "share", "slope"), [(0.3, 1.0, 0.02), (0.05, 0.1, 0.005)])
def test_influence_predicts_retraining_where_the_loss_is_convex(decay, share, slope):
    """Of the whole of a sample, and of a share of it, where the second order is smaller."""
    train, optimum = logistic_regression(decay)
    model = nn.Sequential(nn.Linear(4, 3)).double()
    params = {name: p[0] for name, p in to_stack(optimum, trainable(model)).items()}
    loss = PerSampleLoss(model)
    test = train.at(loss(params, *train[:]).argmax()[None])
    given = loss, params, train, train
    predicted, _ = loss_changes(*given, test, Exact(decay, 150))
    of_parameters, _ = parameter_changes(*given, Exact(decay, 150))
    whole = cross_entropy_objective(train[:], 3, [None] * 150, decay, "relu")
    without = cross_entropy_objective(train[:], 3, [*range(150)], decay, "relu")
    objective = replace(
        whole,
        kept=torch.lerp(whole.kept, without.kept, share),
        targets=torch.lerp(whole.targets, without.targets, share),
    )
    retrained = descend([optimum[0].expand(150, -1, -1)], objective, [(1.0, 2_000)])
    assert values_and_gradients(retrained, objective)[1].norm(dim=1).max() < 1e-10
    actual = loss.of_members(to_stack(retrained, params), *test[:]) - loss(params, *test[:])
    norms = (flat(retrained) - flat(optimum)).norm(dim=1)
    for one, other in (
        (predicted[:, 0], actual.detach()[:, 0]),
        (of_parameters.norm(dim=1), norms),
    ):
        fit = agreement(share * one.numpy(), other.numpy())
        assert fit["pearson"] > 0.999
        assert fit["slope"] == pytest.approx(1, abs=slope)


def test_lissa_comes_to_the_exact_inverse_and_raises_a_scale_that_is_too_small():
    train, optimum = logistic_regression(0.5)
    model = nn.Sequential(nn.Linear(4, 3)).double()
    params = {name: p[0] for name, p in to_stack(optimum, trainable(model)).items()}
    given = PerSampleLoss(model), params, train, train.at(torch.tensor([70, 133]))
    expected, _ = parameter_changes(*given, Exact(0.5, 150))
    # Batches of all samples: the recursion of the mean loss's own Hessian.
    recursion = train.at(torch.arange(150).repeat(60))
    found, _ = parameter_changes(*given, lissa(0.5, 4.0, 150), recursion=recursion)
    assert relative_error(found, expected) < 1e-3
    found, scale = stable_lissa_changes(
        *given, damp=0.5, scale=0.6, n_steps=100, batch_size=20, seed=1
    )
    assert scale > 0.6
    assert relative_error(found, expected) < 0.2  # batches are random


def test_batches_of_a_recursion_are_drawn_by_the_seed():
    train = samples(data())
    first, again, other = (repeated(train, 7, 3, seed).indices for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(first) == 21
    assert np.isin(first, np.arange(11)).all()
