"""The proximal Bregman response against its definition."""

from __future__ import annotations

import copy

import torch
from torch import nn

from src.ensemble.members import PerSampleLoss, trainable
from src.fragility.descent import descend, flat, values_and_gradients
from src.fragility.influence import parameter_changes
from src.fragility.response import bregman_objective, minimise
from src.tda.gauss_newton import GaussNewton
from src.tda.solvers.exact import Exact
from tests import reference
from tests.fragility.networks import data, flat_parameters, layers_of, perceptron
from tests.tools import relative_error, samples

DECAY = 0.3  # so that there is one minimum
REMOVED = [2, 7, 0]


def curvature(model: nn.Module) -> torch.Tensor:
    """Return G + λI of a model."""
    train = samples(data())
    matrix = GaussNewton(PerSampleLoss(model), trainable(model), train, len(train)).dense()
    return matrix + DECAY * torch.eye(len(matrix)).double()


def test_the_objective_is_that_of_the_definition():
    theta = perceptron(1, 2, nn.Tanh)
    models = [perceptron(seed, 2, nn.Tanh) for seed in (2, 3, 4)]
    objective = bregman_objective(layers_of([theta]), data(), REMOVED, DECAY, "tanh")
    naive = [
        reference.bregman(model, theta, data(), j, DECAY)
        for model, j in zip(models, REMOVED, strict=True)
    ]
    at_theta = torch.stack([reference.bregman(theta, theta, data(), j, DECAY) for j in REMOVED])
    value, slopes = values_and_gradients(layers_of(models), objective)
    found = value - values_and_gradients(objective.anchor, objective)[0]
    assert relative_error(found, (torch.stack(naive) - at_theta).detach()) < 1e-12
    expected = [
        torch.cat([g.flatten() for g in torch.autograd.grad(value, list(model.parameters()))])
        for value, model in zip(naive, models, strict=True)
    ]
    assert relative_error(slopes, torch.stack(expected)) < 1e-12


def test_the_response_is_where_descent_of_the_definition_ends():
    theta = perceptron(1, 1, nn.Tanh)
    objective = bregman_objective(layers_of([theta]), data(), REMOVED, DECAY, "tanh")
    found, norms = minimise(objective, curvature(theta), 200)
    assert norms.max() < 1e-7
    ended = []
    for j in REMOVED:
        model = copy.deepcopy(theta)
        for _ in range(200):
            reference.perceptron_step(model, reference.bregman(model, theta, data(), j, DECAY), 0.5)
        ended.append(model)
    start = flat_parameters([theta])
    assert relative_error(found - start, flat_parameters(ended) - start) < 1e-6
    fast = flat(descend(objective.anchor, objective, [(0.5, 200)]))  # a stack with an anchor
    assert relative_error(fast - start, flat_parameters(ended) - start) < 1e-9


def test_the_first_step_is_influence_with_the_gauss_newton_matrix():
    theta = perceptron(1, 2, nn.ReLU)
    objective = bregman_objective(layers_of([theta]), data(), REMOVED, DECAY, "relu")
    found, _ = minimise(objective, curvature(theta), 1)
    train = samples(data())
    expected, _ = parameter_changes(
        PerSampleLoss(theta),
        trainable(theta),
        train,
        train.at(torch.tensor(REMOVED)),
        Exact(DECAY, 4),
        GaussNewton,
    )
    assert relative_error(found - flat_parameters([theta]), expected) < 1e-9


def test_what_is_at_a_kink_ends_there():
    theta = perceptron(1, 2, nn.ReLU)
    objective = bregman_objective(layers_of([theta]), data(), REMOVED, DECAY, "relu")
    found, norms = minimise(objective, curvature(theta), 2_000)
    assert torch.equal(found, minimise(objective, curvature(theta), 4_000)[0])
    assert norms.max() > 1e-6
