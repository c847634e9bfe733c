"""Checkpoints that are given in place of a training, through the scripts."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from src.ensemble.draws import load_seeds
from src.experiments import Paths, parse_experiment
from src.reports.overview import _what_was_run
from src.reports.scores import load_scores
from src.storage.files import load
from src.storage.locks import lock
from tests.conftest import DIGITS
from tests.tools import call, call_well, tree

EXPERIMENT = parse_experiment(DIGITS)
EPOCHS = EXPERIMENT.kept_epochs
SEEDS = load_seeds()

State = dict[str, Tensor]


def states(digits_root: Path, seed_id: int) -> list[State]:
    """Return the parameters of a seed that was trained."""
    paths = [Paths(digits_root).checkpoint(EXPERIMENT, SEEDS[seed_id], e) for e in EPOCHS]
    return [torch.load(path, weights_only=True)["model_state_dict"] for path in paths]


def write(folder: Path, contents: list[object]) -> list[Path]:
    """Save one file for each of some contents."""
    folder.mkdir(exist_ok=True)
    files = [folder / f"{i}.pth" for i in range(len(contents))]
    for file, content in zip(files, contents, strict=True):
        torch.save(content, file)
    return files


@pytest.fixture
def root(digits_root: Path, tmp_path: Path) -> Path:
    """A root with samples and nothing else."""
    shutil.copytree(digits_root / "data", tmp_path / "root" / "data")
    return tmp_path / "root"


@pytest.fixture
def files(digits_root: Path, tmp_path: Path) -> list[Path]:
    """Files with the state dicts of seed_id 1."""
    return write(tmp_path / "given", states(digits_root, 1))


def give(root: Path, files: list[Path], *further: object) -> tuple[object, ...]:
    """Return the call that gives files as the checkpoints of seed_id 0."""
    start = ("run_cnn_training", "--root", root, "--experiment", DIGITS, "--seed_id", 0)
    return (*start, "--checkpoints", *files, *further)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model_state_dict": state, "optimizer_state_dict": {}, "loss": 0.1},
        lambda state: {name: nn.Parameter(p) for name, p in reversed(state.items())},
    ],
    ids=["plain", "state_dict", "model_state_dict", "parameters"],
)
def test_the_files_become_the_checkpoints(digits_root: Path, root: Path, wrap: Callable):
    given = states(digits_root, 1)
    files = write(root / "given", [wrap(state) for state in given])
    out = call_well(*give(root, files))
    assert f"models/{DIGITS}/446: given, accuracy on train 100.0%, on test 9" in out
    for epoch, state in zip(EPOCHS, given, strict=True):
        content = load(Paths(root).checkpoint(EXPERIMENT, SEEDS[0], epoch), "")
        assert list(content["model_state_dict"]) == list(state)
        assert all(content["model_state_dict"][name].equal(p) for name, p in state.items())
        assert content["settings"]["origin"] == "given"
        assert not {"optimizer_state_dict", "loss"} & set(content)


def test_scores_are_those_of_the_same_parameters(
    digits_root: Path, root: Path, monkeypatch: pytest.MonkeyPatch
):
    call_well(*give(root, write(root / "given", states(digits_root, 0))))
    args = ("--root", root, "--experiment", DIGITS, "--seed_id", 0)
    call_well("run_gd_and_gc", *args)
    found, expected = (
        torch.load(Paths(r).scores(EXPERIMENT, "gd", SEEDS[0]), weights_only=True)
        for r in (root, digits_root)
    )
    assert found["scores"].equal(expected["scores"])
    assert found["settings"]["origin"] == "given"

    before = tree(root)
    call("run_loo", *args).check_refused(
        f"models/{DIGITS}/446 was given by --checkpoints",
        f"train here with: python run_cnn_training.py --experiment {DIGITS} --seed_id 0",
        f"python run_loo.py --experiment {DIGITS} --seed_id 0 --protocol continue",
    )
    assert tree(root) == before
    monkeypatch.setattr(
        "src.tda.loo.leave_one_out", lambda *_, **__: iter([torch.ones(5, 31, 300)])
    )
    call_well("run_loo", *args, "--protocol", "continue")


def test_hyperparameters_of_the_steps_that_start_from_them(
    digits_root: Path, root: Path, monkeypatch: pytest.MonkeyPatch
):
    """Parameters that were trained here say by themselves which they were trained with."""
    files = write(root / "given", states(digits_root, 0))
    call_well(*give(root, files))
    args = ("--root", root, "--experiment", DIGITS, "--seed_id", 0)
    call_well("run_gd_and_gc", *args)
    settings = type(EXPERIMENT).training_settings
    monkeypatch.setattr(
        type(EXPERIMENT), "training_settings", lambda e: settings(e) | {"learning_rate": 0.1}
    )
    refused = call("run_gd_and_gc", *args)
    refused.check_refused("learning_rate is 0.001, now 0.1", "--checkpoints FILE ... --root")
    call_well(*give(root, files, "--overwrite"))
    call("run_gd_and_gc", *args).check_refused("hyperparameters is ")


def test_given_again(digits_root: Path, root: Path, files: list[Path], tmp_path: Path):
    call_well(*give(root, files))
    before = tree(root)
    assert call_well(*give(root, files)).endswith("446: finished before\n")
    others = write(tmp_path / "others", states(digits_root, 2))
    call(*give(root, others)).check_refused(
        "ckpt_epoch_10.pt holds other parameters than were given", f"{others[0]}", "--overwrite"
    )
    call(*give(root, [*files[:4], others[4]])).check_refused("ckpt_epoch_14.pt holds other")
    call(*give(root, [])[:7]).check_refused("446/ckpt_epoch_10.pt was given, not trained here")
    assert tree(root) == before
    assert "446: given" in call_well(*give(root, others, "--overwrite"))
    assert tree(root) != before


def test_one_that_is_missing_is_written_again(root: Path, files: list[Path]):
    call_well(*give(root, files))
    before = tree(root)
    Paths(root).checkpoint(EXPERIMENT, SEEDS[0], 12).unlink()
    assert "446: given" in call_well(*give(root, files))
    assert tree(root) == before


def test_what_was_trained_here_stays(digits_root: Path, files: list[Path]):
    before = tree(digits_root)
    call(*give(digits_root, files)).check_refused("446/ckpt_epoch_10.pt was trained here, not")
    call(*give(digits_root, files, "--overwrite")).check_refused(
        f"{files[4]} holds the parameters that seed_id 1 has"
    )
    assert tree(digits_root) == before


def test_no_two_seeds_are_given_the_same(root: Path, files: list[Path]):
    start = ("run_cnn_training", "--root", root, "--experiment", DIGITS, "--checkpoints", *files)
    call_well(*start, "--seed_id", 12)
    before = tree(root)
    call(*start, "--seed_id", 37).check_refused(
        f"{files[4]} holds the parameters that seed_id 12 has"
    )
    assert tree(root) == before


def test_a_seed_that_is_trained_at_the_moment(root: Path, files: list[Path]):
    with lock(Paths(root).training_lock(EXPERIMENT, SEEDS[0])):
        result = call(*give(root, files))
    assert result.code == 3
    assert "is at work on it" in result.err
    assert not list((root / "models").rglob("*.pt"))


def only(key: str, value: Callable[[Tensor], object]) -> Callable[[State], object]:
    """Return what replaces one tensor of a state dict."""
    return lambda state: {**state, key: value(state[key])}


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda _: torch.zeros(3), "holds no state dict, neither by itself nor under"),
        (lambda _: {}, "holds no state dict"),
        (lambda _: {"state_dict": {}}, "holds no state dict"),
        (lambda _: nn.Linear(2, 2), "is damaged, or holds more than tensors and plain values"),
        (
            lambda s: {f"module.{name}": p for name, p in s.items()},
            "no state dict of cnn2: it lacks conv1.weight and 7 more and holds module.conv1.weight "
            "and 7 more, which cnn2 has not",
        ),
        (
            lambda s: {n: p for n, p in s.items() if n != "fc2.bias"},
            "is no state dict of cnn2: it lacks fc2.bias",
        ),
        (
            lambda s: s | {"fc3.bias": torch.zeros(1)},
            "is no state dict of cnn2: it holds fc3.bias, which cnn2 has not",
        ),
        (only("fc2.bias", lambda p: p[:3]), "fc2.bias is float32 [3], where cnn2 on digits3 has "),
        (only("fc2.bias", Tensor.double), "fc2.bias is float64 [10], where cnn2 on digits3 has "),
        (only("fc2.bias", lambda p: p.tolist()), "fc2.bias is no dense tensor"),
        (only("fc2.bias", Tensor.to_sparse), "fc2.bias is no dense tensor"),
        (only("fc2.bias", lambda p: p.to("meta")), "fc2.bias is no dense tensor"),
        (only("fc2.bias", lambda p: p / 0), "10 of 10 values of fc2.bias are not finite"),
    ],
)
def test_wrong_states(
    digits_root: Path, root: Path, tmp_path: Path, spoil: Callable[[State], object], says: str
):
    contents = states(digits_root, 1)
    contents[3] = spoil(contents[3])
    files = write(tmp_path / "given", contents)
    before = tree(root)
    call(*give(root, files)).check_refused(str(files[3]), says)
    assert tree(root) == before


def test_wrong_files(root: Path, files: list[Path], tmp_path: Path):
    before = tree(root)
    for wrong, says in (
        ([*files[:4], tmp_path / "no.pth"], "no.pth does not exist"),
        ([*files[:4], tmp_path], "cannot read"),
        ([*files[:4], files[0]], f"{files[0]} and {files[0]} hold the same parameters"),
    ):
        call(*give(root, wrong)).check_refused(says)
    files[2].write_bytes(files[2].read_bytes()[:5000])
    call(*give(root, files)).check_refused(f"{files[2]} is damaged")
    assert tree(root) == before


def test_given_and_trained_seeds_are_not_one_ensemble(
    digits_root: Path, root: Path, files: list[Path]
):
    """A page of given ones does not say how they were trained."""
    args = ("--root", root, "--experiment", DIGITS)
    call_well(*give(root, files))
    call_well("run_gd_and_gc", *args, "--seed_id", 0)
    shutil.copytree(
        Paths(digits_root).checkpoint(EXPERIMENT, SEEDS[2], 0).parent,
        Paths(root).checkpoint(EXPERIMENT, SEEDS[2], 0).parent,
    )
    call_well("run_gd_and_gc", *args, "--seed_id", 2)
    before = tree(root)
    call("run_correlations", *args, "--allow_missing").check_refused(
        f"gd/{SEEDS[2]}.pt is of checkpoints that were trained here",
        f"run_cnn_training.py --experiment {DIGITS} --seed_id 2 --checkpoints FILE ... --root",
    )
    assert tree(root) == before
    others = write(root / "others", states(digits_root, 2))
    call_well(*(2 if part == 0 else part for part in give(root, others, "--overwrite")))
    call_well("run_gd_and_gc", *args, "--seed_id", 2, "--overwrite")
    facts = _what_was_run(load_scores(Paths(root), EXPERIMENT, allow_missing=True))
    assert facts["checkpoints"] == (
        "5 of each training, which were given: how they were trained is not known here"
    )
    assert not {"optimiser", "epochs", "a seed drives"} & facts.keys()
