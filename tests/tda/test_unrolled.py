"""Unrolled differentiation against a training whose graph is kept and differentiated backwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from src.data.pixel_values import PixelValues
from src.data.samples import Samples
from src.ensemble.draws import Draw
from src.ensemble.members import PerSampleLoss, state_of
from src.ensemble.optimizer import OptimizerSettings
from src.ensemble.procedure import Procedure
from src.ensemble.retraining import retrain
from src.errors import UserError
from src.experiments import Paths, parse_experiment
from src.tda.loo import NOTHING, leave_one_out
from src.tda.score_files import load_scores_of
from src.tda.unrolled import CHANGE, finite_differences, numerical_floor, unrolled
from tests import reference
from tests.conftest import DIGITS, Case
from tests.models.test_vit import VitCase
from tests.tda.test_any_network import MIXING, NETWORKS, Work
from tests.tools import TOLERANCE, call, call_well, relative_error, samples


def training_of(case: Case) -> list:
    """Return a case's retraining from its initialisation."""
    draw = Draw(case.seed, case.seed)
    return retrain(lambda: draw.start(case.build), case.kept_epochs)[0]


def scores_of(case: Case, scored: list[int], chunk_size: int) -> Tensor:
    """Return scores (C, len(scored), n_test)."""
    given = case.procedure(), training_of(case), scored, case.test
    chunks = [*unrolled(*given, chunk_size=chunk_size)]
    assert max(chunk.shape[1] for chunk in chunks) <= chunk_size
    return torch.cat(chunks, 1)


def expected_scores(case: Case) -> Tensor:
    """Return the naive scores (C, n_train, n_test)."""
    training = case.seed, case.n_epochs, list(case.kept_epochs), case.batch_size
    return case.matrix(reference.unrolled(case.build, *case.data, case.pairs, *training))


@pytest.fixture(scope="module")
def expected(case: Case) -> Tensor:
    """The naive scores, once per case."""
    return expected_scores(case)


@pytest.mark.parametrize("chunk_size", [6, 100])
def test_all_pairs(case: Case, expected: Tensor, chunk_size: int):
    found = scores_of(case, [*range(case.n_train)], chunk_size)
    assert relative_error(found, expected) < TOLERANCE[case.dtype]


def test_chosen_samples_come_in_the_given_order():
    case = Case(7, 5)
    found = scores_of(case, [6, 0], 2)
    assert relative_error(found, expected_scores(case)[:, [6, 0]]) < 1e-9


@pytest.mark.parametrize("chunk_size", [1, 3, 100])
def test_masks_are_those_of_the_training(chunk_size: int):
    case = Case(7, 5, dropout=0.3)
    found = scores_of(case, [*range(7)], chunk_size)
    assert relative_error(found, expected_scores(case)) < 1e-9


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "spectral norm"])
def test_networks(name: str):
    """Of all kinds, against trainings with a weight changed by very little, in float64."""
    work = Work(*NETWORKS[name], torch.float64)
    given, test = (work.procedure(), retrain(work.start, (0, 1))[0]), samples(work.test)
    probes = torch.tensor([0, 5])
    found = unrolled(*given, probes.tolist(), test, chunk_size=2)
    slopes, _ = finite_differences(*given, probes, test, change=1e-6)
    assert relative_error(next(found), slopes) < 1e-4


@pytest.mark.parametrize("crops", [False, True])
def test_vit_with_dropout_in_its_adapters(crops: bool):
    vit = VitCase(torch.float64)
    # The one that is written out computes its softmax in float32.
    vit.backbone.model.config._attn_implementation = "sdpa"
    train, test = vit.samples  # not cropped, as every evaluation would be otherwise
    crop = PixelValues((8, 8), random_crop=crops)
    train = Samples(train.images, train.labels, train.indices, crop)
    given = (
        replace(vit.procedure(), samples=train, n_epochs=2),
        retrain(vit.start, (0, 1))[0],
    )
    probes = torch.tensor([0, 5, 10])
    chunks = unrolled(*given, probes.tolist(), test, chunk_size=2)
    slopes, _ = finite_differences(*given, probes, test, change=1e-6)
    assert relative_error(torch.cat([*chunks], 1), slopes) < 1e-4


