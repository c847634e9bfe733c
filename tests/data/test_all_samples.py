"""Experiments on every sample of a source: what is trained on, what is scored, all scripts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from src.data.samples import load_samples, load_tensors, network_inputs
from src.data.subsets import draw_indices
from src.experiments import TASKS, Paths, Task, parse_experiment
from src.models import build
from src.storage.files import load, save
from tests import reference
from tests.tools import call, call_well, relative_error

TASK = Task(
    "few",
    (3,),
    4,
    n_scored=8,
    classes=(0, 1, 2),
    n_classes=10,
    input_shape=(1, 28, 28),
    one_pool=True,
    hyperparameters={"epochs": 2, "n_checkpoints": 2},
)
NAME = "cnn2_few_all"
LABELS = load_digits().target
SCORING = ("run_loo", "run_ats", "run_if", "run_gd_and_gc")


@pytest.fixture(autouse=True)
def _task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, TASK.name, TASK)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with all samples of TASK."""
    root = tmp_path_factory.mktemp("all")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, TASK.name, TASK)
        call_well("run_subset_generation", "--root", root, "--task", TASK.name)
    return root


def indices_of(root: Path, name: str) -> list[int]:
    return [int(line) for line in Paths(root).indices(TASK.name, name).read_text().split()]


def test_all_but_the_test_samples_are_trained_on(made: Path):
    tensors = load_tensors(Paths(made), TASK, "train_all")
    test = set(indices_of(made, "test"))
    expected = [i for i in np.flatnonzero(LABELS < 3).tolist() if i not in test]
    assert tensors["indices"].tolist() == expected
    assert len(test) == 12
    assert tensors["scored"].tolist() == indices_of(made, "train_scored")
    counts = np.bincount(LABELS[tensors["scored"]])
    assert sorted(counts) == [2, 3, 3]
    assert not Paths(made).indices(TASK.name, "train_all").exists()
    drawn = draw_indices(TASK, "train_scored", LABELS, 2023)
    assert drawn.tolist() == tensors["scored"].tolist()


def test_batches_are_made_of_bytes(made: Path):
    paths, experiment = Paths(made), parse_experiment(NAME)
    train, _, among = load_samples(paths, experiment)
    images = load_tensors(paths, TASK, "train_all")["images"]
    assert train.images.dtype == torch.uint8
    assert train.indices[among].tolist() == indices_of(made, "train_scored")
    some = torch.tensor([5, 0, 11])
    assert train[some][0].equal(network_inputs(images, TASK)[some])
    subset, _, none = load_samples(paths, parse_experiment("cnn2_few_3pc"))
    assert (subset.images.dtype, none) == (torch.float32, None)


def test_index_files_of_ones_own(made: Path, copy_of: Callable[[Path], Path]):
    root = copy_of(made)
    path = Paths(root).indices(TASK.name, "train_scored")
    generate = ("run_subset_generation", "--root", root, "--task", TASK.name)
    wrong = {
        f"{indices_of(root, 'test')[0]}\n": "is in the test set too",
        "3\n": "line 1: sample 3 is of class 3, which few does not have",
        "0\n0\n": "line 2: index 0 stands in line 1 already",
        "": "is empty",
    }
    for text, says in wrong.items():
        path.write_text(text)
        call(*generate).check_refused(str(path), says)
    chosen = load_tensors(Paths(root), TASK, "train_all")["indices"][[7, 3]].tolist()
    path.write_text("".join(f"{i}\n" for i in chosen))
    assert "2 to be scored, from its index file" in call_well(*generate)
    _, _, among = load_samples(Paths(root), parse_experiment(NAME))
    assert among.tolist() == [7, 3]


@pytest.mark.parametrize(
    "scored", [None, torch.tensor([], dtype=torch.int64), torch.tensor([3]), torch.tensor([0, 0])]
)
def test_damaged_tensors(made: Path, copy_of: Callable[[Path], Path], scored: object):
    root = copy_of(made)
    path = Paths(root).tensors(TASK.name, "train_all")
    content = load(path, "") | {"scored": scored}
    save(path, content)
    result = call("run_cnn_training", "--root", root, "--experiment", NAME)
    result.check_refused(f"{path} does not hold", "run_subset_generation.py --task few")


@pytest.mark.parametrize("n_scored", [0, 2.0, "8"])
def test_wrong_numbers_of_a_task(n_scored: object):
    from dataclasses import replace

    from src.errors import UserError

    with pytest.raises(UserError, match="n_scored is .* not a number of at least 1"):
        replace(TASK, n_scored=n_scored)


@pytest.mark.slow
def test_all_scripts(made: Path, copy_of: Callable[[Path], Path]):
    root = copy_of(made)
    given = ("--root", root, "--experiment", NAME)
    call_well("run_cnn_training", *given, "--seed_id", "0,1")
    for script in SCORING:
        call_well(script, *given, "--seed_id", "0,1", "--train_samples", 4)
    paths, e = Paths(root), parse_experiment(NAME)
    train, test, among = load_samples(paths, e)
    scores = {m: torch.load(paths.scores(e, m, 446)) for m in ("loo", "ats", "if", "gd", "gc")}
    rows = train.positions(scores["loo"]["train_idx"])
    assert len(rows) == 4
    assert set(rows.tolist()) < set(among.tolist())
    pairs = [(int(j), z) for j in rows[[0, 3]] for z in (0, 7)]
    data = [(samples[slice(None)][0], samples.labels) for samples in (train, test)]
    naive = reference.loo(partial(build, e), *data, pairs, 446, 2, [0, 1])
    found = torch.stack([scores["loo"]["scores"][:, i, z] for i in (0, 3) for z in (0, 7)], 1)
    assert relative_error(found, naive) < 1e-3  # of scores as small as these
    for content in scores.values():
        assert content["scores"].shape == (2, 4, 12)
        assert content["settings"]["train_samples_all"] == len(train)
    call(*("run_if", *given), "--train_samples", 9).check_refused("has 8 training samples to score")
    assert "finished before" in call_well(
        "run_gd_and_gc", *given, "--seed_id", 0, "--train_samples", 4
    )
    out = call_well("run_pvalues", *given, "--allow_missing")
    call_well("run_correlations", *given, "--allow_missing")
    assert "2 seeds" in out
    page = (paths.results(e) / "index.html").read_text()
    assert f"4 of {len(train)} training samples" in page
    assert f"{len(train)}; a random sample of 4 of them is scored" in page
    call("run_vit_finetuning", "--root", root, "--experiment", NAME).check_refused("run_cnn_train")
