"""Stacks of perceptrons against one network at a time, by autograd."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import nn

from src.fragility import descent
from src.fragility.descent import cross_entropy_objective, flat, unflat, values_and_gradients
from src.kernels.library import are_there, without_kernels
from tests import reference
from tests.fragility.networks import data, flat_parameters, layers_of, perceptron
from tests.tools import relative_error

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh}
needs_kernels = pytest.mark.skipif(not are_there(torch.float64), reason="needs a C++ compiler")
LEFT_OUT = [None, 3, 0, 10, 3]


@pytest.mark.parametrize("kernels", [pytest.param(True, marks=needs_kernels), False])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("depth", [0, 1, 3])
def test_descent_is_that_of_each_network_alone(activation, depth, kernels, monkeypatch):
    monkeypatch.setattr(descent, "MEMBERS_AT_ONCE", 2)  # which does not divide 5
    models = [perceptron(seed, depth, ACTIVATIONS[activation]) for seed in range(5)]
    layers = layers_of(models)
    before = flat(layers)
    objective = cross_entropy_objective(data(), 3, LEFT_OUT, 0.02, activation)
    done = []
    with contextlib.nullcontext() if kernels else without_kernels():
        found = descent.descend(layers, objective, [(0.3, 12), (0.03, 8)], done.append)
    expected = [
        reference.descended(
            reference.descended(model, data(), j, 0.02, 0.3, 12), data(), j, 0.02, 0.03, 8
        )
        for model, j in zip(models, LEFT_OUT, strict=True)
    ]
    assert relative_error(flat(found), flat_parameters(expected)) < 1e-9
    assert torch.equal(flat(layers), before)  # those given stay as they are
    assert done == [2, 2, 1]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_values_and_gradients_are_those_of_autograd(activation):
    models = [perceptron(seed, 2, ACTIVATIONS[activation]) for seed in range(5)]
    objective = cross_entropy_objective(data(), 3, LEFT_OUT, 0.02, activation)
    naive = [
        reference.objective_without(model, data(), j, 0.02)
        for model, j in zip(models, LEFT_OUT, strict=True)
    ]
    layers = layers_of(models)
    found, slopes = values_and_gradients(layers, objective)
    assert relative_error(found, torch.stack(naive).detach()) < 1e-12
    expected = [
        torch.cat([g.flatten() for g in torch.autograd.grad(value, list(model.parameters()))])
        for value, model in zip(naive, models, strict=True)
    ]
    assert relative_error(slopes, torch.stack(expected)) < 1e-12


def test_layers_go_to_rows_in_the_order_of_torch_and_back():
    models = [perceptron(seed, 2, nn.ReLU) for seed in range(3)]
    layers = layers_of(models)
    assert torch.equal(flat(layers), flat_parameters(models))
    for again, layer in zip(unflat(flat(layers), layers), layers, strict=True):
        assert torch.equal(again, layer)
