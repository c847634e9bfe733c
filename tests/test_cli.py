"""The command line: wrong input is one line and exit code 2, and a second call computes nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import src.argument_types
import src.storage.files
from src.experiments import REPOSITORY, Experiment, Paths, parse_experiment
from tests.conftest import DIGITS
from tests.tools import call, call_well, relative_error, run_script, tree

SCRIPTS = sorted(path.name for path in REPOSITORY.glob("run_*.py"))
SCORING = ["run_ats", "run_gd_and_gc", "run_if", "run_loo"]
ON_SEEDS = ["run_cnn_training", *SCORING]
HEAVY = {"torch", "torchvision", "datasets", "transformers", "pandas", "scipy", "matplotlib"}
EXPERIMENT = parse_experiment(DIGITS)
SEED = 446


@pytest.fixture
def root(digits_root: Path, copy_of: Callable[[Path], Path]) -> Path:
    """A root of its own: data, three trained seeds, seed 0's scores."""
    return copy_of(digits_root)


def test_every_script_is_known():
    assert {f"{name}.py" for name in [*ON_SEEDS, "run_subset_generation"]} <= set(SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("args", [["--help"], ["--no_such_option"], ["--experiment", "wrong"]])
def test_help_and_wrong_arguments_import_nothing_heavy(script: str, args: list[str]):
    """So that they are answered within a second."""
    code = (
        "import json, runpy, sys\n"
        "sys.argv = sys.argv[1:]\n"
        "try:\n"
        "    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as stop:\n"
        "    print(json.dumps([stop.code or 0, sorted(sys.modules)]), file=sys.__stdout__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(REPOSITORY / script), *args],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    exit_code, modules = json.loads(done.stdout.splitlines()[-1])
    assert not HEAVY & set(modules)
    if args == ["--help"]:
        assert exit_code == 0
        assert "--root DIR" in done.stdout
    else:
        assert exit_code == 2
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_explains_every_option(script: str, capsys: pytest.CaptureFixture):
    out = call(script, "--help").out
    assert "default: " in out
    if script.removesuffix(".py") in ON_SEEDS:
        assert {"--experiment", "--seed_id", "--device", "--overwrite"} <= set(
            out.replace(",", " ").split()
        )


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--experiment", "cnn2"], "unknown experiment 'cnn2'"),
        (["--experiment", "mlp_mnist3_10pc"], "unknown model 'mlp'"),
        (["--experiment", "cnn2_svhn_10pc"], "unknown task 'svhn'"),
        (["--experiment", "cnn2_mnist3_11pc"], "choose from 10, 20, 50"),
        (["--experiment", "cnn2_mnist3_10pc_x"], "unknown suffix '_x'"),
        (["--experiment", DIGITS, "--seed_id", "10000"], "not a number from 0 to 9999"),
        (["--experiment", DIGITS, "--seed_id", "-1"], "not a number from 0 to 9999"),
        (["--experiment", DIGITS, "--seed_id", "one"], "not a number from 0 to 9999"),
        (["--experiment", DIGITS, "--seed_id", "0,2,5-10000"], "from 0 to 9999"),
        (["--experiment", DIGITS, "cnn2"], "unknown experiment 'cnn2'"),
    ],
)
@pytest.mark.parametrize("script", ON_SEEDS)
def test_wrong_arguments(tmp_path: Path, script: str, args: list[str], says: str):
    call(script, "--root", tmp_path, *args).check_refused(says)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("script", "args", "says"),
    [
        ("run_loo", ["--protocol", "x"], "invalid choice"),
        ("run_loo", ["--chunk_size", "0"], "at least 1"),
        ("run_ats", ["--chunk_size", "many"], "at least 1"),
        ("run_if", ["--solver", "x"], "invalid choice"),
        ("run_if", ["--damp", "-1"], "at least 0"),
        ("run_if", ["--damp", "nan"], "at least 0"),
        ("run_if", ["--scale", "0"], "above 0"),
        ("run_if", ["--solver", "cg", "--tolerance", "1"], "below 1"),
        ("run_if", ["--solver", "cg", "--scale", "10"], "--scale has no effect with --solver cg"),
        ("run_if", ["--tolerance", "0.1"], "--tolerance has no effect with --solver lissa"),
        ("run_parallel", ["--n_subsets", "40"], "no effect without --methods subsets"),
        ("run_gd_and_gc", ["--device", "nonsense"], "there is no device 'nonsense'"),
        ("run_cnn_training", ["--device", "cuda:99"], "there is no device 'cuda:99'"),
    ],
)
def test_wrong_options(tmp_path: Path, script: str, args: list[str], says: str):
    call(script, "--root", tmp_path, "--experiment", DIGITS, *args).check_refused(says)
    assert not list(tmp_path.iterdir())


