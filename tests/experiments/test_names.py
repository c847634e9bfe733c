"""Names, hyper-parameters and paths of the experiments."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest

from src.errors import UserError
from src.experiments import (
    REPOSITORY,
    TASKS,
    Paths,
    compared_name,
    paper_cnn_experiments,
    parse_experiment,
)


@pytest.mark.parametrize(
    ("name", "epochs"),
    [
        ("cnn2_mnist3_10pc", 15),
        ("cnn3_cifar10_50pc_batch", 30),
        ("cnn2_digits3_20pc_init", 15),
        ("cnn2_digits3_20pc_noisy", 15),
        ("cnn2_cifar10_20pc_noisy_batch", 30),
        ("cnn2_mnist_all_noisy", 15),
    ],
)
def test_names_go_both_ways(name: str, epochs: int):
    experiment = parse_experiment(name)
    assert experiment.name == name
    assert experiment.epochs == epochs
    assert experiment.kept_epochs == tuple(range(epochs - 5, epochs))
    chosen = experiment.hyperparameters
    assert (chosen.learning_rate, chosen.weight_decay) == (1e-3, 5e-3)
    assert (chosen.optimizer, chosen.batch_size) == ("adam", 32)
    assert experiment.batch_size == 32
    assert experiment.training_script == "run_cnn_training.py"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "a name is <model>"),
        ("cnn2_mnist3", "a name is <model>"),
        ("cnn2_mnist3_10pc_", "a name is <model>"),
        ("cnn9_mnist3_10pc", "unknown model 'cnn9'"),
        ("cnn2_mnist_10pc", "mnist has no subset of 10 per class .*: choose from all"),
        ("cnn2_mnist3_all", "mnist3 has no experiment of all .*: choose from 10, 20, 50"),
        ("cnn2_mnist3_30pc", "choose from 10, 20, 50"),
        ("cnn2_mnist3_10pc_order", "choose from _init, _batch"),
        ("cnn2_mnist3_10pc_noisy_order", "choose from _init, _batch"),
        ("cnn2_mnist3_10pc_init_noisy", "a name is <model>"),
    ],
)
def test_wrong_names_say_what_is_allowed(name: str, says: str):
    with pytest.raises(UserError, match=says):
        parse_experiment(name)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": "my_mnist"}, "task 'my_mnist': a name holds letters"),
        ({"name": "../mnist3"}, "a name holds letters"),
        ({"name": ""}, "a name holds letters"),
        ({"repository": "../mnist"}, "not owner/name"),
        ({"repository": "/data/mnist"}, "a folder of one's own is given as folder"),
        ({"repository": None}, "bundled digits, which are one_pool"),
        ({"repository": None, "one_pool": True, "input_shape": (3, 8, 8)}, r"in \(1,\)"),
        ({"hyperparameters": {"epochs": 4}}, "epochs is 4, not 5 or more"),
        ({"hyperparameters": {"epochs": 5.0}}, "epochs is 5.0"),
        ({"classes": ()}, "not different labels from 0 on"),
        ({"classes": (0, 0, 1)}, "not different labels"),
        ({"classes": (0, 10)}, "not different labels from 0 to 9"),
        ({"classes": (-1, 0)}, "not different labels"),
        ({"n_per_class": ()}, "not different numbers of at least 1"),
        ({"n_per_class": (10, 10)}, "not different numbers"),
        ({"n_per_class": (0,)}, "not different numbers of at least 1"),
        ({"n_test_per_class": 0}, "not a number of at least 1"),
        ({"input_shape": (28, 28)}, r"not \(channels, height, width\)"),
        ({"input_shape": (1, 0, 28)}, "not the numbers that"),
        ({"input_shape": (4, 28, 28)}, r"in \(1, 3\)"),
        ({"class_names": ("zero", "one")}, "no name for the label 2"),
    ],
)
def test_tasks_that_experiments_cannot_be_run_with(changes: dict, says: str):
    with pytest.raises(UserError, match=says):
        replace(TASKS["mnist3"], **changes)


def test_a_wrong_entry_of_the_table_is_one_line(tmp_path: Path):
    """It is met while a script is imported."""
    shutil.copytree(REPOSITORY / "src", tmp_path / "src")
    shutil.copy(REPOSITORY / "run_subset_generation.py", tmp_path)
    table = tmp_path / "src" / "experiments" / "tasks.py"
    table.write_text(table.read_text().replace('"digits3",', '"digits_3",'))
    command = [sys.executable, str(tmp_path / "run_subset_generation.py"), "--root", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith("error: task 'digits_3': a name holds letters")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "data").exists()


def test_experiments_of_the_paper():
    names = [e.name for e in paper_cnn_experiments()]
    assert len(set(names)) == len(names) == 4 * 9 + 1
    assert {"cnn2_mnist3_50pc", "cnn3_cifar10_60pc", "cnn2_cifar10_10pc_init"} <= set(names)
    assert "cnn3_mnist3_10pc_init" not in names
    assert names[-1] == "cnn2_mnist_all"


@pytest.mark.parametrize("randomness", ["", "_init", "_batch"])
def test_all_of_a_source(randomness: str):
    name = f"cnn2_mnist_all{randomness}"
    experiment = parse_experiment(name)
    assert experiment.name == name
    assert (experiment.n_per_class, experiment.n_train, experiment.size) == (None, None, "all")
    assert experiment.splits == {"train": "train_all", "test": "test"}
    assert (experiment.epochs, experiment.task.classes) == (15, tuple(range(10)))
    assert "10pc" in compared_name([experiment, parse_experiment("cnn2_mnist3_10pc")])


def test_paths():
    paths, experiment = Paths(Path("r")), parse_experiment("cnn2_mnist3_10pc_init")
    assert paths.indices("mnist3", "test") == Path("r/data/subset_indices/mnist3/test.txt")
    assert paths.tensors("mnist3", "train_10pc") == Path("r/data/mnist3/train_10pc.pt")
    assert paths.checkpoint(experiment, 446, 14) == Path(
        "r/models/cnn2_mnist3_10pc_init/446/ckpt_epoch_14.pt"
    )
    assert paths.scores(experiment, "loo", 446) == Path(
        "r/tda_scores/cnn2_mnist3_10pc_init/loo/446.pt"
    )
    assert paths.results(experiment) == Path("r/results/cnn2_mnist3_10pc_init")


def test_a_set_of_experiments_has_one_name_and_no_two_share_one():
    every = paper_cnn_experiments()
    pairs = [{a, b} for a, b in combinations(every, 2)]
    names = {compared_name(pair) for pair in pairs}
    assert len(names) == len(pairs)
    assert compared_name([every[1], every[0], every[1]]) == compared_name(every[:2])
    rest = [compared_name(set(every) - {e}) for e in every]
    assert len({*rest, compared_name(every)}) == len(every) + 1
    assert all(len(name) <= 100 for name in rest)
    assert compared_name(every) == compared_name(reversed(every))
