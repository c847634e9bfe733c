"""TRAK against features of one sample at a time, and what its projection is."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from src.ensemble.members import PerSampleLoss, n_parameters, state_of
from src.errors import DivergedError, UserError
from src.experiments import Paths, parse_experiment
from src.storage.files import load
from src.tda import trak as module
from src.tda.score_files import score_command
from src.tda.trak import log_odds, projection, require_logits, solve_gram, trak
from tests import reference
from tests.conftest import DIGITS, Case
from tests.models.test_vit import VitCase
from tests.tda.test_any_network import MIXING, NETWORKS, Work
from tests.tools import TOLERANCE, call, call_well, relative_error, samples

SEED, DIM = 7, 5
OPTIONS = {"dim": DIM, "damp": 1e-2, "seed": SEED}


def matrix_of(n: int, dim: int = DIM) -> Tensor:
    """Return P (k, P)."""
    return torch.cat([*projection(n, dim, SEED)]).T.double() / dim**0.5


@functools.cache
def expected_scores(case: Case) -> Tensor:
    """Return the naive scores (n_pairs,), once per case."""
    p = matrix_of(n_parameters(case.checkpoints[-1]))
    return reference.trak(case.models[-1], *case.data, case.pairs, p, 1e-2)


def test_all_pairs(case: Case, chunk_size: int):
    """With fewer samples than dimensions, and with more."""
    odds = PerSampleLoss(case.loss().model, log_odds)
    odds.model.train()  # it is computed in eval mode all the same
    given = odds, case.checkpoints[-1], case.train, case.test, torch.arange(case.n_train)
    found = trak(*given, chunk_size=chunk_size, **OPTIONS)
    assert relative_error(found, case.matrix(expected_scores(case))) < TOLERANCE[case.dtype]


def test_the_kernel_is_of_all_training_samples(monkeypatch: pytest.MonkeyPatch):
    """Some rows are those of all; blocks of P of another size are another P, of the same shape."""
    case, rows = Case(11, 13), torch.tensor([9, 2])
    given = PerSampleLoss(case.build(), log_odds), case.checkpoints[-1], case.train, case.test
    every = trak(*given, torch.arange(11), chunk_size=4, **OPTIONS)
    assert relative_error(trak(*given, rows, chunk_size=4, **OPTIONS), every[rows]) < 1e-12
    monkeypatch.setattr(module, "BLOCK", 3 * DIM)
    p = matrix_of(n_parameters(case.checkpoints[-1]))
    assert p.shape == (DIM, n_parameters(case.checkpoints[-1]))
    expected = reference.trak(case.models[-1], *case.data, case.pairs, p, 1e-2)
    found = trak(*given, torch.arange(11), chunk_size=4, **OPTIONS)
    assert relative_error(found, case.matrix(expected)) < 1e-9


NAMES = ("mlp", "layer norm", "own parameter", "embedding", "lstm", "frozen layer", "batch norm")


@pytest.mark.parametrize("name", NAMES)
def test_networks(name: str):
    work = Work(*(NETWORKS | MIXING)[name], torch.float64)
    state, model = work.checkpoints[-1], work.plain[-1].model
    odds = PerSampleLoss(work.loss().model, log_odds)
    train, test = samples(work.train), samples(work.test)
    found = trak(odds, state, train, test, torch.arange(len(train)), chunk_size=3, **OPTIONS)
    pairs = [(j, z) for j in range(len(train)) for z in range(len(test))]
    p = matrix_of(n_parameters(odds.parameters(state)))
    expected = reference.trak(model, work.train, work.test, pairs, p, 1e-2)
    assert relative_error(found, expected.reshape(found.shape)) < 1e-9


def test_vit():
    vit = VitCase(torch.float64)
    params, (train, test) = vit.checkpoints[1], vit.samples
    odds = PerSampleLoss(vit.loss().model, log_odds)
    found = trak(odds, params, train, test, torch.arange(len(train)), chunk_size=4, **OPTIONS)
    p = matrix_of(n_parameters(params))
    expected = reference.trak(vit.models[1], *vit.data, vit.pairs, p, 1e-2)
    # Attention's softmax is one of float32.
    assert relative_error(found, vit.matrix(expected)) < 1e-4


def test_projection():
    p = matrix_of(20_000, 64)
    assert p.mean().item() == pytest.approx(0, abs=1e-3)
    assert p.square().mean().item() == pytest.approx(1 / 64, rel=0.01)
    kurtosis = p.pow(4).mean() / p.square().mean() ** 2
    assert kurtosis.item() == pytest.approx(3, rel=0.02)  # of a normal distribution
    v = torch.randn(20_000, dtype=torch.float64)
    assert (p @ v).square().sum().item() == pytest.approx(v.square().sum().item(), rel=0.5)
    state = torch.get_rng_state()
    assert matrix_of(30).equal(matrix_of(30))
    assert torch.get_rng_state().equal(state)
    others = torch.cat([*projection(30, DIM, SEED + 1)]).T / DIM**0.5
    assert not matrix_of(30).equal(others)
    blocks = [*projection(3 * module.BLOCK // 512, 512, SEED)]
    assert max(block.numel() for block in blocks) <= module.BLOCK
    assert len(blocks) == 3
    assert not blocks[0].equal(blocks[1])


def test_log_odds_keep_their_digits():
    logits = torch.tensor([[40.0, 0.0, -1.0], [40.0, 0.0, -1.0], [0.3, 0.1, 0.2]])
    labels = torch.tensor([0, 1, 2])
    p = logits.double().softmax(1)[torch.arange(3), labels]
    rest = logits.double().softmax(1).masked_fill(nn.functional.one_hot(labels, 3) > 0, 0).sum(1)
    assert relative_error(log_odds(logits, labels), (p / rest).log()) < 1e-6


def test_a_sample_that_helps_itself():
    """The kernel is positive definite: with itself a sample's score is positive."""
    case = Case(6, 6)
    odds = PerSampleLoss(case.build(), log_odds)
    given = odds, case.checkpoints[-1], case.train, case.train, torch.arange(6)
    assert (trak(*given, chunk_size=6, **OPTIONS).diagonal() > 0).all()


