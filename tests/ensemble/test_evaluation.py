"""Losses and accuracies of members."""

from __future__ import annotations

import pytest
import torch

from src.ensemble.evaluation import evaluate, fit_of
from src.ensemble.members import stack
from tests import reference
from tests.conftest import Case
from tests.tools import relative_error


@pytest.mark.parametrize("training", [False, True])
def test_losses_are_those_of_eval_mode(together: bool, training: bool):
    case = Case(3, 70, dropout=0.5)
    loss = case.loss(together=together)
    loss.model.train(training)
    found = evaluate(loss, stack(case.checkpoints), case.test)
    expected = torch.tensor(
        [
            [reference.sample_loss(model, case.data[1], z).item() for z in range(70)]
            for model in case.models
        ],
        dtype=torch.float64,
    )
    assert relative_error(found, expected) < 1e-9
    assert loss.model.training == training
    assert not found.requires_grad


def test_accuracy():
    case = Case(3, 70, dropout=0.5)
    inputs, labels = case.data[1]
    model = case.models[-1].eval()
    expected = sum(model(inputs[i : i + 1]).argmax().item() == labels[i].item() for i in range(70))
    assert fit_of(case.loss(), case.checkpoints[-1], case.test)["accuracy"] == pytest.approx(
        expected / 70
    )
