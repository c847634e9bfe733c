"""Representer points against a plain refit by Newton's method with a dense Hessian."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from src.ensemble.members import PerSampleLoss, State, squared_error, state_of
from src.errors import DivergedError, UserError
from src.experiments import Paths, parse_experiment
from src.tda.estimator import Draws
from src.tda.representer import (
    Objective,
    RepresenterPoints,
    features,
    last_layer,
    refit,
    representer_points,
)
from tests import reference
from tests.conftest import DIGITS, Case
from tests.models.test_vit import (  # noqa: F401  fixtures for all tests of the module
    VitCase,
    _attention_in_float64,
    _softmax_in_full_precision,
)
from tests.tda.test_any_network import MIXING, N_TEST, N_TRAIN, NETWORKS, Work
from tests.tools import TOLERANCE, call, call_well, relative_error, samples

EXPERIMENT = parse_experiment(DIGITS)


def scores_of(
    loss: PerSampleLoss,
    state: State,
    *splits: tuple[Tensor, Tensor],
    scored: list[int] | None = None,
    l2: float = 3e-3,
) -> Tensor:
    """Return the scores (n_scored, n_test), of a layer that was refitted to rounding."""
    train, test = map(samples, splits)
    rows = torch.arange(len(train)) if scored is None else torch.tensor(scored)
    scores, known = representer_points(loss, state, train, test, rows, l2=l2)
    assert known["gradient_norm"] < 1e-12
    return scores


@pytest.mark.parametrize("l2", [3e-3, 0.1])
@pytest.mark.parametrize(
    "case", [Case(7, 5), Case(1, 3), Case(4, 1), Case(7, 5, torch.float32)], ids=str
)
def test_all_pairs(case: Case, l2: float):
    model = case.models[1]
    expected = case.matrix(reference.representer(model, model.fc2, *case.data, case.pairs, l2))
    found = scores_of(case.loss(), case.checkpoints[1], *case.data, l2=l2)
    assert relative_error(found, expected) < TOLERANCE[case.dtype]


LAST = {"layer norm": "2", "batch norm": "4", "lstm": "head", "logistic regression": ""}


@pytest.mark.parametrize("name", LAST)
def test_other_networks(name: str):
    """With a bias, behind other layers and alone."""
    work = Work(*(NETWORKS | MIXING)[name], torch.float64)
    model, state = work.plain[-1].model, work.checkpoints[-1]
    pairs = [(j, z) for j in range(N_TRAIN) for z in range(N_TEST)]
    layer = model.get_submodule(LAST[name])
    expected = reference.representer(model, layer, work.train, work.test, pairs)
    assert last_layer(work.loss(), state, samples(work.train)) == LAST[name]
    found = scores_of(work.loss(), state, work.train, work.test)
    assert relative_error(found, expected.reshape(N_TRAIN, N_TEST)) < 1e-9


def test_vit():
    vit = VitCase(torch.float64)
    model, loss, state = vit.models[1], vit.loss(), vit.checkpoints[1]
    layer = model.peft.base_model.model.classifier.modules_to_save["default"]
    expected = vit.matrix(reference.representer(model, layer, *vit.data, vit.pairs))
    assert last_layer(loss, state, vit.samples[0]).endswith("classifier.modules_to_save.default")
    found, _ = representer_points(loss, state, *vit.samples, torch.arange(vit.n_train), l2=3e-3)
    assert relative_error(found, expected) < 1e-9


def test_the_refitted_layer_is_the_sum_of_its_points():
    """Σ_j α_jy f_jᵀ f_z is its logit of class y: what the method is named for."""
    case, l2 = Case(9, 6), 3e-3
    loss, state = case.loss(), case.checkpoints[1]
    of_train, outputs, weights = features(loss, state, case.train, "fc2")
    of_test, _, _ = features(loss, state, case.test, "fc2")
    assert torch.equal(weights, state["fc2.weight"])
    fitted = refit(Objective(of_train, outputs.softmax(1), l2), weights)
    logits = (of_test @ fitted.T)[torch.arange(6), case.test.labels]
    assert relative_error(scores_of(loss, state, *case.data).sum(0), logits) < 1e-9


def test_a_refit_from_far_away_ends_where_one_from_nearby_does():
    """Where the softmax is saturated the Hessian is nearly 0 and a whole step leads far away."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    features, weights = normal(30, 20), normal(4, 20)
    objective = Objective(features, (features @ weights.T).softmax(1), l2=1e-5)
    near, far = (refit(objective, start) for start in (weights, 50 * weights + 10 * normal(4, 20)))
    assert objective.gradient(far).norm() < 1e-13
    assert relative_error(far, near) < 1e-8


