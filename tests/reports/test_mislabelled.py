"""Flipped labels from training to the page, by the scripts."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from src.data.noise import flips
from src.experiments import Paths, parse_experiment
from src.storage.files import save
from tests.conftest import DIGITS
from tests.tools import call, call_well, tree

NOISY = f"{DIGITS}_noisy"
EXPERIMENT = parse_experiment(NOISY)
METHODS = ("gd", "gc")


def command(root: Path, *options: object) -> tuple[object, ...]:
    arguments = ("--root", root, "--experiment", NOISY, "--seed_id", "0,1", "--methods", *METHODS)
    return ("run_pvalues", *arguments, "--mislabelled", *options)


@pytest.fixture(scope="module")
def root(digits_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with two trained seeds, their scores on test samples and on themselves."""
    root = tmp_path_factory.mktemp("noisy")
    shutil.copytree(digits_root / "data", root / "data")
    common = ("--root", root, "--experiment", NOISY, "--seed_id", "0,1")
    call_well("run_cnn_training", *common)
    for options in ((), ("--self",)):
        call_well("run_gd_and_gc", *common, *options)
    return root


def test_the_page_says_how_well_they_are_found(root: Path):
    printed = call_well(*command(root))
    assert "area under the ROC curve" in printed
    folder = Paths(root).results(EXPERIMENT)
    table = pd.read_csv(folder / "mislabelled.csv", index_col=["method", "by"])
    assert [*table.index] == [(m, by) for m in METHODS for by in ("self", "test")]
    assert (table["draws"] == 2).all()
    assert table.loc[("gc", "self"), "one_draw"] == 0.5
    assert table.loc[("gd", "self"), "mean_of_draws"] > 0.8

    train = torch.load(Paths(root).tensors("digits3", "train_10pc"), weights_only=True)
    positions, labels = flips(train["labels"], (0, 1, 2))
    ranks = pd.read_csv(folder / "mislabelled_ranks.csv")
    first = ranks[: len(positions)]
    assert first["train_index"].tolist() == train["indices"][positions].tolist()
    assert first["label"].tolist() == labels.tolist()
    assert first["true_label"].tolist() == train["labels"][positions].tolist()
    assert (ranks["label"] == ranks["true_label"])[len(positions) :].all()
    assert sorted(ranks["gd_self"]) == list(range(1, 31))
    assert ranks["gc_self"].tolist() == [15.5] * 30
    pairs = pd.read_csv(folder / "pairs.csv").groupby("train_index")["train_label"].first()
    assert pairs[first["train_index"]].tolist() == labels.tolist()  # those that were trained on

    page = (folder / "index.html").read_text()
    assert "Finding mislabelled training samples" in page
    assert "Flipped labels: 3 of 30 training samples." in page
    assert "the labels of a random tenth are flipped" in page
    call_well("run_correlations", *command(root)[1:-1])
    assert "Finding mislabelled training samples" in (folder / "index.html").read_text()


def test_what_is_missing_is_named_and_nothing_is_written(root: Path, tmp_path: Path):
    copy = Path(shutil.copytree(root, tmp_path / "copy", ignore=shutil.ignore_patterns("results")))
    Paths(copy, on_itself=True).scores(EXPERIMENT, "gc", 724).unlink()
    before = tree(copy)
    call(*command(copy)).check_refused("gc of seed_id 1", "run_gd_and_gc.py", "--self")
    clean = [DIGITS if argument == NOISY else argument for argument in command(copy)]
    call(*clean).check_refused("no label of cnn2_digits3_10pc is flipped", "_noisy")
    two = (*command(copy), "--experiment", NOISY, f"{NOISY}_init")
    call(*two).check_refused("--mislabelled", "--single_pages")
    assert tree(copy) == before


def test_scores_of_other_checkpoints_are_not_set_beside(root: Path, tmp_path: Path):
    copy = Path(shutil.copytree(root, tmp_path / "copy", ignore=shutil.ignore_patterns("results")))
    at = Paths(copy, on_itself=True)
    for method in METHODS:
        path = at.scores(EXPERIMENT, method, 724)
        content = torch.load(path, weights_only=True)
        content.pop("checksum")
        content["settings"]["checkpoints"] = "others"
        path.unlink()
        save(path, content)
    call(*command(copy)).check_refused("other checkpoints", "--self", "--overwrite")


def test_noisy_and_clean_are_compared_side_by_side(root: Path, digits_root: Path, tmp_path: Path):
    copy = Path(shutil.copytree(root, tmp_path / "copy", ignore=shutil.ignore_patterns("results")))
    shutil.copytree(digits_root / "models" / DIGITS, copy / "models" / DIGITS)
    both = ("--root", copy, "--experiment", DIGITS, NOISY, "--seed_id", "0,1")
    call_well("run_gd_and_gc", "--root", copy, "--experiment", DIGITS, "--seed_id", "0,1")
    call_well("run_pvalues", *both, "--methods", *METHODS)
    [folder] = (copy / "results" / "comparison").iterdir()
    table = pd.read_csv(folder / "mean_pvalues.csv")
    assert set(table["task"]) == {"digits3", "digits3_noisy"}
    assert not np.isnan(table.select_dtypes("number")).any(axis=None)
