"""A study in a notebook: the scripts' numbers, in memory, and every wrong argument in one line."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from src.data.scored import scored_positions
from src.ensemble.draws import load_seeds
from src.ensemble.setup import Setup
from src.errors import UserError
from src.experiments import METHODS, PAPER_METHODS, Paths, parse_experiment
from src.experiments.methods import CHECKPOINTS
from src.models.cnn import CNN2
from src.storage.files import digest
from src.study import Study
from src.subsets.masks import Subsets
from src.tda import in_memory
from src.tda.estimators import estimator_classes, estimator_of
from src.tda.gradient_similarity import GradientSimilarity
from src.tda.influence import InfluenceFunction
from src.tda.loo import LeaveOneOut
from src.tda.solvers.conjugate_gradient import ConjugateGradient
from src.tda.solvers.lissa import Lissa
from tests.conftest import DIGITS
from tests.reference import datamodelling_score
from tests.tools import call_well, relative_error

SETTINGS = {"epochs": 4, "n_checkpoints": 2, "batch_size": 5}


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 3))


def rows(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return inputs (n, 6) and labels of three classes."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 6, generator=generator), torch.arange(n) % 3


TRAIN, TEST = rows(11, 0), rows(5, 1)


def study(**given: object) -> Study:
    return Study(network, TRAIN, TEST, **{**SETTINGS, **given})


@pytest.fixture
def n_trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds that were trained since, in order."""
    seeds, training = [], Setup.training

    def counted(self: Setup, seed: int) -> object:
        seeds.append(seed)
        return training(self, seed)

    monkeypatch.setattr(Setup, "training", counted)
    return seeds


def of_digits(root: Path) -> Study:
    """Return the study that the scripts' experiment is."""
    pairs = []
    for split in parse_experiment(DIGITS).splits.values():
        tensors = torch.load(Paths(root).tensors("digits3", split), weights_only=True)
        pairs.append((tensors["images"], tensors["labels"]))
    return Study(
        lambda task: CNN2(task.input_shape, task.n_classes), *pairs, n_classes=10, epochs=15
    )


def test_scores_are_those_of_the_scripts(digits_root: Path):
    paths, experiment, seed = Paths(digits_root), parse_experiment(DIGITS), load_seeds()[0]
    own = of_digits(digits_root)
    found = own.scores(PAPER_METHODS, n_seeds=1)
    for method in PAPER_METHODS:
        file = torch.load(paths.scores(experiment, method, seed), weights_only=True)
        assert digest(own._in_memory.checkpoints(seed)) == file["settings"]["checkpoints"]
        # Chunks are as large as fits at the time, which changes rounding.
        assert relative_error(torch.from_numpy(found[method][0]), file["scores"]) < 1e-5
        assert found[method].shape == (1, 5, 30, 300)