def test_rows_of_some_samples():
    case, some = Case(9, 4), [1, 5, 6]
    loss, state = case.loss(), case.checkpoints[0]
    rows = scores_of(loss, state, *case.data, scored=some)
    assert relative_error(rows, scores_of(loss, state, *case.data)[some]) < 1e-12


def test_a_layer_whose_weight_is_parametrised():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), parametrizations.weight_norm(nn.Linear(4, 2)))
    model.double()
    train, test = ((torch.randn(n, 3).double(), torch.arange(n) % 2) for n in (6, 4))
    found = scores_of(PerSampleLoss(model), state_of(model), train, test)
    pairs = [(j, z) for j in range(6) for z in range(4)]
    expected = reference.representer(model, model[2], train, test, pairs)
    assert relative_error(found, expected.reshape(6, 4)) < 1e-9


def test_features_that_are_not_finite():
    with pytest.raises(DivergedError, match="not finite"):
        refit(Objective(torch.full((3, 2), torch.inf), torch.ones(3, 2) / 2, 1.0), torch.ones(2, 2))


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Linear(3, 2), nn.Tanh()),
        nn.Sequential(nn.Conv1d(1, 2, 3), nn.Flatten()),
    ],
)
def test_networks_without_a_last_linear_layer(model: nn.Module):
    shape = (4, 1, 3) if isinstance(model[0], nn.Conv1d) else (4, 3)
    data = samples((torch.randn(shape), torch.arange(4) % 2))
    with pytest.raises(UserError, match="Sequential: representer points .* no linear layer's"):
        last_layer(PerSampleLoss(model), state_of(model), data)


@pytest.mark.parametrize(
    ("criterion", "labels", "says"),
    [
        (squared_error, torch.rand(4), "speeds has values"),
        (squared_error, torch.arange(4), "speeds has another criterion"),
    ],
)
def test_other_tasks(criterion: Callable, labels: Tensor, says: str):
    setup = SimpleNamespace(
        experiment=SimpleNamespace(task=SimpleNamespace(name="speeds")),
        loss=PerSampleLoss(nn.Linear(1, 1), criterion),
        train=samples((torch.rand(4, 1), labels)),
    )
    with pytest.raises(UserError, match=says):
        RepresenterPoints()(Draws(setup, 446, []))


def test_by_the_script(digits_root, copy_of: Callable):
    root = copy_of(digits_root)
    arguments = "--root", root, "--experiment", DIGITS, "--method", "representer"
    out = call_well("run_estimators", *arguments, "--train_samples", 6, "--seed_id", 0)
    assert "remaining gradient norm of the refitted last layer at most " in out
    path = Paths(root).scores(EXPERIMENT, "representer", 446)
    content = torch.load(path, weights_only=True)
    assert content["scores"].shape == (5, 6, 300)
    assert content["settings"]["representer_l2"] == 3e-3
    assert content["gradient_norm"].shape == content["agreement"].shape == (5,)
    assert content["gradient_norm"].max() < 1e-10 < content["gradient_norm_before"].min()
    other = (*arguments, "--train_samples", 6, "--seed_id", 0)
    call("run_estimators", *other, "--representer_l2", 0.1).check_refused("representer_l2 is 0.003")
    call("run_estimators", *other, "--representer_l2", 0).check_refused("above 0")