def test_other_masks_than_those_of_the_training_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("src.tda.tangents.set_generators", lambda *_: None)
    case = Case(7, 5, dropout=0.3)
    with pytest.raises(UserError, match="random layers draw other numbers in second derivatives"):
        scores_of(case, [0], 1)


@pytest.mark.parametrize("name", [*MIXING, "spectral norm"])
def test_training_that_is_more_than_weights_is_refused(name: str):
    work = Work(*(MIXING | NETWORKS)[name], torch.float64)
    given = work.procedure(), retrain(work.start, (0, 1))[0], [0], samples(work.test)
    with pytest.raises(UserError, match="unrolled does not apply; run_loo.py does"):
        next(unrolled(*given, chunk_size=2))


OPTIMIZERS = {
    "adam": OptimizerSettings(1e-2, 5e-3),
    "adam, decaying": OptimizerSettings(1e-2, 5e-3, decay_steps=12),
    "adam without decay": OptimizerSettings(1e-2, 0.0),
    "adamw": OptimizerSettings(1e-2, 0.1, "adamw"),
    "sgd": OptimizerSettings(0.1, 1e-2, "sgd"),
    "momentum": OptimizerSettings(0.1, 1e-2, "sgd", momentum=0.9),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_those_of_torch(name: str):
    settings = OPTIMIZERS[name]
    weights = torch.randn(3, 4, dtype=torch.float64)
    theirs = weights.clone().requires_grad_()
    steps = settings.optimizer({"": theirs})
    moments = (torch.zeros_like(weights),) * settings.n_moments
    for number in range(1, 6):
        theirs.grad = torch.randn_like(weights)
        theirs.grad[0] = 0  # a parameter that nothing moves
        rate = {"number": number, "learning_rate": settings.learning_rate}
        weights, *moments = settings.step(weights, theirs.grad, *moments, **rate)
        steps.step()
        assert relative_error(weights, theirs.detach()) < 1e-13


class Momentum:
    """SGD with momentum; torch's own cuts the graph at the first step's gradient."""

    def __init__(self, params: list[Tensor], settings: OptimizerSettings) -> None:
        self.params, self.settings = params, settings
        self.buffers = [torch.zeros_like(p) for p in params]

    def step(self) -> None:
        for i, p in enumerate(self.params):
            gradient = p.grad + self.settings.weight_decay * p.clone()
            self.buffers[i] = self.settings.momentum * self.buffers[i] + gradient
            p.sub_(self.settings.learning_rate * self.buffers[i])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name: str):
    case, settings = Case(7, 5), OPTIMIZERS[name]
    common = {
        "lr": settings.learning_rate,
        "weight_decay": settings.weight_decay,
        "differentiable": True,
    }

    def optimizer(params: list[Tensor]) -> torch.optim.Optimizer | Momentum:
        if settings.momentum:
            return Momentum(params, settings)
        if settings.name == "sgd":
            return torch.optim.SGD(params, **common)
        kind = torch.optim.Adam if settings.name == "adam" else torch.optim.AdamW
        return kind(params, **common)

    training = case.seed, case.n_epochs, list(case.kept_epochs), case.batch_size
    naive = reference.unrolled(
        case.build, *case.data, case.pairs, *training, optimizer, settings.schedule
    )
    procedure = replace(case.procedure(), optimizer=settings)
    (found,) = unrolled(procedure, training_of(case), [*range(7)], case.test, chunk_size=7)
    assert relative_error(found, case.matrix(naive)) < 1e-9