def test_nothing_is_computed_twice_or_written(
    n_trained: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    own, state = study(), torch.get_rng_state()
    first = own.scores(n_seeds=2)
    assert first["loo"].shape == (2, 2, 11, 5)
    assert list(first) == list(PAPER_METHODS)
    monkeypatch.setattr(LeaveOneOut, "__call__", None)
    more = own.scores(["gc", "loo"], n_seeds=2)
    assert list(more) == ["gc", "loo"]
    assert all(np.array_equal(more[method], first[method]) for method in more)
    assert np.array_equal(own.scores("gd", n_seeds=3)["gd"][:2], first["gd"])
    assert n_trained == load_seeds()[:3]
    assert own.scores("gd", n_seeds=12)["gd"].shape[0] == 12
    assert n_trained == load_seeds(12)
    assert np.array_equal(own.scores("gd")["gd"], own.scores("gd", n_seeds=12)["gd"][:10])
    assert torch.equal(torch.get_rng_state(), state)
    assert not list(tmp_path.iterdir())


def test_every_method_has_its_estimator():
    classes = estimator_classes()
    assert all(method in cls.methods for method, cls in classes.items())
    made = {method: estimator_of(method) for method in classes}
    for method, one in made.items():
        assert one.retrains == (METHODS[method].needs != CHECKPOINTS)
    for method, cls in classes.items():  # by hand or by the scripts, the defaults are the same
        assert made[method] == cls()
    assert not LeaveOneOut("continue").retrains


def test_methods_of_subsets_have_their_models_trained():
    methods = [name for name, method in METHODS.items() if method.subsets]
    found = study().scores(methods, n_seeds=1)
    assert list(found) == methods
    for scores in found.values():
        assert scores.shape == (1, 2, 11, 5)
    means = found["downsampling"].ravel(), found["datamodel"].ravel()
    assert np.corrcoef(*means)[0, 1] > 0.8  # of the same subsets


def test_options_by_estimators():
    own = study()
    default, other = (
        own.scores([InfluenceFunction(solver), "gd"], n_seeds=1)
        for solver in (Lissa(), ConjugateGradient(damp=0.1))
    )
    assert np.array_equal(default["if"], own.scores(["if"], n_seeds=1)["if"])
    assert not np.allclose(default["if"], other["if"])
    chunked = own.scores([GradientSimilarity(chunk_size=2)], n_seeds=1)
    assert list(chunked) == ["gd", "gc"]
    assert np.allclose(chunked["gd"], default["gd"], rtol=1e-4, atol=1e-7)


def test_an_interrupted_computation_goes_on(monkeypatch: pytest.MonkeyPatch):
    expected, own, asked = study().scores(["ats"], n_seeds=1)["ats"], study(), []
    from src.tda import ats

    step = ats.additional_step

    def interrupted(loss: object, checkpoints: list, train: object, *args: object, **kw: object):  # noqa: ANN202
        asked.append(len(train))
        for chunk in step(loss, checkpoints, train, *args, **{**kw, "chunk_size": 4}):
            yield chunk
            if len(asked) == 1:
                raise KeyboardInterrupt

    monkeypatch.setattr(ats, "additional_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        own.scores(["ats"], n_seeds=1)
    found = own.scores(["ats"], n_seeds=1)["ats"]
    assert asked == [11, 7]
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-7)


def test_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(matplotlib.rcParams, "lines.linewidth", 7)
    backend, own = plt.get_backend(), study(name="shapes", class_names=("ant", "bee", "cat"))
    page = own.report("out", n_seeds=2, test_index=4)
    assert page == Path("out/index.html")
    text = page.read_text()
    for said in (
        "shapes",
        "ant, bee and cat",
        "Sequential",
        "training samples",
        "2 (seed_id 0-1): 446, 724",
    ):
        assert said in text
    assert "per class" not in text  # of 11 samples in three classes
    assert "one batch" not in text
    assert (tmp_path / "out/figures/influences_4.png").exists()
    assert "Proponents and opponents of test sample 4" in text
    assert set(PAPER_METHODS) < set(pd.read_csv("out/mean_pvalues.csv").columns)
    assert matplotlib.rcParams["lines.linewidth"] == 7
    assert plt.get_backend() == backend
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    own.report("out", ["gd"], n_seeds=2)
    with pytest.raises(UserError, match="out holds the page of shapes, not of others"):
        study(name="others").report("out", ["gd"], n_seeds=2)


def test_accuracy_is_by_models_on_subsets(
    n_trained: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    own, trained = study(), []
    train = in_memory.train_subsets

    def counted(draws: object, subsets: Subsets, chunk_size: int | None) -> dict:
        trained.append(subsets.kind)
        return train(draws, subsets, chunk_size)

    monkeypatch.setattr(in_memory, "train_subsets", counted)
    methods = ["loo", "gd", "downsampling", "datamodel"]
    found = own.accuracy(methods, n_seeds=3, n_subsets=7)
    assert trained == ["half"] * 3 + ["truth"] * 3  # both methods of the half share their models
    seeds = load_seeds()[:3]
    files = [own._in_memory.truth(7, seeds)[seed] for seed in seeds]
    losses = torch.stack([content["losses"] for content in files]).double().mean((0, 1))
    for method, scores in own.scores(methods, n_seeds=3).items():
        mean = torch.from_numpy(scores).double().mean((0, 1))
        expected = datamodelling_score(mean, files[0]["masks"], losses)
        assert found.loc[method, "mean_mean"] == pytest.approx(expected, abs=1e-9)
    page = own.report(tmp_path, methods, n_seeds=3, n_subsets=7)
    assert "Accuracy beside reliability" in page.read_text()
    written = pd.read_csv(tmp_path / "accuracy_by_method.csv", index_col="method")
    assert np.allclose(written[found.columns], found, rtol=1e-5)
    assert pd.read_csv(tmp_path / "accuracy_by_draws.csv")["seconds"].gt(0).all()
    assert len(trained) == 6
    assert n_trained == seeds


def test_losses_on_subsets_are_those_of_the_scripts(digits_root: Path, tmp_path: Path):
    root = tmp_path / "root"
    shutil.copytree(digits_root, root, ignore=shutil.ignore_patterns("tda_scores", "results"))
    call_well(
        "run_subsets", "--experiment", DIGITS, "--seed_id", 0, "--n_subsets", 3, "--root", root
    )
    seed, path = load_seeds()[0], Paths(root).subsets(parse_experiment(DIGITS), "truth", 446)
    expected = torch.load(path, weights_only=True)
    found = of_digits(root)._in_memory.truth(3, [seed])[seed]
    assert torch.equal(found["masks"], expected["masks"])
    assert relative_error(found["losses"], expected["losses"]) < 1e-5


def test_values(tmp_path: Path):
    (inputs, labels), (test_inputs, test_labels) = TRAIN, TEST
    own = Study(
        lambda: nn.Linear(6, 1),
        (inputs.numpy(), labels.float().numpy()),
        (test_inputs, test_labels.float()),
        measure=lambda outputs, targets: outputs[:, 0],
        feature_names=list("abcdef"),
        **SETTINGS,
    )
    # The gradient of an output with respect to weights and bias is the input and 1.
    cosines = own.scores(["gc"], n_seeds=2)["gc"]
    with_ones = [torch.cat([x, torch.ones(len(x), 1)], 1) for x in (inputs, test_inputs)]
    expected = nn.functional.cosine_similarity(with_ones[0][:, None], with_ones[1][None], dim=2)
    assert np.allclose(np.abs(cosines), expected.abs().numpy(), atol=1e-4)
    text = own.report(tmp_path, ["gc"], n_seeds=2).read_text()
    assert "own measure: helping is lowering it" in text


def given_states(own: Study, n: int) -> list[list[dict]]:
    own.scores(["gd"], n_seeds=n)
    return [own._in_memory.checkpoints(seed) for seed in own._seeds[:n]]


@pytest.mark.slow
def test_given_checkpoints(n_trained: list[int], tmp_path: Path):
    own = study()
    states = given_states(own, 3)
    other = Study(network, TRAIN, TEST, checkpoints=states, batch_size=5)
    methods = ["ats", "if", "gd", "gc"]
    found, expected = other.scores(methods), own.scores(methods, n_seeds=3)
    assert all(np.array_equal(found[method], expected[method]) for method in methods)
    with pytest.raises(UserError, match="loo repeats each training .* not known"):
        other.scores(["gd", "loo"])
    assert other.scores([LeaveOneOut("continue")], n_seeds=1)["loo"].shape == (1, 2, 11, 5)
    assert len(n_trained) == 3
    text = other.report(tmp_path, methods).read_text()
    assert "2 of each training, which were given" in text
    assert "seed_id" not in text
    assert "a seed drives" not in text


def test_what_a_seed_drives():
    assert study()._setup.experiment.randomness == ""
    pre_trained = Study(lambda: copy.deepcopy(SAME), TRAIN, TEST, **SETTINGS)
    assert pre_trained._setup.experiment.randomness == "batch"
    scores = pre_trained.scores(["gd"], n_seeds=2)["gd"]
    assert not np.allclose(scores[0], scores[1])  # by the order of batches


def test_running_statistics_belong_to_a_training():
    def normalised() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Linear(8, 3))

    own = Study(normalised, TRAIN, TEST, epochs=3, n_checkpoints=1, batch_size=4)
    expected = own.scores(["loo", "gd"], n_seeds=2)
    assert np.abs(expected["loo"]).min() > 0
    state_dicts = []
    for [state] in given_states(own, 2):
        model = normalised()
        model.load_state_dict(state)  # running statistics among it
        state_dicts.append([model.state_dict()])
    other = Study(normalised, TRAIN, TEST, checkpoints=state_dicts, batch_size=4)
    assert np.array_equal(other.scores(["gd"])["gd"], expected["gd"])


SAME = network()
WRONG = {
    "a network": (lambda: Study(SAME, TRAIN, TEST), "factory is Sequential, not a function"),
    "the same network": (lambda: Study(lambda: SAME, TRAIN, TEST), "the same network each time"),
    "no network": (lambda: Study(lambda: 3, TRAIN, TEST), "int, not an nn.Module"),
    "a factory that fails": (lambda: Study(lambda: 1 / 0, TRAIN, TEST), "ZeroDivisionError"),
    "no pair": (lambda: Study(network, TRAIN[0], TEST), "'train' is not a pair"),
    "lengths": (lambda: Study(network, (TRAIN[0], TEST[1]), TEST), "as many of both"),
    "NaN": (
        lambda: Study(network, (TRAIN[0] / torch.zeros(6), TRAIN[1]), TEST),
        "the input of sample 0 is not finite",
    ),
    "shapes": (lambda: Study(network, TRAIN, (TEST[0][:, :5], TEST[1])), r"\[5\].*\[6\]"),
    "no samples": (lambda: Study(network, TRAIN, (TEST[0][:0], TEST[1][:0])), "one at least"),
    "negative labels": (lambda: Study(network, (TRAIN[0], -TRAIN[1]), TEST), "below 0"),
    "large labels": (lambda: study(n_classes=2), "of class 2, and n_classes is 2"),
    "class names": (lambda: study(class_names=("a", "b")), "of class 2, and class_names has 2"),
    "output width": (lambda: study(n_classes=4), r"outputs \[2, 3\] .* \[2, 4\]"),
    "input width": (lambda: Study(network, *[(x[:, 1:], y) for x, y in (TRAIN, TEST)]), "mat1"),
    "hyper-parameter": (lambda: study(epoch=3), "there is no field 'epoch'"),
    "epochs": (lambda: study(epochs=0), "epochs is 0"),
    "checkpoints": (lambda: study(n_checkpoints=5), "epochs"),
    "default epochs": (
        lambda: Study(network, TRAIN, TEST, n_checkpoints=20),
        "epochs must be at least n_checkpoints",
    ),
    "name": (lambda: study(name="my_study"), "letters, digits and inner hyphens"),
    "device": (lambda: study(device="abacus"), "there is no device 'abacus'"),
    "criterion": (lambda: study(criterion=lambda o, t: o.sum()), "not a number for each"),
    "measure": (lambda: study(measure=3), "measure is 3, not a function"),
    "method": (lambda: study().scores(["gdd"]), "unknown method 'gdd': choose from loo"),
    "no method": (lambda: study().scores([]), "no method is asked for"),
    "no list": (lambda: study().scores(None), "None is neither the name of a method nor"),
    "a class": (lambda: study().scores([InfluenceFunction]), "neither the name of a method nor"),
    "twice": (
        lambda: study().scores(["if", InfluenceFunction(ConjugateGradient())]),
        "if is asked for twice",
    ),
    "protocol": (lambda: study().scores([LeaveOneOut("begin")]), "protocol is 'begin'"),
    "no seeds": (lambda: study().scores(n_seeds=0), "n_seeds is 0, not a whole number from 1"),
    "seeds": (lambda: study().scores(n_seeds=10_001), "from 1 to 10000"),
    "one seed": (lambda: study().report("out", n_seeds=1), "from 2 to 10000"),
    "test": (lambda: study().report("out", n_seeds=2, test="t"), "test is 't'"),
    "alpha": (lambda: study().report("out", n_seeds=2, alpha=5), "alpha is 5"),
    "test index": (lambda: study().report("out", n_seeds=2, test_index=5), "from 0 to 4"),
    "no subsets": (lambda: study().accuracy(n_seeds=2, n_subsets=1), "n_subsets is 1, not a whole"),
    "accuracy of one seed": (lambda: study().accuracy(n_seeds=1), "from 2 to 10000"),
    "accuracy's level": (lambda: study().accuracy(n_seeds=2, alpha=0), "alpha is 0"),
    "subsets of the report": (
        lambda: study().report("out", n_seeds=2, n_subsets=2.5),
        "n_subsets is 2.5, not a whole",
    ),
    "accuracy of some": (
        lambda: study(train_samples=4).accuracy(["gd"], n_seeds=2),
        "without train_samples",
    ),
    "accuracy of given": (
        lambda: Study(
            network, TRAIN, TEST, checkpoints=[[network().state_dict()] for _ in range(2)]
        ).accuracy(["gd"]),
        "accuracy is measured by trainings on subsets",
    ),
    "no checkpoints": (lambda: study(checkpoints=[]), "checkpoints are none"),
    "numbers": (
        lambda: study(checkpoints=[[SAME.state_dict()], [SAME.state_dict()] * 2]),
        r"\[1, 2\] of the trainings",
    ),
    "one training twice": (
        lambda: Study(network, TRAIN, TEST, checkpoints=[[SAME.state_dict()]] * 2),
        "training 0 and checkpoint 0 of training 1 hold the same parameters",
    ),
    "one list": (
        lambda: study(checkpoints=[SAME.state_dict()]),
        "give a list of them for each training",
    ),
    "networks": (lambda: study(checkpoints=[[SAME]]), "hold a Sequential, not state dicts"),
    "other numbers": (
        lambda: study(checkpoints=[[SAME.state_dict()]]),
        "n_checkpoints is 2, and 1 of each",
    ),
    "equal": (
        lambda: Study(network, TRAIN, TEST, checkpoints=[[SAME.state_dict()] * 2]),
        "hold the same parameters",
    ),
    "other layers": (
        lambda: Study(network, TRAIN, TEST, checkpoints=[[nn.Linear(6, 3).state_dict()]]),
        "is no state dict of Sequential",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_arguments(
    what: str, n_trained: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    attempt: Callable
    attempt, says = WRONG[what]
    with pytest.raises(UserError, match=says) as error:
        attempt()
    assert "\n" not in str(error.value)
    assert not n_trained
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "n_scored", [5, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 11))]
)
def test_a_sample_of_the_training_samples(n_scored: int, tmp_path: Path):
    """Rows are those of all, of models that are trained on all; the page says how many they are."""
    rows = scored_positions(TRAIN[1], n_scored, "").numpy()
    some, every = study(train_samples=n_scored), study()
    for method, found in some.scores(n_seeds=2).items():
        expected = every.scores([method], n_seeds=2)[method][:, :, rows]
        assert found.shape == (2, 2, n_scored, 5)
        assert relative_error(torch.from_numpy(found), torch.from_numpy(expected)) < 1e-4
    page = some.report(tmp_path / "page", ["gd", "gc"], n_seeds=2).read_text()
    assert (f"(2 seeds, {n_scored} of 11 training samples)" in page) == (n_scored < 11)
    labels = pd.read_csv(tmp_path / "page" / "pairs.csv")["train_label"].to_numpy()
    assert labels[::5].tolist() == TRAIN[1][rows].tolist()


@pytest.mark.parametrize("n_scored", [0, 12, -1, 2.0, "3", True])
def test_a_sample_that_cannot_be(n_scored: object):
    with pytest.raises(UserError, match="train_samples is .* choose a whole number from 1 to 11"):
        study(train_samples=n_scored)
