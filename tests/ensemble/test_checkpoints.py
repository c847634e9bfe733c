"""Checkpoints against the plain idiom: seed, model, DataLoader(shuffle=True), Adam."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from src.data.samples import Samples
from src.ensemble.checkpoints import Checkpoints
from src.ensemble.draws import Draw, load_seeds
from src.ensemble.members import PerSampleLoss
from src.ensemble.optimizer import OptimizerSettings
from src.ensemble.procedure import Procedure
from src.ensemble.setup import Setup, train
from src.errors import UserError
from src.experiments import Experiment, Paths, parse_experiment
from src.models import build
from tests import reference
from tests.conftest import DIGITS, MNIST, Case
from tests.tools import TOLERANCE, relative_error, samples, save_images, with_parameters

SEEDS = load_seeds()


def plain_data(
    root: Path, experiment: Experiment, split: str, dtype: torch.dtype = torch.float32
) -> reference.Data:
    """Return the inputs and labels of a split of a task that is not normalised."""
    tensors = torch.load(root / f"data/{experiment.task.name}/{split}.pt", weights_only=True)
    return tensors["images"].to(dtype) / 255, tensors["labels"]


def distance(found: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference over the norm of what is expected.

    For float32: Adam divides a gradient by its own size, so where the gradients of a single weight
    cancel almost, their rounding moves it by more than the size of rounding.
    """
    return ((found - expected).norm() / expected.norm()).item()


def check_files(root: Path, name: str, seed: int) -> None:
    """Assert that a seed's five files hold what the plain idiom gives, in float32."""
    experiment = parse_experiment(name)
    data = plain_data(root, experiment, "train_10pc")
    expected = reference.train(partial(build, experiment), data, seed, experiment.epochs)
    folder = root / "models" / name / str(seed)
    assert len(list(folder.iterdir())) == 5
    for epoch in range(10, 15):
        found = torch.load(folder / f"ckpt_epoch_{epoch}.pt", weights_only=True)
        assert found["epoch"] == epoch
        assert found["loss"] == pytest.approx(expected[epoch].loss, rel=1e-4)
        assert found["settings"]["seed"] == seed
        plain = expected[epoch].model.state_dict()
        assert list(found["model_state_dict"]) == list(plain)
        for parameter, value in plain.items():
            assert distance(found["model_state_dict"][parameter], value) < 1e-4


@pytest.mark.parametrize("seed", SEEDS[:3])
def test_digits_files(digits_root: Path, seed: int):
    check_files(digits_root, DIGITS, seed)


def test_mnist_files_of_one_seed(mnist_root: Path):
    check_files(mnist_root, MNIST, SEEDS[0])


def procedure_of(experiment: Experiment, loss: PerSampleLoss, train: Samples) -> Procedure:
    """Return an experiment's training procedure on samples of one's own."""
    adam = OptimizerSettings.of(experiment, len(train))
    return Procedure(loss, train, adam, experiment.batch_size, experiment.epochs)


def check_double(root: Path, name: str, seed: int) -> None:
    """Assert that training equals the plain idiom in float64, at every epoch."""
    experiment = parse_experiment(name)
    data = plain_data(root, experiment, "train_10pc", torch.float64)

    def build_double() -> torch.nn.Module:
        return build(experiment).double()

    expected = reference.train(build_double, data, seed, experiment.epochs)
    procedure = procedure_of(experiment, PerSampleLoss(build_double()), samples(data))
    found = train(procedure, Draw.of(experiment, seed).start(build_double))
    for state, plain in zip(found, expected, strict=True):
        assert state.loss == pytest.approx(plain.loss, rel=1e-9)
        for parameter, value in plain.model.state_dict().items():
            assert relative_error(state.params[parameter], value) < 1e-9


@pytest.mark.parametrize(
    "seed", [*SEEDS[:3], *(pytest.param(seed, marks=pytest.mark.slow) for seed in SEEDS[3:])]
)
def test_digits_in_double_precision(digits_root: Path, seed: int):
    check_double(digits_root, DIGITS, seed)


def test_mnist_in_double_precision(mnist_root: Path):
    check_double(mnist_root, MNIST, SEEDS[0])


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("together", [False, True])
def test_several_batches_an_epoch(together: bool, dtype: torch.dtype, dropout: float):
    """Batches with a remainder, and dropout that draws from the generator of the batch order."""
    case = Case(19, 2, dtype, dropout)
    expected = reference.train(case.build, case.data[0], 7, 4, case.batch_size)
    procedure = case.procedure(case.loss(together=together))
    found = train(procedure, Draw(7, 7).start(case.build))
    for state, plain in zip(found, expected, strict=True):
        assert state.loss == pytest.approx(plain.loss, rel=TOLERANCE[dtype])
        for parameter, value in plain.model.state_dict().items():
            assert relative_error(state.params[parameter], value) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_training_goes_on_from_a_state_in_plain_torch(dtype: torch.dtype):
    case = Case(11, 2, dtype)
    plain = reference.train(case.build, case.data[0], 7, 4, case.batch_size)
    *_, ours = train(case.procedure(), Draw(7, 7).start(case.build))
    assert_equal_when_continued(
        (with_parameters(case.build(), ours.params), ours.optimizer_state),
        (plain[-1].model, plain[-1].optimizer_state),
        case.data[0],
        TOLERANCE[dtype],
    )


