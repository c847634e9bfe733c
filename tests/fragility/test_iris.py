"""The study of iris, from the command line and against one network at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from src.ensemble.draws import load_seeds
from src.errors import UserError
from src.fragility import iris
from src.fragility.iris_measurement import iris as samples_of_iris
from src.fragility.iris_measurement import measured, perceptron
from src.fragility.recording import record_study
from src.paper.measured import Measured
from src.paper.tables import TABLES
from src.storage.files import load
from tests import reference
from tests.fragility.networks import flat_parameters
from tests.tools import call, call_well, relative_error

STUDY = "run_fragility", "--study", "iris"
ALL = iris.configurations("paper")
CPU = torch.device("cpu")


def short(configuration: iris.Configuration, **changed: object) -> iris.Configuration:
    """Return a configuration whose training takes no time."""
    lengths = {"steps": 20, "retraining_steps": 10, "n_removed": 4, "response_steps": 5}
    lissa = {"lissa_steps": min(configuration.lissa_steps, 3)}
    return replace(configuration, **{**lengths, **lissa, **changed})


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> list[iris.Configuration]:
    """Some configurations, trained for a moment, in the place of all."""
    names = (
        "relu_depth1_width5_decay0.005",
        "relu_depth1_width5_decay0",
        "tanh_depth4_width5_decay0",
    )
    some = [short(c) for c in ALL if c.name in names]
    monkeypatch.setattr(iris, "configurations", lambda scale: some)
    return some


def test_the_configurations_are_those_of_the_published_panels():
    shapes = {(c.depth, c.width) for c in ALL if c.activation == "relu"}
    assert shapes == {(d, 5) for d in range(1, 9)} | {(1, w) for w in (8, 14, 20, 30, 40, 50)}
    assert {(c.steps, c.retraining_steps, c.n_removed) for c in ALL} == {(60_000, 7_500, 25)}
    assert {(c.decay, c.damp) for c in ALL} == {(5e-3, 5e-3), (0.0, 1e-3)}
    assert len({c.name for c in ALL}) == len(ALL)
    quick = {c.name for c in iris.configurations("quick")}
    assert ALL[0].name in quick < {c.name for c in ALL}


@pytest.mark.parametrize("number", [0, 3])
def test_retraining_is_that_of_each_network_alone(number):
    configuration = short(ALL[number], lissa_steps=0)
    train = samples_of_iris(CPU)
    assert torch.allclose(train.images.mean(0), torch.zeros(4).double())
    assert torch.allclose(train.images.square().mean(0), torch.ones(4).double())
    seeds = [446, 724]  # together, and checked one by one
    for seed, found in zip(seeds, measured(configuration, seeds, CPU), strict=True):
        start = perceptron(configuration, 4, seed)
        decay, rate = configuration.decay, configuration.rate
        optimum = reference.descended(start, train[:], None, decay, rate, 18)
        optimum = reference.descended(optimum, train[:], None, decay, rate / 10, 2)
        losses = torch.stack([reference.sample_loss(optimum, train[:], i) for i in range(150)])
        order = losses.argsort(descending=True)
        assert found["test"] == order[0]
        assert found["test_loss"] == pytest.approx(losses[order[0]].item())
        assert found["removed"].tolist() == order[1:5].tolist()
        theta = flat_parameters([optimum])
        slopes = reference.gradients(optimum, train[:]).mean(0)
        assert found["gradient_norm"] == pytest.approx((slopes + decay * theta).norm().item())

        def without(j: int | None, optimum=optimum, decay=decay, rate=rate) -> torch.nn.Module:
            model = reference.descended(optimum, train[:], j, decay, rate, 9)
            return reference.descended(model, train[:], j, decay, rate / 10, 1)

        control = without(None)
        z = int(order[0])
        of_control = reference.sample_loss(control, train[:], z)
        for k in (0, 3):
            model = without(int(order[1 + k]))
            change = reference.sample_loss(model, train[:], z) - of_control
            assert found["losses"]["retrained"][k].item() == pytest.approx(change.item(), rel=1e-6)
            moved = flat_parameters([model]) - flat_parameters([control])
            assert found["norms"]["retrained"][k].item() == pytest.approx(
                moved.norm().item(), rel=1e-6
            )
            raw = (flat_parameters([model]) - theta).norm()
            assert found["norms"]["retrained_raw"][k].item() == pytest.approx(raw.item(), rel=1e-6)
        moved = (flat_parameters([control]) - theta).norm().item()
        assert found["control_norm"] == pytest.approx(moved)
        assert found["drift"] == pytest.approx(moved / (rate * 9.1))
        assert found["control_loss"] == pytest.approx((of_control - losses[z]).item())
        matrix = reference.hessian(optimum, train[:])
        eigenvalues = torch.linalg.eigvalsh(matrix)
        assert found["top_eigenvalue"] == pytest.approx(eigenvalues[-1].item())
        damped = matrix + configuration.damp * torch.eye(len(matrix)).double()
        g = reference.gradients(optimum, train[:])
        predicted = torch.linalg.solve(damped, g[order[1:5]].T).T / 150
        assert relative_error(found["losses"]["exact"], predicted @ g[z]) < 1e-6
        assert relative_error(found["norms"]["exact"], predicted.norm(dim=1)) < 1e-6
        assert relative_error(found["losses"]["cg"], found["losses"]["exact"]) < 1e-3


def test_a_study_is_computed_once_and_goes_on(few, tmp_path: Path):
    arguments = *STUDY, "--root", tmp_path, "--seed_id", "0-1"
    first = few[0].name
    said = call_well(*arguments, "--only", first).splitlines()
    folder = tmp_path / "results" / "fragility" / "iris" / "quick"
    files = [folder / first / f"{seed}.pt" for seed in load_seeds(2)]
    assert said == [str(path) for path in files]
    found = load(files[0], "", identity={"study": "iris", "configuration": first, "seed": 446})
    assert found["settings"]["steps"] == 20
    whole = load(files[1], "")
    files[1].unlink()
    said = call_well(*arguments, "--only", first).splitlines()
    assert said == [str(files[1]), f"{files[0]}: finished before"]
    # Alone it is another stack, which rounds otherwise.
    again = load(files[1], "")
    for name in ("exact", "retrained"):
        assert relative_error(again["losses"][name], whole["losses"][name]) < 1e-6
    said = call_well(*arguments, "--workers", 1, "--only", first)
    assert "1 of 1 jobs were done before" in said
    assert len(list(folder.rglob("*"))) == 3  # and no lock or temporary file


def test_other_settings_are_refused_and_computed_again_when_asked(few, tmp_path, monkeypatch):
    arguments = *STUDY, "--root", tmp_path, "--seed_id", 1, "--only", few[1].name
    call_well(*arguments)
    monkeypatch.setattr(iris, "configurations", lambda scale: [short(few[1], steps=21)])
    for more in ((), ("--report",)):
        call(*arguments, *more).check_refused("steps is 20, now 21", "--overwrite")
    call_well(*arguments, "--overwrite")
    call_well(*arguments, "--report")


def test_a_report_draws_what_is_there(few, tmp_path: Path):
    arguments = *STUDY, "--root", tmp_path
    call(*arguments, "--report").check_refused("has no results", "--seed_id 0-9")
    some = ("--only", few[2].name)
    call(*arguments, "--report", *some).check_refused(" ".join(some), "--seed_id 0-9")
    folder = tmp_path / "results" / "fragility" / "iris" / "quick"
    for names, ids in (([few[2].name], "2"), ([c.name for c in few], "0-1")):
        call_well(*arguments, "--seed_id", ids, "--only", *names)
        said = call_well(*arguments, "--report")
        assert f"{names[0]}: Spearman of influence and retraining" in said
        for name in ("figure1", "figure2", "figure3"):
            assert (folder / f"{name}.png").stat().st_size > 0
    seeds = pd.read_csv(folder / "agreement_seeds.csv")
    summary = pd.read_csv(folder / "agreement.csv")
    row = summary[(summary["configuration"] == few[0].name) & (summary["value"] == "spearman")]
    row = row[(row["of"] == "losses") & (row["predicted_by"] == "exact")].iloc[0]
    single = seeds[(seeds["configuration"] == few[0].name) & (seeds["of"] == "losses")]
    single = single[single["predicted_by"] == "exact"]["spearman"]
    assert (row["seeds"], row["published"]) == (2, 0.97)
    assert row["mean"] == pytest.approx(single.mean())
    assert len(pd.read_csv(folder / "optima_seeds.csv")) == 2 * len(few) + 1
    kept = record_study("iris", "quick", folder, tmp_path / "measured")
    one = Measured.of("fragility_iris_quick", kept.parent)
    assert (one.about["scale"], one.about["seed_id"]) == ("quick", "0-2")
    table = TABLES["iris_fits"]([one])
    assert len(table) == len(few)
    assert table["Spearman"][0].startswith(f"{single.mean():.2f}")


def test_what_is_recorded_has_a_report(tmp_path):
    with pytest.raises(UserError, match="has no report: run with --report first"):
        record_study("iris", "quick", tmp_path, tmp_path)
    call(*STUDY, "--record").check_refused("--record goes with --report")


def test_wrong_input_is_one_line(few, tmp_path):
    call("run_fragility", "--study", "iris2").check_refused("invalid choice: 'iris2'", "mnist")
    call("run_fragility").check_refused("required: --study")
    call(*STUDY, "--scale", "huge").check_refused("invalid choice: 'huge'", "quick")
    call(*STUDY, "--seed_id", "10000").check_refused("not a number from 0 to 9999")
    call(*STUDY, "--root", tmp_path, "--only", "lenet").check_refused(
        "unknown configuration 'lenet' of iris", few[0].name
    )
    call(*STUDY, "--workers", 2, "--report").check_refused("--gpus and --workers go without")
    images = "run_fragility", "--study", "mnist", "--root", tmp_path
    for side_by_side in ((), ("--workers", 2)):
        call(*images, *side_by_side, "--source", tmp_path / "none").check_refused(
            "none/ylecun/mnist does not exist"
        )
    assert not list(tmp_path.iterdir())
