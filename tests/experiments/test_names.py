"""Names, hyper-parameters and paths of the experiments."""

from __future__ import annotations

from pathlib import Path

import pytest

from src.errors import UserError
from src.experiments import Paths, paper_cnn_experiments, parse_experiment


@pytest.mark.parametrize(
    ("name", "epochs"),
    [
        ("cnn2_mnist3_10pc", 15),
        ("cnn3_cifar10_50pc_batch", 30),
        ("cnn2_digits3_20pc_init", 15),
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
        ("cnn2_mnist_10pc", "unknown task 'mnist'"),
        ("cnn2_mnist3_30pc", "choose from 10, 20, 50"),
        ("cnn2_mnist3_10pc_order", "choose from _init, _batch"),
    ],
)
def test_wrong_names_say_what_is_allowed(name: str, says: str):
    with pytest.raises(UserError, match=says):
        parse_experiment(name)


def test_experiments_of_the_paper():
    names = [e.name for e in paper_cnn_experiments()]
    assert len(set(names)) == len(names) == 4 * 9
    assert {"cnn2_mnist3_50pc", "cnn3_cifar10_60pc", "cnn2_cifar10_10pc_init"} <= set(names)
    assert "cnn3_mnist3_10pc_init" not in names


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
