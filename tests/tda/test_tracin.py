"""TracIn against a plain training with one backward pass for each sample of each pair and step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from src.ensemble.draws import Draw, shuffled_epochs
from src.ensemble.members import Params, PerSampleLoss
from src.ensemble.optimizer import OptimizerSettings
from src.errors import UserError
from src.experiments import Paths, parse_experiment
from src.tda.pieces import PartialFile
from src.tda.tracin import TracIn, traced
from tests import reference
from tests.conftest import DIGITS, Case
from tests.models.test_vit import (  # noqa: F401  fixtures for all tests of the module
    SEED,
    PlainPeft,
    VitCase,
    _attention_in_float64,
    _softmax_in_full_precision,
    random_vit,
)
from tests.tda.test_any_network import MIXING, N_TEST, N_TRAIN, NETWORKS, Work
from tests.tools import TOLERANCE, call, call_well, relative_error, samples, tree

FORMS = ["steps", "epochs"]
EXPERIMENT = parse_experiment(DIGITS)


def scores_of(
    case: Case,
    scored: list[int] | None = None,
    *,
    chunk_size: int = 4,
    optimizer: OptimizerSettings | None = None,
    **options: object,
) -> Tensor:
    """Return scores (C, n_scored, n_test), and check that the training is the plain one."""
    procedure, plain = case.procedure(), case.checkpoints
    start = Draw(case.seed, case.seed).start(case.build)  # the batch order's draws come next
    epochs = traced(
        replace(procedure, optimizer=optimizer or case.optimizer),
        start,
        case.test,
        torch.tensor([*range(case.n_train)] if scored is None else scored),
        chunk_size=chunk_size,
        **options,
    )
    total, kept = 0.0, []
    for epoch, (state, increment) in enumerate(epochs):
        total = total + increment
        if epoch in case.kept_epochs:
            kept.append(total)
            if optimizer is None:
                for name, p in plain[len(kept) - 1].items():
                    assert relative_error(state[name], p) < TOLERANCE[case.dtype]
    return torch.stack(kept)


def expected_of(case: Case, **options: bool) -> Tensor:
    """Return the naive scores (C, n_train, n_test)."""
    return case.matrix(
        reference.tracin(
            *(case.build, *case.data, case.pairs, case.seed, case.n_epochs),
            *([*case.kept_epochs], case.batch_size),
            **options,
        )
    )


@pytest.mark.parametrize("at", FORMS)
@pytest.mark.parametrize("case", [Case(11, 4), Case(1, 2), Case(7, 3, torch.float32)], ids=str)
def test_all_pairs(case: Case, at: str):
    expected = expected_of(case, by_epochs=at == "epochs")
    for chunk_size in (1, 3, 100):
        found = scores_of(case, at=at, chunk_size=chunk_size)
        assert relative_error(found, expected) < TOLERANCE[case.dtype]


@pytest.mark.parametrize("at", FORMS)
def test_gradients_without_dropout_in_a_training_with_it(at: str):
    case = Case(7, 3, dropout=0.5)
    assert relative_error(scores_of(case, at=at), expected_of(case, by_epochs=at == "epochs")) < (
        1e-9
    )


@pytest.mark.parametrize("at", FORMS)
def test_a_learning_rate_that_decays(at: str):
    case = Case(7, 3)
    decaying = replace(case.optimizer, decay_steps=2 * case.n_epochs)
    expected = expected_of(case, by_epochs=at == "epochs", decay=True)
    assert relative_error(scores_of(case, at=at, optimizer=decaying), expected) < 1e-9


@pytest.mark.parametrize("at", FORMS)
def test_rows_of_some_samples(at: str):
    case, some = Case(11, 3), [2, 7, 10]
    assert relative_error(scores_of(case, some, at=at), scores_of(case, at=at)[:, some]) < 1e-12


def test_a_measure_of_test_samples():
    case = Case(7, 3)
    # Of twice the loss a test sample's gradient is twice that of the loss.
    twice = PerSampleLoss(
        case.loss().model, lambda o, y: 2 * nn.functional.cross_entropy(o, y, reduction="none")
    )
    found = scores_of(case, measure=twice)
    assert relative_error(found, 2 * scores_of(case)) < 1e-9


@pytest.mark.parametrize("name", ["layer norm", "lstm", "batch norm", "batch norm and dropout"])
def test_other_networks(name: str):
    work = Work(*(NETWORKS | MIXING)[name], torch.float64)
    pairs = [(j, z) for j in range(N_TRAIN) for z in range(N_TEST)]
    expected = reference.tracin(work.build, work.train, work.test, pairs, 7, 2, [1], 5)
    epochs = traced(
        replace(work.procedure(), optimizer=Case(1, 1).optimizer),
        work.start(),
        samples(work.test),
        torch.arange(N_TRAIN),
        chunk_size=3,
    )
    found = sum(scores for _, scores in epochs)
    assert relative_error(found, expected.reshape(N_TRAIN, N_TEST)) < 1e-9


@pytest.mark.parametrize("at", ["steps", pytest.param("epochs", marks=pytest.mark.slow)])
def test_vit(at: str):
    """With dropout in training, and a learning rate that decays."""
    vit = VitCase(torch.float64)
    given = vit.procedure(), vit.start(), vit.samples[1], torch.arange(vit.n_train)
    epochs = traced(*given, chunk_size=3, at=at)
    found = sum(scores for _, scores in epochs)
    expected = reference.tracin(
        lambda: PlainPeft(random_vit(8)).double(),
        *(*vit.data, vit.pairs, SEED, vit.n_epochs, [3], vit.batch_size),
        by_epochs=at == "epochs",
        decay=True,
    )
    assert relative_error(found, vit.matrix(expected[0])) < 1e-9


def test_going_on_from_an_epoch():
    case = Case(7, 3)
    start = Draw(case.seed, case.seed).start
    procedure = replace(case.procedure(), n_epochs=3)

    def increments(first_epoch: int) -> list[Tensor | None]:
        given = procedure, start(case.build), case.test, torch.arange(7)
        return [s for _, s in traced(*given, chunk_size=9, first_epoch=first_epoch)]

    whole, rest = increments(0), increments(2)
    assert rest[:2] == [None, None]
    assert torch.equal(rest[2], whole[2])


def test_gradients_of_random_crops_leave_the_draws_of_the_training():
    case = Case(7, 3, dropout=0.5)
    train = case.train
    train.transform = lambda images: images + torch.randn(len(images), 1, 1, 1)
    procedure = replace(case.procedure(), samples=train, n_epochs=2)

    def end(first_epoch: int) -> Params:
        start = Draw(case.seed, case.seed).start(case.build)
        given = procedure, start, case.test, torch.arange(7)
        return [*traced(*given, chunk_size=9, first_epoch=first_epoch)][-1][0]

    without_gradients = end(2)
    for name, p in end(0).items():
        assert torch.equal(p, without_gradients[name])


def test_there_is_no_other_form():
    with pytest.raises(UserError, match="tracin_at is 'batches': choose from steps, epochs"):
        TracIn("batches")


@pytest.fixture
def arguments(digits_root, copy_of: Callable) -> tuple:
    """Arguments of the script on a root of its own."""
    root = copy_of(digits_root)
    return "--root", root, "--experiment", DIGITS, "--method", "tracin", "--train_samples", 6


def test_by_the_script(arguments: tuple, monkeypatch: pytest.MonkeyPatch):
    root, path = arguments[1], Paths(arguments[1]).scores(EXPERIMENT, "tracin", 446)
    out = call_well("run_estimators", *arguments, "--seed_id", 0)
    assert "the training, repeated, is at its checkpoints to " in out
    content, written = torch.load(path, weights_only=True), tree(path.parent)
    assert content["scores"].shape == (5, 6, 300)
    assert content["settings"]["tracin_at"] == "steps"
    assert content["difference"].shape == (5,)
    assert content["difference"].max() < 1e-4
    # Up to a later epoch there are further steps.
    assert (content["scores"].diff(dim=0) != 0).any(2).all()
    other = call("run_estimators", *arguments, "--seed_id", 0, "--tracin_at", "epochs")
    other.check_refused("tracin_at is steps, now epochs")

    path.unlink()
    add = PartialFile.add

    def add_and_stop(self: PartialFile, piece: object) -> None:
        add(self, piece)
        if len(self.done) == 12:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PartialFile, "add", add_and_stop)
        assert call("run_estimators", *arguments, "--seed_id", 0).code == 130
    result = call("run_estimators", *arguments, "--seed_id", 0)
    assert "going on from 12 of 15 epochs" in result.err
    assert tree(path.parent) == written
    assert root.exists()


def test_by_epochs_by_the_script(arguments: tuple):
    call_well("run_estimators", *arguments, "--seed_id", 0, "--tracin_at", "epochs")
    path = Paths(arguments[1]).scores(EXPERIMENT, "tracin", 446)
    assert torch.load(path, weights_only=True)["settings"]["tracin_at"] == "epochs"
    call("run_estimators", *arguments, "--tracin_at", "x").check_refused("invalid choice: 'x'")


def test_checkpoints_of_another_training(arguments: tuple, monkeypatch: pytest.MonkeyPatch):
    def without_five(*args: int) -> list:
        return [[positions[:-5] for positions in batches] for batches in shuffled_epochs(*args)]

    monkeypatch.setattr("src.ensemble.procedure.shuffled_epochs", without_five)
    call("run_estimators", *arguments, "--seed_id", 1).check_refused(
        "tracin seed 724", "after epoch 10", "these checkpoints are of another training"
    )


def test_given_checkpoints(arguments: tuple, tmp_path: Path):
    root, given = arguments[1], [tmp_path / f"{epoch}.pt" for epoch in range(10, 15)]
    for epoch, path in enumerate(given, 10):
        checkpoint = torch.load(Paths(root).checkpoint(EXPERIMENT, 446, epoch), weights_only=True)
        torch.save({n: 1.1 * p for n, p in checkpoint["model_state_dict"].items()}, path)
    call_well(
        *("run_cnn_training", "--root", root, "--experiment", DIGITS, "--seed_id", 3),
        *("--checkpoints", *given),
    )
    refused = call("run_estimators", *arguments, "--seed_id", 3)
    refused.check_refused("its training cannot be repeated")
    assert "continue" not in refused.err