def test_subset_generation_refuses_unknown_tasks_and_folders(tmp_path: Path):
    call("run_subset_generation", "--root", tmp_path, "--task", "svhn").check_refused("svhn")
    args = ("--task", "mnist3", "--source", tmp_path / "no")
    call("run_subset_generation", "--root", tmp_path, *args).check_refused(
        f"{tmp_path / 'no' / 'ylecun' / 'mnist'} does not exist", "--source", "TDA_DATASETS"
    )
    assert not list(tmp_path.iterdir())


def test_training_refuses_experiments_of_another_script(tmp_path: Path):
    if "run_vit_finetuning.py" not in SCRIPTS:
        pytest.skip("every model is trained by one script")
    args = ("--root", tmp_path, "--experiment", "vit_mnist3_10pc")
    call("run_cnn_training", *args).check_refused("run_vit_finetuning.py")


def test_in_a_process_of_its_own(tmp_path: Path, digits_root: Path):
    """What the other tests check inside this process, as a person sees it."""
    missing = "run_gd_and_gc.py", "--root", tmp_path, "--experiment", DIGITS
    run_script(*missing).check_refused("does not exist", "run_subset_generation.py --task digits3")
    damaged = "run_gd_and_gc.py", "--root", tmp_path, "--experiment", DIGITS, "--seed_id", 0
    shutil.copytree(digits_root / "data", tmp_path / "data")
    run_script(*damaged).check_refused("run_cnn_training.py --experiment", "--seed_id 0")
    shutil.copytree(digits_root / "models", tmp_path / "models")
    checkpoint = Paths(tmp_path).checkpoint(EXPERIMENT, SEED, 12)
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1000])
    run_script(*damaged).check_refused(f"{checkpoint} is damaged")
    assert not (tmp_path / "tda_scores").exists()


@pytest.mark.parametrize("script", ON_SEEDS)
def test_a_missing_subset_names_the_command(tmp_path: Path, script: str):
    result = call(script, "--root", tmp_path, "--experiment", DIGITS)
    result.check_refused("train_10pc.pt does not exist", "run_subset_generation.py --task digits3")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("script", SCORING)
def test_a_missing_checkpoint_names_the_command(root: Path, script: str):
    Paths(root).checkpoint(EXPERIMENT, SEED, 14).unlink()
    before = tree(root)
    result = call(script, "--root", root, "--experiment", DIGITS, "--overwrite")
    result.check_refused(
        "ckpt_epoch_14.pt does not exist",
        f"python run_cnn_training.py --experiment {DIGITS} --seed_id 0",
    )
    assert tree(root) == before


@pytest.mark.parametrize("script", SCORING)
def test_a_truncated_checkpoint_is_damaged(root: Path, script: str):
    path = Paths(root).checkpoint(EXPERIMENT, SEED, 10)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    before = tree(root)
    result = call(script, "--root", root, "--experiment", DIGITS, "--overwrite")
    result.check_refused(f"{path} is damaged", "run_cnn_training.py", "--seed_id 0")
    assert tree(root) == before


@pytest.mark.parametrize("script", ON_SEEDS)
def test_other_samples_than_those_trained_on(root: Path, script: str):
    """New tensors: neither the checkpoints nor their scores belong to them."""
    indices = Paths(root).indices("digits3", "train_10pc")
    shutil.copyfile(indices.with_name("train_20pc.txt"), indices)
    call_well("run_subset_generation", "--root", root, "--task", "digits3")
    before = tree(root)
    result = call(script, "--root", root, "--experiment", DIGITS, "--seed_id", 0)
    result.check_refused("made with other settings", "train_samples is ")
    assert tree(root) == before