def test_a_parameter_without_gradient_has_derivatives():
    """The derivative of Adam's square root at 0 is not infinite, nor not a number."""

    def build() -> nn.Module:
        model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3)).double()
        nn.init.zeros_(model[0].weight)
        return model

    inputs = torch.randn(6, 4, dtype=torch.float64)
    inputs[:, 0] = 0
    data = samples((inputs, torch.arange(6) % 3))

    def start() -> dict[str, Tensor]:
        torch.manual_seed(1)
        return state_of(build())

    (found,) = unrolled(
        Procedure(PerSampleLoss(build()), data, OptimizerSettings(1e-2, 0.0), 3, n_epochs=3),
        retrain(start, (0, 2))[0],
        [*range(6)],
        data,
        chunk_size=6,
    )
    assert found.isfinite().all()
    assert (found.diagonal(dim1=1, dim2=2) > 0).all()


def test_regularised_logistic_regression_is_leave_one_out():
    """Trained to convergence, where one of many samples changes little."""
    rng = torch.Generator().manual_seed(0)
    inputs = torch.randn(140, 4, generator=rng, dtype=torch.float64)
    labels = (inputs[:, 0] + torch.randn(140, generator=rng) > 0).long()
    train, test = samples((inputs[:120], labels[:120])), samples((inputs[120:], labels[120:]))
    optimizer = OptimizerSettings(0.5, 0.1, "sgd", momentum=0.5)
    loss = PerSampleLoss(nn.Linear(4, 2).double())
    procedure = Procedure(loss, train, optimizer, batch_size=120, n_epochs=60)

    def start() -> dict[str, Tensor]:
        torch.manual_seed(0)
        return state_of(nn.Linear(4, 2).double())

    retraining = retrain(start, (58, 59))
    found = next(unrolled(procedure, retraining[0], [*range(12)], test, chunk_size=100))
    assert relative_error(found[0], found[1]) < 1e-3  # converged
    # It compares with checkpoints. Any will do, since their losses are taken off again.
    given = procedure, [start()] * 2, retraining, [*range(12), NOTHING], test
    scores = next(leave_one_out(*given, chunk_size=100))[1]
    scores = scores[:-1] - scores[-1]
    assert np.corrcoef(found[1].flatten(), scores.flatten())[0, 1] > 0.999
    assert relative_error(found[1], scores) < 0.1


def test_the_floor_is_measured():
    case = Case(7, 5)
    probes = torch.tensor([0, 6])
    slopes = finite_differences(case.procedure(), training_of(case), probes, case.test)
    found = scores_of(case, probes.tolist(), 2)
    base = torch.stack(
        [case.loss()(p, case.test.images, case.test.labels) for p in case.checkpoints]
    )
    floor = numerical_floor(found, slopes, base)
    assert {key: value.shape for key, value in floor.items()} == {
        "floor": (2, 2),
        "floor_of_rounding": (2, 2),
    }
    assert floor["floor_of_rounding"].max() < 1e-9
    assert 0 < floor["floor"].max() < 1  # Adam's steps, of a change that is not infinitesimal
    doubled = numerical_floor(2 * slopes[0], slopes, base + CHANGE)
    assert doubled["floor"] == pytest.approx(1)
    norm = slopes[0].norm(dim=2)
    assert doubled["floor_of_rounding"] == pytest.approx(5**0.5 / 2 / norm, rel=1e-6)


def test_by_the_script(digits_root: Path, copy_of: Callable[[Path], Path]):
    root, experiment = copy_of(digits_root), parse_experiment(DIGITS)
    arguments = ("--root", root, "--experiment", DIGITS, "--train_samples", 4, "--seed_id", 0)
    command = ("run_estimators", *arguments, "--method", "unrolled")
    assert "(relative) from trainings with a weight changed by" in call_well(*command)
    content = load_scores_of(Paths(root), experiment, "unrolled", 446, 0)
    assert content["scores"].shape == (5, 4, 300)
    assert content["floor"].shape == content["floor_of_rounding"].shape == (5, 2)
    loo = load_scores_of(Paths(root), experiment, "loo", 446, 0)
    rows = torch.isin(loo["train_idx"], content["train_idx"])
    pairs = content["scores"][1].flatten(), loo["scores"][1, rows].flatten()
    assert np.corrcoef(*pairs)[0, 1] > 0.8
    assert "finished before" in call_well(*command)
    call(*command, "--chunk_size", 0).check_refused("chunk_size")