def test_what_has_no_solution():
    features = torch.randn(3, 6)
    assert not solve_gram(torch.zeros(3, 6), features, 0.1).any()
    with pytest.raises(DivergedError, match="larger --trak_damp than 1e-30"):
        solve_gram(features, features, 1e-30)
    with pytest.raises(DivergedError, match="not finite"):
        solve_gram(features / 0, features, 0.1)


@pytest.mark.parametrize(
    ("n_outputs", "targets", "says"),
    [
        (2, torch.randn(4, 2), "no meaning for values"),
        (1, torch.tensor([0, 1, 1, 0]), r"each of 2 classes: the model gives outputs \[1, 1\]"),
        (2, torch.tensor([0, 1, 2, 0]), "each of 3 classes"),
    ],
)
def test_what_are_no_logits_is_refused(n_outputs: int, targets: Tensor, says: str):
    loss = PerSampleLoss(nn.Linear(3, n_outputs))
    with pytest.raises(UserError, match=says) as refused:
        require_logits(loss, state_of(loss.model), samples((torch.randn(4, 3), targets)))
    assert "\n" not in str(refused.value)


VALUES = """
import torch
from src.experiments import register_model, register_task

register_task(
    "own",
    lambda: {"pool": (torch.randn(30, 3), torch.randn(30, 1))},
    n_per_class=10,
    n_test_per_class=10,
    epochs=5,
)
register_model("line", lambda task: torch.nn.Linear(3, 1))
"""


def test_values_by_the_script(tmp_path: Path):
    """TRAK says that it has no meaning, and EK-FAC has."""
    define, root = tmp_path / "own.py", tmp_path / "root"
    define.write_text(VALUES)
    given = ("--root", root, "--define", define)
    call_well("run_subset_generation", *given, "--task", "own")
    given += ("--experiment", "line_own_10pc", "--seed_id", 0)
    call_well("run_cnn_training", *given)
    call("run_estimators", *given, "--method", "trak").check_refused("no meaning for values")
    assert "damping Linear" in call_well("run_estimators", *given, "--method", "ekfac")


def test_by_the_script(digits_root: Path, copy_of: Callable[[Path], Path]):
    root, experiment = copy_of(digits_root), parse_experiment(DIGITS)
    given = ("run_estimators", "--root", root, "--experiment", DIGITS, "--seed_id", 0)
    small = (*given, "--method", "trak", "--train_samples", 4, "--trak_dim", 8)
    call_well(*small)
    assert "finished before" in call_well(*small)
    content = load(Paths(root).scores(experiment, "trak", 446), "")
    assert content["scores"].shape == (5, 4, 300)
    command = score_command(Paths(root), experiment, "trak", 0, content["settings"])
    assert "--method trak" in command
    assert "--trak_dim 8 --trak_damp 0.001" in command
    call(*small, "--trak_damp", 0.2).check_refused("trak_damp is 0.001, now 0.2")
    call(*small[:-1], "8.5").check_refused("not a whole number of at least 1")
    call(*given, "--method", "noise", "--trak_dim", 9).check_refused("without --method trak")
