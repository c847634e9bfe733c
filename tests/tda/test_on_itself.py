"""Scores of the training samples on themselves: what they are, and what the launcher makes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from src.experiments import METHODS, Paths, parse_experiment
from src.launch.jobs import plan
from src.storage.files import load, save
from tests.conftest import DIGITS
from tests.tools import call, call_well, relative_error, tree

EXPERIMENT = parse_experiment(DIGITS)
SCRIPTS = ("run_loo", "run_ats", "run_if", "run_gd_and_gc")
ONE_SEED = ("--experiment", DIGITS, "--seed_id", 0)
FURTHER = ("--method", "trak", "similarity", "inputs", "noise")


def scores_file(paths: Paths, method: str) -> dict:
    return torch.load(paths.scores(EXPERIMENT, method, 446), weights_only=True)


def score(root: Path, scripts: tuple[str, ...], *options: object) -> None:
    for script in scripts:
        further = FURTHER if script == "run_estimators" else ()
        call_well(script, "--root", root, *ONE_SEED, *further, *options)


def with_training_samples_as_test(root: Path) -> None:
    paths = Paths(root)
    train = load(paths.tensors("digits3", "train_10pc"), make="")
    train.pop("checksum", None)
    paths.tensors("digits3", "test").unlink()
    save(paths.tensors("digits3", "test"), {**train, "split": "test"})


@pytest.mark.parametrize(
    ("scripts", "sampled"),
    [
        pytest.param((*SCRIPTS, "run_estimators"), (), id="all", marks=pytest.mark.slow),
        pytest.param(("run_gd_and_gc", "run_ats"), ("--train_samples", 7), id="some"),
    ],
)
def test_they_are_the_scores_of_test_samples_that_are_the_training_samples(
    digits_root: Path, copy_of: Callable[[Path], Path], scripts: tuple, sampled: tuple
):
    root = copy_of(digits_root)
    kept = tree(root / "tda_scores")
    score(root, scripts, "--self", *sampled)
    assert kept.items() <= tree(root / "tda_scores").items()  # beside the others
    on_itself, at = Paths(root, on_itself=True), Paths(root)
    found = {
        m: scores_file(on_itself, m)
        for m in METHODS
        if on_itself.scores(EXPERIMENT, m, 446).exists()
    }
    assert len(found) == (3 if sampled else 9)
    with_training_samples_as_test(root)
    score(root, scripts, "--overwrite", *sampled)
    for method, own in found.items():
        expected = scores_file(at, method)
        assert own["test_idx"].equal(own["train_idx"])
        assert own["scores"].shape == (5, *[sampled[1] if sampled else 30] * 2)
        columns = [expected["test_idx"].tolist().index(i) for i in own["test_idx"].tolist()]
        assert relative_error(own["scores"], expected["scores"][:, :, columns]) < 1e-4
        helps = METHODS[method].helpful_sign * own["scores"].diagonal(dim1=1, dim2=2)
        assert method == "noise" or helps.mean() > 0  # of each sample to itself


def test_they_are_continued_and_checked_as_all_scores(
    digits_root: Path, copy_of: Callable[[Path], Path]
):
    root = copy_of(digits_root)
    command = ("run_gd_and_gc", "--root", root, *ONE_SEED, "--self")
    call_well(*command)
    before = tree(root)
    assert call_well(*command).count("self_446.pt: finished before") == 2
    assert tree(root) == before
    path = Paths(root, on_itself=True).scores(EXPERIMENT, "gd", 446)
    content = load(path, make="")
    content.pop("checksum", None)
    content["settings"]["test_samples"] = "others"
    path.unlink()
    save(path, content)
    call(*command).check_refused("test_samples", "run_gd_and_gc.py", "--self")


def test_the_launcher_makes_both(tmp_path: Path):
    seeds = [(0, 446), (1, 724)]
    plain = plan([EXPERIMENT], ["loo", "gd_and_gc"], seeds, tmp_path, [])
    jobs = plan([EXPERIMENT], ["loo", "gd_and_gc"], seeds, tmp_path, [], on_itself=True)
    further = [job for job in jobs if job not in plain]
    assert [job for job in jobs if job in plain] == plain
    assert {job.step for job in further} == {"loo_self", "gd_and_gc_self"}
    assert len(further) == 4
    for job in further:
        assert job.arguments[-1] == "--self"
        assert all(
            path.name == f"self_{job.after.outputs[0].parent.name}.pt" for path in job.outputs
        )
    assert len({job.lock for job in jobs}) == len({job.log for job in jobs}) == len(jobs)