@pytest.mark.parametrize(
    ("script", "args", "says"),
    [
        ("run_if", ["--damp", "0.01"], "damp is 0.005, now 0.01"),
        ("run_if", ["--solver", "cg"], "solver is lissa, now cg"),
        ("run_loo", ["--protocol", "continue"], "protocol is retrain, now continue"),
    ],
)
def test_scores_with_other_settings(digits_root: Path, script: str, args: list[str], says: str):
    before = tree(digits_root)
    result = call(script, "--root", digits_root, "--experiment", DIGITS, "--seed_id", 0, *args)
    result.check_refused("made with other settings", says, "--overwrite")
    assert tree(digits_root) == before


@pytest.mark.parametrize("script", SCORING)
def test_scores_of_other_checkpoints(root: Path, script: str):
    """Checkpoints that were trained anew, with other numbers: the scores are not theirs."""
    for epoch in EXPERIMENT.kept_epochs:
        path = Paths(root).checkpoint(EXPERIMENT, SEED, epoch)
        content = torch.load(path, weights_only=True)
        content.pop("checksum")
        content["model_state_dict"]["fc2.bias"] += 1e-3
        src.storage.files.save(path, content)
    before = tree(root)
    result = call(script, "--root", root, "--experiment", DIGITS, "--seed_id", 0)
    result.check_refused("made with other settings", "checkpoints is ")
    assert tree(root) == before


@pytest.mark.parametrize(("script", "method"), [("run_gd_and_gc", "gc"), ("run_if", "if")])
def test_a_truncated_score_file_is_damaged(root: Path, script: str, method: str):
    path = Paths(root).scores(EXPERIMENT, method, SEED)
    path.write_bytes(path.read_bytes()[:-500])
    result = call(script, "--root", root, "--experiment", DIGITS, "--seed_id", 0)
    result.check_refused(f"{path} is damaged", f"python {script}", "--overwrite")


@pytest.mark.parametrize(
    ("script", "folder"),
    [
        ("run_subset_generation", "data"),
        ("run_cnn_training", "models"),
        ("run_gd_and_gc", "tda_scores"),
        ("run_ats", "tda_scores"),
    ],
)
@pytest.mark.parametrize("how", ["file", "read-only"])
def test_a_folder_that_cannot_be_written(root: Path, script: str, folder: str, how: str):
    if how == "read-only" and os.geteuid() == 0:
        pytest.skip("root writes everywhere")
    shutil.rmtree(root / folder)
    if how == "file":
        (root / folder).write_text("mine")
    else:
        (root / folder).mkdir(mode=0o555)
    before = tree(root)
    args = ["--experiment", DIGITS, "--seed_id", 0]
    args = ["--task", "digits3"] if script == "run_subset_generation" else args
    # A checkpoint or index file below a file cannot be looked up either.
    call(script, "--root", root, *args).check_refused("cannot write", str(root / folder))
    assert tree(root) == before


