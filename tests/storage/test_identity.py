"""Files in the place of others, and files that are not sound: one line, and nothing is written."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from src.ensemble.draws import load_seeds
from src.errors import UserError
from src.experiments import PAPER_METHODS, REPOSITORY, Paths, parse_experiment
from src.reports.scores import check_scores, load_images, load_scores
from src.storage.files import load, save
from tests.conftest import DIGITS
from tests.tools import Result, call, call_well, noise_tensors, save_images, score_content, tree

EXPERIMENT = parse_experiment(DIGITS)
OTHER = parse_experiment("cnn3_digits3_10pc")
SEEDS = load_seeds()[:2]
N_TRAIN, N_TEST = 4, 6


def file(experiment: str, method: str, seed: int) -> dict:
    generator = torch.Generator().manual_seed(seed + PAPER_METHODS.index(method))
    scores = torch.randn(5, N_TRAIN, N_TEST, generator=generator)
    return score_content(experiment, method, seed, scores)


@pytest.fixture
def scored(tmp_path: Path) -> Paths:
    """A root with scores of two experiments by two seeds, and images of the samples."""
    paths = Paths(tmp_path / "root")
    for experiment in (EXPERIMENT, OTHER):
        for method in PAPER_METHODS:
            for seed in SEEDS:
                content = file(experiment.name, method, seed)
                save(paths.scores(experiment, method, seed), content)
    save_images(paths, "train_10pc", N_TRAIN)
    save_images(paths, "test", N_TEST)
    return paths


def changed(**changes: object) -> Callable[[dict], dict]:
    return lambda content: content | changes


def without(key: str) -> Callable[[dict], dict]:
    return lambda content: {k: v for k, v in content.items() if k != key}


def with_value(key: str, position: tuple[int, ...], value: float) -> Callable[[dict], dict]:
    def spoil(content: dict) -> dict:
        content[key][position] = value
        return content

    return spoil


def of_an_earlier_version(content: dict) -> dict:
    return content | {"settings": without("train_samples")(content["settings"])}


# Method, what is done to the content of the second seed's file, what the line says.
SCORES = {
    "another method's": ("gc", changed(**file(DIGITS, "gd", SEEDS[1])), "that it is experiment"),
    "another seed's": ("if", changed(**file(DIGITS, "if", SEEDS[0])), "seed 446, where experiment"),
    "another experiment's": ("gd", changed(**file(OTHER.name, "gd", SEEDS[1])), "is experiment"),
    "one NaN": (
        "ats",
        with_value("scores", (2, 3, 1), torch.nan),
        "not finite are 1 of 120 scores, the first (nan) at epoch 12, train index 3, "
        "test index 101",
    ),
    "one inf": ("loo", with_value("scores", (0, 0, 0), -torch.inf), "the first (-inf) at epoch 10"),
    "NaN in the floor": ("loo", with_value("floor", (4, 5), torch.nan), "epoch 14, test index 105"),
    "no floor": ("loo", without("floor"), "does not hold floor"),
    "NaN in the base": ("loo", with_value("base", (0, 1), torch.nan), "epoch 10, test index 101"),
    "no base": ("loo", without("base"), "does not hold base"),
    "a base of its own form": (
        "loo",
        changed(base=torch.zeros(5, 7)),
        "base is float32 [5, 7], where float32 [5, 6] belongs",
    ),
    "float64": ("gd", changed(scores=torch.zeros(5, 4, 6).double()), "float64 [5, 4, 6], where"),
    "one epoch less": ("gd", changed(scores=torch.zeros(4, 4, 6)), "float32 [4, 4, 6], where"),
    "one index more": ("gd", changed(train_idx=torch.arange(5)), "where float32 [5, 5, 6] belong"),
    "an index twice": ("gd", changed(test_idx=torch.zeros(6).long()), "test_idx holds no index"),
    "float indices": ("gd", changed(test_idx=torch.arange(6.0)), "test_idx is float32 [6], where"),
    "a list": ("gd", changed(scores=[1.0]), "scores is no tensor"),
    "other epochs": ("gd", changed(epochs=torch.arange(5)), "the epochs are [0, 1, 2, 3, 4]"),
    "no scores": ("gd", without("scores"), "does not hold scores"),
    "no settings": ("gd", without("settings"), "does not hold settings, checkpoints"),
    "settings of a kind": ("gd", changed(settings="default"), "does not hold"),
    "an earlier version's": ("gd", of_an_earlier_version, "does not hold train_samples"),
}
STATISTICS = ("run_pvalues", "run_correlations")


@pytest.mark.parametrize("script", STATISTICS)
@pytest.mark.parametrize(("method", "spoil", "says"), SCORES.values(), ids=SCORES)
def test_scores(
    scored: Paths, script: str, method: str, spoil: Callable[[dict], dict], says: str
) -> None:
    """The file is in the second experiment: the tables of the first are not made either."""
    path = scored.scores(EXPERIMENT, method, SEEDS[1])
    save(path, spoil(load(path, "")))
    before = tree(scored.root)
    result = call(
        script, "--root", scored.root, "--allow_missing", "--experiment", OTHER.name, DIGITS
    )
    step = "gd_and_gc" if method in ("gd", "gc") else method
    again = f"python run_{step}.py --experiment {DIGITS} --seed_id 1 --root {scored.root}"
    result.check_refused(str(path), says, f"with: {again} --overwrite")
    assert tree(scored.root) == before


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("what", ["index", "digest"])
def test_experiments_that_are_compared_have_the_same_samples(
    scored: Paths, split: str, what: str
) -> None:
    for method in PAPER_METHODS:
        for seed in SEEDS:
            path = scored.scores(OTHER, method, seed)
            content = load(path, "")
            if what == "index":
                content[f"{split}_idx"] += 1
            else:
                content["settings"][f"{split}_samples"] = "others"
            save(path, content)
    before = tree(scored.root)
    result = call(
        *("run_correlations", "--root", scored.root, "--allow_missing"),
        *("--experiment", DIGITS, OTHER.name),
    )
    result.check_refused(DIGITS, OTHER.name, f"of other samples of digits3 {split}")
    assert tree(scored.root) == before
    check_scores(scored, [OTHER], partial(load_scores, scored, allow_missing=True))


class TestImages:
    """The sheets of run_pvalues.py show the samples that the scores were computed from."""

    def refused(self, scored: Paths, *says: str) -> None:
        before = tree(scored.root)
        arguments = ("--root", scored.root, "--allow_missing", "--experiment", DIGITS)
        result = call("run_pvalues", *arguments, "--test_index", 103)
        result.check_refused(*says, f"--task digits3 --root {scored.root} --overwrite")
        assert tree(scored.root) == before

    @pytest.mark.parametrize("what", ["images", "labels"])
    @pytest.mark.parametrize("split", EXPERIMENT.splits.values())
    def test_others(self, scored: Paths, split: str, what: str) -> None:
        path = scored.tensors("digits3", split)
        content = load(path, "")
        content[what][2] = 1 - content[what][1]
        save(path, content)
        again = f"--experiment {DIGITS} --seed_id 0-1 --root {scored.root} --overwrite"
        says = [f"{path} holds other samples than the scores", f"run_loo.py {again}"]
        self.refused(scored, *says, *([f"run_cnn_training.py {again}"] if split != "test" else []))

    def test_another_index(self, scored: Paths) -> None:
        path = scored.tensors("digits3", "test")
        content = load(path, "")
        content["indices"][2] = 7
        save(path, content)
        self.refused(scored, f"{path} does not hold sample 102", "run_loo.py")

    def test_none(self, scored: Paths) -> None:
        path = scored.tensors("digits3", "test")
        path.unlink()
        before = tree(scored.root)
        result = call(
            *("run_pvalues", "--root", scored.root, "--allow_missing", "--experiment", DIGITS)
        )
        result.check_refused(f"{path} does not exist", f"--task digits3 --root {scored.root}")
        assert tree(scored.root) == before

    def test_another_order_is_joined_by_index(self, scored: Paths) -> None:
        order = torch.tensor([3, 5, 0, 1, 4, 2])
        content = noise_tensors("test", N_TEST)
        shuffled = {key: content[key][order] for key in ("images", "labels", "indices")}
        save(scored.tensors("digits3", "test"), content | shuffled)
        scores = load_scores(scored, EXPERIMENT, allow_missing=True)
        found = load_images(scored, scores)["test"]
        np.testing.assert_array_equal(found["indices"], scores.test_idx)
        assert torch.equal(found["images"], content["images"])
        assert torch.equal(found["labels"], content["labels"])

    def test_that_were_generated_anew(self, digits_root: Path, copy_of: Callable) -> None:
        """Of another index file: at the position of the old sample there is another one now."""
        root = copy_of(digits_root)
        paths = Paths(root)
        for method in PAPER_METHODS:
            content = load(paths.scores(EXPERIMENT, method, SEEDS[0]), "")
            save(paths.scores(EXPERIMENT, method, SEEDS[1]), content | {"seed": SEEDS[1]})
        path = paths.indices("digits3", "test")
        kept, *others = path.read_text().split()
        path.write_text("\n".join([others[0], *others[1:], kept]))
        call_well("run_subset_generation", "--root", root, "--task", "digits3")
        load_images(paths, load_scores(paths, EXPERIMENT, allow_missing=True))  # another order
        path.write_text("\n".join(others))
        call_well("run_subset_generation", "--root", root, "--task", "digits3")
        before = tree(root)
        result = call(
            *("run_pvalues", "--root", root, "--allow_missing", "--experiment", DIGITS),
            *("--test_index", kept),
        )
        result.check_refused(f"does not hold sample {kept}", "run_subset_generation.py")
        assert tree(root) == before


@pytest.fixture
def trained(digits_root: Path, copy_of: Callable[[Path], Path]) -> Paths:
    """A root that a test may write to: trained seeds, and the scores of the first."""
    return Paths(copy_of(digits_root))


def refused(paths: Paths, script: str, *says: str, seed_id: int = 0) -> Result:
    before = tree(paths.root)
    arguments = ("--root", paths.root, "--experiment", DIGITS, "--seed_id", seed_id)
    result = call(script, *arguments)
    result.check_refused(*says)
    assert tree(paths.root) == before
    return result


def follow(result: Result) -> str:
    """Run the command that an error message ends with, and return what it printed."""
    command = result.err.split(" with: ")[-1].strip().split(", or give")[0]
    python, script, *arguments = shlex.split(command)
    assert python == "python"
    return call_well(script, *arguments)


def parameter(value: float) -> Callable[[dict], dict]:
    def spoil(content: dict) -> dict:
        content["model_state_dict"]["fc1.weight"][3, 7] = value
        return content

    return spoil


def in_double(content: dict) -> dict:
    params = content["model_state_dict"]
    return content | {"model_state_dict": {name: p.double() for name, p in params.items()}}


def of_another_experiment(content: dict) -> dict:
    return content | {"settings": content["settings"] | {"experiment": OTHER.name}}


# What is done to the content of epoch 12's checkpoint, what the line says.
CHECKPOINTS = {
    "another seed's": (None, "says that it is experiment cnn2_digits3_10pc, seed 724, epoch 12"),
    "another epoch's": (changed(epoch=13), "seed 446, epoch 13, where"),
    "another experiment's": (of_another_experiment, "is experiment cnn3_digits3_10pc"),
    "another training's": (changed(training="other"), "are of two different trainings"),
    "NaN": (parameter(torch.nan), "not finite are 1 of 204,800 values of fc1.weight"),
    "inf": (parameter(torch.inf), "the first (inf) at position [3, 7]"),
    "float64": (in_double, "other parameters or buffers than the model"),
    "no parameters": (without("model_state_dict"), "does not hold model_state_dict"),
    "an earlier version's": (without("training"), "does not hold training"),
}


@pytest.mark.parametrize("script", ["run_cnn_training", "run_gd_and_gc"])
@pytest.mark.parametrize(("spoil", "says"), CHECKPOINTS.values(), ids=CHECKPOINTS)
def test_checkpoints(
    trained: Paths, script: str, spoil: Callable[[dict], dict] | None, says: str
) -> None:
    path = trained.checkpoint(EXPERIMENT, SEEDS[0], 12)
    if spoil is None:
        shutil.copyfile(trained.checkpoint(EXPERIMENT, SEEDS[1], 12), path)
    else:
        save(path, spoil(load(path, "")))
    again = f"python run_cnn_training.py --experiment {DIGITS} --seed_id 0"
    refused(trained, script, path.name, says, again, f"--root {trained.root} --overwrite")


@pytest.mark.parametrize("script", ["run_loo", "run_ats", "run_if"])
def test_checkpoints_of_another_epoch(trained: Paths, script: str) -> None:
    first, second = (trained.checkpoint(EXPERIMENT, SEEDS[0], epoch) for epoch in (10, 11))
    shutil.copyfile(first, second)
    refused(trained, script, str(second), "epoch 10, where experiment", "run_cnn_training.py")


def test_the_training_that_is_advised_helps(trained: Paths) -> None:
    first, second = (trained.checkpoint(EXPERIMENT, SEEDS[0], epoch) for epoch in (10, 11))
    before = tree(trained.root)
    shutil.copyfile(first, second)
    follow(refused(trained, "run_gd_and_gc", "epoch 10, where experiment"))
    assert tree(trained.root) == before


@pytest.mark.parametrize("other", ["train_20pc", "test"])
@pytest.mark.parametrize("script", ["run_cnn_training", "run_ats"])
def test_tensors_of_another_split(trained: Paths, script: str, other: str) -> None:
    path = trained.tensors("digits3", "train_10pc")
    before = tree(trained.root)
    shutil.copyfile(trained.tensors("digits3", other), path)
    says = f"{path} says that it is task digits3, split {other}, where task digits3, split train_1"
    result = refused(trained, script, says, f"--task digits3 --root {trained.root} --overwrite")
    call_well("run_subset_generation", "--root", trained.root, "--task", "digits3")
    assert tree(trained.root) == before
    shutil.copyfile(trained.tensors("digits3", other), path)
    follow(result)
    assert tree(trained.root) == before


@pytest.mark.parametrize("key", ["task", "split"])
def test_tensors_of_an_earlier_version(trained: Paths, key: str) -> None:
    path = trained.tensors("digits3", "test")
    save(path, without(key)(load(path, "")))
    follow(refused(trained, "run_cnn_training", f"{path} does not hold {key}"))
    assert load(path, "")[key] == {"task": "digits3", "split": "test"}[key]


FINISHED = {
    "another method's": (changed(method="gd"), "method gd, seed 446, where"),
    "NaN": (with_value("scores", (0, 0, 0), torch.nan), "not finite are 1 of 45,000 scores"),
    "other epochs": (changed(epochs=torch.arange(5)), "the epochs are [0"),
    "no indices": (without("train_idx"), "does not hold train_idx"),
    "an earlier version's": (of_an_earlier_version, "does not hold train_samples"),
}


@pytest.mark.parametrize(("spoil", "says"), FINISHED.values(), ids=FINISHED)
def test_scores_that_were_not_finished_before(
    trained: Paths, spoil: Callable[[dict], dict], says: str
) -> None:
    path = trained.scores(EXPERIMENT, "gc", SEEDS[0])
    before = load(path, "")
    save(path, spoil(load(path, "")))
    follow(refused(trained, "run_gd_and_gc", str(path), says))
    assert torch.equal(load(path, "")["scores"], before["scores"])


def nan_in_a_piece(content: dict) -> dict:
    content["pieces"][0][1][2, 3] = torch.nan
    return content


PARTIAL = {
    "another method's": (changed(method="loo"), "method loo, seed 446, where"),
    "another seed's": (changed(seed=724), "seed 724, where"),
    "another experiment's": (changed(experiment=OTHER.name), f"experiment {OTHER.name}, method"),
    "NaN": (nan_in_a_piece, "not finite are 1 of 9,000 scores of piece 0"),
    "no pieces": (without("pieces"), "does not hold pieces"),
    "an earlier version's": (without("method"), "does not hold method"),
}


@pytest.mark.parametrize(("spoil", "says"), PARTIAL.values(), ids=PARTIAL)
def test_partial_scores(trained: Paths, spoil: Callable[[dict], dict], says: str) -> None:
    paths = [trained.scores(EXPERIMENT, method, SEEDS[0]) for method in ("gd", "gc")]
    contents = [load(path, "") for path in paths]
    partial = trained.partial_scores(EXPERIMENT, "gd", SEEDS[0])
    piece = tuple(content["scores"][0].clone() for content in contents)
    settings = contents[0]["settings"]
    identity = {key: contents[0][key] for key in ("experiment", "method", "seed")}
    for path in paths:
        path.unlink()
    save(partial, spoil({"pieces": [piece], "settings": settings, **identity}))
    follow(refused(trained, "run_gd_and_gc", str(partial), says))
    for path, content in zip(paths, contents, strict=True):
        assert torch.equal(load(path, "")["scores"], content["scores"])


def test_the_advice_has_the_options_that_were_given(trained: Paths) -> None:
    arguments = ("--root", trained.root, "--experiment", DIGITS, "--seed_id", 0)
    result = call("run_if", *arguments, "--damp", 0.1, "--scale", 2e4)
    result.check_refused("damp is 0.005, now 0.1")
    follow(result)
    settings = load(trained.scores(EXPERIMENT, "if", SEEDS[0]), "")["settings"]
    assert (settings["damp"], settings["scale"]) == (0.1, 2e4)


def test_commands_name_the_root_where_it_is_not_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Paths(REPOSITORY).command("run_x.py", "--seed_id", 3) == "python run_x.py --seed_id 3"
    monkeypatch.chdir(tmp_path)
    assert Paths(Path("a b")).command("run_x.py") == f"python run_x.py --root '{tmp_path}/a b'"
    monkeypatch.chdir(REPOSITORY)
    assert Paths(Path()).command("run_x.py") == "python run_x.py"


def test_the_launcher_names_the_root(tmp_path: Path) -> None:
    result = call("run_parallel", "--root", tmp_path, "--experiment", DIGITS)
    result.check_refused(f"python run_subset_generation.py --task digits3 --root {tmp_path}")


def test_a_missing_experiment_is_no_other(scored: Paths) -> None:
    with pytest.raises(UserError, match=rf"run_loo.py .* --root {scored.root}"):
        load_scores(scored, EXPERIMENT, allow_missing=False)
