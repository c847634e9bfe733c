"""Flipped labels: a tenth, to other classes of the task, always the same ones."""

from dataclasses import replace

import pytest
import torch

from src.data.noise import check_flippable, flips, with_flips
from src.data.samples import experiment_tensors, load_samples
from src.errors import UserError
from src.experiments import TASKS, Paths, parse_experiment


@pytest.mark.parametrize(("n", "n_flipped"), [(1, 1), (9, 1), (30, 3), (150, 15), (1003, 100)])
def test_a_tenth_gets_another_class_of_the_task(n, n_flipped):
    classes = (2, 5, 7)
    labels = torch.tensor(classes).repeat(n)[:n]
    positions, flipped = flips(labels, classes)
    assert len(positions) == len(set(positions.tolist())) == n_flipped
    assert positions.equal(positions.sort().values)
    assert (flipped != labels[positions]).all()
    assert set(flipped.tolist()) <= set(classes)
    noisy = with_flips(labels, classes)
    assert (noisy != labels).nonzero().ravel().equal(positions)
    assert noisy[positions].equal(flipped)
    assert labels.equal(torch.tensor(classes).repeat(n)[:n])  # left as they are
    again, _ = flips(labels.flip(0), classes)
    assert again.equal(positions)  # which depend on the number alone


def test_each_other_class_and_each_sample_comes_as_often():
    labels = torch.arange(10).repeat(1000)
    positions, flipped = flips(labels, tuple(range(10)))
    shifts = ((flipped - labels[positions]) % 10).bincount(minlength=10)
    assert shifts[0] == 0
    assert (shifts[1:] - 1000 / 9).abs().max() < 45  # of 1,000 draws; standard deviation 10
    assert (positions // 1000).bincount(minlength=10).sub(100).abs().max() < 45


def test_two_classes_are_exchanged():
    labels = torch.tensor([0, 1] * 10)
    positions, flipped = flips(labels, (0, 1))
    assert flipped.equal(1 - labels[positions])


def test_training_labels_alone_are_flipped(digits_root):
    paths = Paths(digits_root)
    clean, noisy = (
        experiment_tensors(paths, parse_experiment(f"cnn2_digits3_20pc{suffix}"))
        for suffix in ("", "_noisy")
    )
    differ = clean["train"]["labels"] != noisy["train"]["labels"]
    assert differ.sum() == 6
    assert clean["train"]["images"].equal(noisy["train"]["images"])
    assert clean["test"]["labels"].equal(noisy["test"]["labels"])
    train, _, _ = load_samples(paths, parse_experiment("cnn2_digits3_20pc_noisy_init"))
    assert train.labels.equal(noisy["train"]["labels"])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"classes": (1,)}, "digits3 has a single class"),
        ({"classes": None, "n_classes": None, "target_shape": ()}, "values as targets"),
    ],
)
def test_there_must_be_another_class(changes, says):
    experiment = parse_experiment("cnn2_digits3_10pc_noisy")
    changed = replace(experiment, task=replace(TASKS["digits3"], class_names=(), **changes))
    with pytest.raises(UserError, match=says):
        check_flippable(changed)
    check_flippable(replace(changed, label_noise=False))