def test_training_goes_on_from_a_file_in_plain_torch(digits_root: Path):
    experiment = parse_experiment(DIGITS)
    data = plain_data(digits_root, experiment, "train_10pc")
    plain = reference.train(partial(build, experiment), data, SEEDS[1], 13)
    path = Paths(digits_root).checkpoint(experiment, SEEDS[1], 12)
    content = torch.load(path, weights_only=True)
    assert_equal_when_continued(
        (
            with_parameters(build(experiment), content["model_state_dict"]),
            content["optimizer_state_dict"],
        ),
        (plain[-1].model, plain[-1].optimizer_state),
        data,
        1e-4,
    )


def assert_equal_when_continued(
    ours: tuple[torch.nn.Module, dict],
    plain: tuple[torch.nn.Module, dict],
    data: reference.Data,
    tolerance: float,
) -> None:
    """Train both further with the same batches; both optimisers are plain ones."""
    results = []
    for model, optimizer_state in (ours, plain):
        optimizer = torch.optim.Adam(model.parameters())
        optimizer.load_state_dict(optimizer_state)
        group = optimizer.param_groups[0]
        assert (group["lr"], group["weight_decay"]) == (1e-3, 5e-3)
        torch.manual_seed(99)
        results.append(reference.continue_training(model, optimizer, data, 3, 5)[-1])
    found, expected = (result.model.state_dict() for result in results)
    for parameter, value in expected.items():
        assert distance(found[parameter], value) < tolerance
    found, expected = (result.optimizer_state["state"] for result in results)
    for i, state in expected.items():
        assert found[i]["step"] == state["step"]
        assert distance(found[i]["exp_avg"], state["exp_avg"]) < tolerance


@pytest.mark.parametrize(
    ("suffix", "init_seed", "batch_seed"),
    [
        ("_init", SEEDS[0], SEEDS[0]),
        ("_batch", SEEDS[0], SEEDS[0]),
        ("_init", SEEDS[2], SEEDS[0]),
        ("_batch", SEEDS[0], SEEDS[2]),
    ],
)
def test_sources_of_randomness(digits_root: Path, suffix: str, init_seed: int, batch_seed: int):
    """The first seed gives the same model under every suffix: the plain one."""
    experiment = parse_experiment(DIGITS + suffix)
    data = plain_data(digits_root, experiment, "train_20pc")  # two batches an epoch
    seed = init_seed if suffix == "_init" else batch_seed
    other = None if init_seed == batch_seed else batch_seed
    expected = reference.train(partial(build, experiment), data, init_seed, 2, batch_seed=other)
    procedure = procedure_of(experiment, PerSampleLoss(build(experiment)), samples(data))
    start = Draw.of(experiment, seed).start(partial(build, experiment))
    *_, found = train(replace(procedure, n_epochs=2), start)
    for parameter, value in expected[-1].model.state_dict().items():
        assert distance(found.params[parameter], value) < 1e-4


def normalised(*_: object) -> nn.Module:
    """Return a network with a frozen layer, drawn at random, and running statistics."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(28 * 28, 5).requires_grad_(False),
        nn.BatchNorm1d(5),
        nn.Linear(5, 10),
    )


def test_files_hold_buffers_and_frozen_parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """They are those of the plain idiom, and attribution gets them back."""
    monkeypatch.setattr("src.ensemble.setup.build", normalised)
    paths, experiment = Paths(tmp_path), parse_experiment(DIGITS)
    save_images(paths, "train_10pc", 30)
    save_images(paths, "test", 7)
    setup = Setup.load(experiment, paths, torch.device("cpu"))
    checkpoints = Checkpoints(setup, paths)
    for _ in checkpoints.train(SEEDS[1]):
        pass
    plain = reference.train(
        normalised, (setup.train.images, setup.train.labels), SEEDS[1], experiment.epochs
    )
    loaded = checkpoints.load(SEEDS[1], 1)
    for epoch, state in zip(experiment.kept_epochs, loaded, strict=True):
        expected = plain[epoch].model.state_dict()
        assert state.keys() == expected.keys()
        for name, value in expected.items():
            assert distance(state[name].double(), value.double()) < 1e-4
        assert state["2.num_batches_tracked"] == epoch + 1
        assert state["1.weight"] is loaded[0]["1.weight"]  # in memory once
    path = paths.checkpoint(experiment, SEEDS[1], 12)
    content = torch.load(path, weights_only=True)
    del content["model_state_dict"]["2.running_mean"]
    torch.save(content, path)
    with pytest.raises(UserError):
        checkpoints.load(SEEDS[1], 1)