def test_a_root_that_is_a_file(tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    for script, args in (
        ("run_subset_generation", ["--task", "digits3"]),
        ("run_cnn_training", ["--experiment", DIGITS]),
        ("run_ats", ["--experiment", DIGITS]),
    ):
        call(script, "--root", tmp_path / "file", *args).check_refused(str(tmp_path / "file"))


def test_a_loss_that_is_not_finite_saves_nothing(root: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.rmtree(root / "models")
    before = tree(root)

    def diverging(name: str) -> Experiment:
        experiment = parse_experiment(name)
        task = replace(experiment.task, hyperparameters={"epochs": 15, "learning_rate": 1e30})
        return replace(experiment, task=task)

    monkeypatch.setattr(src.argument_types, "parse_experiment", diverging)
    result = call("run_cnn_training", "--root", root, "--experiment", DIGITS, "--seed_id", 0)
    result.check_refused("not finite; nothing was saved")
    assert tree(root) == before


def inodes(root: Path, folder: str) -> dict[str, int]:
    """Return the files of seed 0 with their inodes, which a file that is replaced changes."""
    return {
        str(path.relative_to(root)): path.stat().st_ino
        for path in (root / folder).rglob("*.pt")
        if str(SEED) in str(path.relative_to(root))
    }


@pytest.mark.parametrize("script", ON_SEEDS)
def test_a_second_call_computes_nothing(
    digits_root: Path, script: str, monkeypatch: pytest.MonkeyPatch
):
    def compute(*_: object, **__: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr("src.ensemble.training.Trainer.step", compute)
    monkeypatch.setattr("src.ensemble.members.PerSampleLoss.__call__", compute)
    before = inodes(digits_root, "")
    out = call_well(script, "--root", digits_root, "--experiment", DIGITS, "--seed_id", 0)
    assert all(line.endswith(": finished before") for line in out.splitlines())
    assert inodes(digits_root, "") == before


@pytest.mark.parametrize("script", ["run_cnn_training", "run_gd_and_gc"])
def test_overwriting_computes_again_and_gives_the_same(root: Path, script: str):
    folder = "models" if script == "run_cnn_training" else "tda_scores"
    old = inodes(root, folder)
    before = {name: torch.load(root / name, weights_only=True) for name in old}
    args = ("--root", root, "--experiment", DIGITS, "--seed_id", 0, "--overwrite")
    assert "finished before" not in call_well(script, *args)
    changed = {name for name, inode in inodes(root, folder).items() if inode != old[name]}
    methods = {"gd", "gc"}
    assert changed == {n for n in old if folder == "models" or Path(n).parts[2] in methods}
    for name in changed:
        again = torch.load(root / name, weights_only=True)
        assert again["checksum"] == before[name]["checksum"]


def test_one_missing_checkpoint_is_trained_again(root: Path):
    path = Paths(root).checkpoint(EXPERIMENT, SEED, 13)
    before = torch.load(path, weights_only=True)
    path.unlink()
    out = call_well(
        *("run_cnn_training", "--root", root, "--experiment", DIGITS, "--seed_id", "0-2")
    )
    assert out.count("finished before") == 2
    assert torch.load(path, weights_only=True)["checksum"] == before["checksum"]


@pytest.mark.slow
def test_chunk_size_changes_no_number_and_no_setting(root: Path):
    for script, method in (("run_gd_and_gc", "gd"), ("run_ats", "ats")):
        path = Paths(root).scores(EXPERIMENT, method, SEED)
        before = torch.load(path, weights_only=True)
        args = ("--root", root, "--experiment", DIGITS, "--seed_id", 0, "--chunk_size", 7)
        assert "finished before" in call_well(script, *args)
        call_well(script, *args, "--overwrite")
        after = torch.load(path, weights_only=True)
        assert after["settings"] == before["settings"]
        assert relative_error(after["scores"], before["scores"]) < 1e-4


def test_training_prints_accuracies(root: Path):
    shutil.rmtree(root / "models")
    args = ("--root", root, "--experiment", DIGITS, "--seed_id", 3)
    out = call_well("run_cnn_training", *args)
    assert f"models/{DIGITS}/296: loss 0." in out
    assert "accuracy on train 9" in out
    assert "on test 9" in out
    assert {path.name for path in (root / "models" / DIGITS).iterdir()} == {"296"}


def test_options_reach_the_numbers_and_settings(root: Path):
    """Conjugate gradient in place of LiSSA, and a solver that a small network only can take."""

    def scores() -> dict:
        return torch.load(Paths(root).scores(EXPERIMENT, "if", SEED), weights_only=True)

    before = scores()["scores"]
    args = ("--root", root, "--experiment", DIGITS, "--seed_id", 0, "--overwrite")
    out = call_well("run_if", *args, "--solver", "cg", "--damp", 2, "--max_iterations", 1)
    assert "residual" in out
    assert scores()["residual"].shape == (5, 30)
    assert (scores()["settings"]["solver"], scores()["settings"]["damp"]) == ("cg", 2)
    assert relative_error(scores()["scores"], before) > 1
    exact = call("run_if", *args, "--solver", "exact")
    exact.check_refused("225,034 parameters needs 754.6 GiB")
    assert scores()["settings"]["solver"] == "cg"
