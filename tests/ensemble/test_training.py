"""The trainer of a stack: weights, optimiser state, losses that are not finite."""

from __future__ import annotations

import copy

import pytest
import torch

from src.ensemble.members import repeat, stack
from src.ensemble.optimizer import OptimizerSettings
from src.ensemble.training import Trainer
from src.errors import UserError
from src.experiments import parse_experiment
from tests import reference
from tests.conftest import Case
from tests.tools import relative_error


def test_settings_of_an_experiment():
    experiment = parse_experiment("cnn2_mnist3_10pc")
    settings = OptimizerSettings.of(experiment, 30)
    assert (settings.learning_rate, settings.weight_decay) == (1e-3, 5e-3)
    group = settings.optimizer({"p": torch.zeros(1, requires_grad=True)}).param_groups[0]
    assert (group["betas"], group["eps"]) == ((0.9, 0.999), 1e-8)
    assert not group["amsgrad"]
    assert not group["decoupled_weight_decay"]


def test_weighted_steps_of_members_equal_steps_of_models(together: bool):
    """Any weights, not only 0 and 1; the batch mean divides by the batch's size all the same."""
    case = Case(7, 3)
    weights = torch.rand(2, 7, dtype=torch.float64)
    batches = [torch.tensor([0, 4, 2]), torch.tensor([6, 1]), torch.tensor([3])]
    trainer = Trainer(
        case.loss(together=together), stack(case.checkpoints), case.train, case.optimizer, weights
    )
    sums = torch.stack([trainer.step(batch) for batch in batches])
    inputs, labels = case.data[0]
    for m, model in enumerate(copy.deepcopy(case.models)):
        optimizer = reference.adam(model)
        for i, batch in enumerate(batches):
            losses = torch.nn.functional.cross_entropy(
                model(inputs[batch]), labels[batch], reduction="none"
            )
            optimizer.zero_grad()
            ((losses * weights[m, batch]).sum() / len(batch)).backward()
            optimizer.step()
            assert sums[i, m].item() == pytest.approx((losses * weights[m, batch]).sum().item())
        params, state = trainer.state_of_member(m)
        for name, parameter in model.named_parameters():
            assert relative_error(params[name], parameter.detach()) < 1e-9
        for i, expected in optimizer.state_dict()["state"].items():
            for key in ("step", "exp_avg", "exp_avg_sq"):
                assert relative_error(state["state"][i][key], expected[key]) < 1e-9


def test_the_mean_loss_of_an_epoch_counts_samples_not_batches():
    case = Case(7, 3)
    still = OptimizerSettings(learning_rate=0.0, weight_decay=0.0)
    trainer = Trainer(case.loss(), stack(case.checkpoints), case.train, still)
    schedule = [[torch.arange(5), torch.arange(5, 7)]]
    (found,) = trainer.epochs(schedule)
    expected = [reference.mean_loss(model, case.data[0]).item() for model in case.models]
    assert found.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_training(bad: float):
    case = Case(4, 2)
    train = case.train
    train.images = train.images.clone()
    train.images[2, 0, 0, 0] = bad
    members = repeat(case.checkpoints[0], 2)
    before = {name: p.clone() for name, p in members.items()}
    trainer = Trainer(case.loss(), members, train, case.optimizer)
    with pytest.raises(UserError, match="not finite; nothing was saved"):
        trainer.step(torch.arange(4))
    assert all(torch.equal(members[name], before[name]) for name in before)
