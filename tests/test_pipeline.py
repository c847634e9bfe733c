"""The scripts on real data, end to end: files against naive computations of random pairs."""

from __future__ import annotations

import random
from functools import cached_property, partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from src.ensemble.draws import Draw, load_seeds
from src.ensemble.members import PerSampleLoss, trainable
from src.ensemble.optimizer import OptimizerSettings
from src.ensemble.procedure import Procedure
from src.ensemble.retraining import retrain
from src.experiments import PAPER_METHODS, Experiment, Paths, parse_experiment
from src.models import build
from src.tda.ats import additional_step
from src.tda.gradient_similarity import gradient_similarity
from src.tda.influence import influence
from src.tda.loo import leave_one_out
from src.tda.solvers.lissa import Lissa
from tests import reference
from tests.conftest import DIGITS, MNIST
from tests.tools import relative_error, samples, with_parameters

SEED = load_seeds()[0]


class Reality:
    """What is on disk below a root that the scripts filled, and random pairs of it."""

    def __init__(self, root: Path, name: str) -> None:
        self.experiment: Experiment = parse_experiment(name)
        self.paths = Paths(root)
        chance = random.Random(name)
        self.train_samples = sorted(chance.sample(range(len(self.data()[0][1])), 3))
        self.test_samples = sorted(chance.sample(range(len(self.data()[1][1])), 8))

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Random pairs (j, z): 3 training samples with 8 test samples each."""
        return [(j, z) for j in self.train_samples for z in self.test_samples]

    def data(self, dtype: torch.dtype = torch.float32) -> tuple[reference.Data, reference.Data]:
        """Return inputs and labels of train and test, read without src."""
        files = (
            torch.load(self.paths.tensors(self.experiment.task.name, split), weights_only=True)
            for split in (f"train_{self.experiment.n_per_class}pc", "test")
        )
        train, test = ((file["images"].to(dtype) / 255, file["labels"]) for file in files)
        return train, test

    @cached_property
    def models(self) -> list[nn.Module]:
        """The models of the five checkpoints."""
        return [
            with_parameters(
                build(self.experiment),
                torch.load(self.paths.checkpoint(self.experiment, SEED, epoch), weights_only=True)[
                    "model_state_dict"
                ],
            )
            for epoch in self.experiment.kept_epochs
        ]

    def file(self, method: str) -> dict:
        """Return a method's score file."""
        return torch.load(self.paths.scores(self.experiment, method, SEED), weights_only=True)

    def chosen(self, scores: Tensor) -> Tensor:
        """Return the scores (C, n_pairs) of the random pairs."""
        j, z = zip(*self.pairs, strict=True)
        return scores[:, list(j), list(z)]


@pytest.fixture(scope="module", params=[DIGITS, MNIST])
def real(request: pytest.FixtureRequest) -> Reality:
    """Seed 0 of a real experiment."""
    root = {DIGITS: "digits_root", MNIST: "mnist_root"}[request.param]
    return Reality(request.getfixturevalue(root), request.param)


@pytest.mark.parametrize("method", PAPER_METHODS)
def test_format_of_score_files(real: Reality, method: str):
    file = real.file(method)
    (_, train_labels), (_, test_labels) = real.data()
    assert file["scores"].shape == (5, len(train_labels), len(test_labels))
    assert file["scores"].dtype == torch.float32
    assert file["scores"].isfinite().all()
    assert file["epochs"].tolist() == [10, 11, 12, 13, 14]
    assert file["epochs"].dtype == torch.int64
    for split, key in (("train_10pc", "train_idx"), ("test", "test_idx")):
        tensors = torch.load(
            real.paths.tensors(real.experiment.task.name, split), weights_only=True
        )
        assert torch.equal(file[key], tensors["indices"])
    assert (file["experiment"], file["method"], file["seed"]) == (
        real.experiment.name,
        method,
        SEED,
    )
    settings = file["settings"]
    assert settings["device"] == "cpu"
    assert settings["torch"] == torch.__version__
    if method == "loo":
        assert settings["protocol"] == "retrain"
    if method == "if":
        assert (settings["solver"], settings["damp"], settings["scale"]) == ("lissa", 5e-3, 1e4)


def test_floor_of_leave_one_out(real: Reality):
    file = real.file("loo")
    assert file["floor"].shape == (5, len(file["test_idx"]))
    assert file["floor"].dtype == torch.float32
    assert file["floor"].abs().median() < 1e-3 * file["scores"].abs().median()


def test_loo_of_random_pairs(real: Reality):
    e = real.experiment
    expected = reference.loo(
        partial(build, e), *real.data(), real.pairs, SEED, e.epochs, list(e.kept_epochs)
    )
    assert relative_error(real.chosen(real.file("loo")["scores"]), expected) < 1e-4


@pytest.mark.parametrize(
    ("method", "naive"),
    [
        ("ats", reference.ats),
        ("if", reference.influence_lissa),
        ("gd", reference.grad_dot),
        ("gc", reference.grad_cos),
    ],
)
def test_other_methods_of_random_pairs(real: Reality, method: str, naive):
    expected = torch.stack([naive(model, *real.data(), real.pairs) for model in real.models])
    assert relative_error(real.chosen(real.file(method)["scores"]), expected) < 1e-4


def test_signs_of_a_sample_that_helps(real: Reality):
    """Loo, gd and gc are positive where z_j helps z, ats and if negative: pairs of one class."""
    (_, train_labels), (_, test_labels) = real.data()
    alike = train_labels[:, None] == test_labels
    for method in PAPER_METHODS:
        helps = -1 if method in ("ats", "if") else 1
        scores = helps * real.file(method)["scores"].mean(0)
        assert scores[alike].mean() > 0
        assert scores[alike].mean() > scores[~alike].mean()


class TestDoublePrecision:
    """The same in float64, where nothing hides behind rounding."""

    def build(self, real: Reality) -> nn.Module:
        """Return a freshly initialised model."""
        return build(real.experiment).double()

    def test_loo(self, real: Reality):
        e, (train, test) = real.experiment, real.data(torch.float64)
        some = test[0][real.test_samples], test[1][real.test_samples]
        j_and_z = [(j, z) for j in real.train_samples for z in range(len(some[1]))]
        make = partial(self.build, real)
        expected = reference.loo(make, train, some, j_and_z, SEED, e.epochs, list(e.kept_epochs))
        plain = reference.train(make, train, SEED, e.epochs)
        optimizer = OptimizerSettings.of(e, len(train[1]))
        found = leave_one_out(
            Procedure(PerSampleLoss(make()), samples(train), optimizer, e.batch_size, e.epochs),
            [trainable(plain[epoch].model) for epoch in e.kept_epochs],
            retrain(lambda: Draw.of(e, SEED).start(make), e.kept_epochs),
            real.train_samples,
            samples(some),
            chunk_size=2,
        )
        expected = expected.unflatten(1, (len(real.train_samples), -1))
        assert relative_error(torch.cat([*found], 1), expected) < 1e-9

    def test_the_others(self, real: Reality):
        train, test = real.data(torch.float64)
        some = test[0][real.test_samples], test[1][real.test_samples]
        model = self.build(real)
        model.load_state_dict(real.models[-1].state_dict())
        pairs = [(j, z) for j in real.train_samples for z in range(len(some[1]))]

        def check(found: Tensor, expected: Tensor) -> None:
            chosen = found[real.train_samples].flatten()
            assert relative_error(chosen, expected) < 1e-9

        loss, params, adam = (
            PerSampleLoss(self.build(real)),
            trainable(model),
            OptimizerSettings.of(real.experiment, len(train[1])),
        )
        both = samples(train), samples(some)
        steps = additional_step(loss, [params], *both, optimizer=adam, chunk_size=16)
        check(torch.cat([*steps], 1)[0], reference.ats(model, train, some, pairs))
        dot, cosine = gradient_similarity(loss, params, *both, chunk_size=16)
        check(dot, reference.grad_dot(model, train, some, pairs))
        check(cosine, reference.grad_cos(model, train, some, pairs))
        scores, _ = influence(loss, params, *both, Lissa(), chunk_size=16)
        check(scores, reference.influence_lissa(model, train, some, pairs))
