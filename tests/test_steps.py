"""Scripts for several seeds and experiments: all is checked before the first is computed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from src import progress
from src.ensemble.draws import load_seeds
from src.experiments import Paths, parse_experiment
from src.storage.files import load, save
from src.storage.locks import lock
from tests.conftest import DIGITS
from tests.tools import call, call_well, tree

EXPERIMENT = parse_experiment(DIGITS)
OTHER = parse_experiment("cnn2_digits3_20pc")
SEEDS = load_seeds()


@pytest.fixture(scope="module")
def ten_trained(digits_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root in which all ten seeds of DIGITS are trained. Not to be written to."""
    root = shutil.copytree(digits_root, tmp_path_factory.mktemp("ten") / "root")
    call_well("run_cnn_training", "--root", root, "--experiment", DIGITS)
    return root


@pytest.fixture
def root(ten_trained: Path, copy_of: Callable[[Path], Path]) -> Path:
    """Samples, ten trained seeds and seed 0's scores of DIGITS; nothing of OTHER."""
    return copy_of(ten_trained)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What ATS was computed of, (experiment, seed); in place of scores it gives zeros."""
    done = []

    def collect(draws, items, *_: object) -> torch.Tensor:
        done.append((draws.setup.experiment.name, draws.seed))
        return torch.zeros(5, len(items), len(draws.setup.test))

    monkeypatch.setattr("src.tda.ats.collect", collect)
    return done


def ats(root: Path, *args: object) -> tuple[object, ...]:
    return ("run_ats", "--root", root, "--experiment", *args)


def test_seeds_in_lists_and_ranges(root: Path, computed: list):
    out = call_well(*ats(root, DIGITS, DIGITS, "--seed_id", "0,2,5-7"))
    assert computed == [(DIGITS, SEEDS[k]) for k in (2, 5, 6, 7)]
    path = Paths(root).scores(EXPERIMENT, "ats", SEEDS[0])
    files = [str(path.with_name(f"{SEEDS[k]}.pt")) for k in (0, 2, 5, 6, 7)]
    assert out.splitlines() == [f"{files[0]}: finished before", *files[1:]]


@pytest.mark.slow
def test_seeds_beyond_the_ten(root: Path):
    """They are trained, scored and, where missing, named as any other."""
    seed = load_seeds(13)[12]
    arguments = ("--root", root, "--experiment", DIGITS, "--seed_id", "0,12")
    call("run_gd_and_gc", *arguments).check_refused(
        f"models/{DIGITS}/{seed}/ckpt_epoch_10.pt", "run_cnn_training.py", "--seed_id 12"
    )
    call_well("run_cnn_training", *arguments)
    call_well("run_gd_and_gc", *arguments)
    paths = Paths(root)
    checkpoint = load(paths.checkpoint(EXPERIMENT, seed, 14), "")
    assert checkpoint["settings"]["seed"] == seed
    assert load(paths.scores(EXPERIMENT, "gd", seed), "")["seed"] == seed
    out = call_well("run_pvalues", *arguments, "--allow_missing")
    assert f"{DIGITS}, ttest over 2 seeds" in out
    page = (paths.results(EXPERIMENT) / "index.html").read_text()
    assert f"2 (seed_id 0,12): 446, {seed}" in page
    call("run_pvalues", *arguments).check_refused(
        "loo of seed_id 12; ats of seed_id 12; if of seed_id 12. Make",
        f"python run_loo.py --experiment {DIGITS} --seed_id 12 ",
    )


def test_several_experiments(root: Path, computed: list):
    call_well("run_cnn_training", "--root", root, "--experiment", OTHER.name, "--seed_id", 3)
    call_well(*ats(root, OTHER.name, DIGITS, "--seed_id", 3))
    assert computed == [(OTHER.name, SEEDS[3]), (DIGITS, SEEDS[3])]


def without_checkpoint(root: Path) -> None:
    Paths(root).checkpoint(EXPERIMENT, SEEDS[9], 14).unlink()


def with_a_damaged_checkpoint(root: Path) -> None:
    path = Paths(root).checkpoint(EXPERIMENT, SEEDS[9], 12)
    path.write_bytes(path.read_bytes()[:-1000])


def other_scores(root: Path) -> None:
    paths = [Paths(root).scores(EXPERIMENT, "ats", SEEDS[k]) for k in (0, 9)]
    content = load(paths[0], "")
    save(paths[1], content | {"seed": SEEDS[9]})


def a_partial_file_of_other_checkpoints(root: Path) -> None:
    identity = {"experiment": DIGITS, "method": "ats", "seed": SEEDS[9]}
    path = Paths(root).partial_scores(EXPERIMENT, "ats", SEEDS[9])
    save(path, {"pieces": [], "settings": {"checkpoints": "others"}, **identity})


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (without_checkpoint, "/470/ckpt_epoch_14.pt does not exist"),
        (with_a_damaged_checkpoint, "/470/ckpt_epoch_12.pt is damaged"),
        (other_scores, "/470.pt was made with other settings (checkpoints is"),
        (a_partial_file_of_other_checkpoints, "/470.partial.pt was made with other settings"),
    ],
)
def test_the_last_seed_is_looked_at_before_the_first_is_scored(
    root: Path, computed: list, spoil: Callable[[Path], None], says: str
):
    spoil(root)
    before = tree(root)
    call(*ats(root, DIGITS)).check_refused(says, "--seed_id 9")
    assert computed == []
    assert tree(root) == before


def test_the_last_experiment_is_looked_at_before_the_first(root: Path, computed: list):
    call(*ats(root, DIGITS, OTHER.name)).check_refused(
        f"{OTHER.name}/446/ckpt_epoch_10.pt does not exist",
        f"run_cnn_training.py --experiment {OTHER.name} --seed_id 0",
    )
    assert computed == []
    shutil.rmtree(root / "models")
    Paths(root).tensors("digits3", "train_20pc").unlink()
    before = tree(root)
    call("run_cnn_training", "--root", root, "--experiment", DIGITS, OTHER.name).check_refused(
        "train_20pc.pt does not exist", "run_subset_generation.py --task digits3"
    )
    assert tree(root) == before


def test_the_last_seed_is_looked_at_before_the_first_is_trained(root: Path):
    shutil.rmtree(Paths(root).checkpoint(EXPERIMENT, SEEDS[0], 0).parent)
    path = Paths(root).checkpoint(EXPERIMENT, SEEDS[9], 12)
    content = load(path, "")
    save(path, content | {"settings": content["settings"] | {"batch_size": 64}})
    before = tree(root)
    result = call("run_cnn_training", "--root", root, "--experiment", DIGITS)
    result.check_refused("/470/ckpt_epoch_12.pt was made with other settings (batch_size is 64")
    assert tree(root) == before


@pytest.mark.parametrize("what", ["scores_lock", "training_lock"])
def test_a_held_seed_leaves_the_others_going(root: Path, computed: list, what: str):
    paths = Paths(root)
    if what == "scores_lock":
        held = paths.scores_lock(EXPERIMENT, "ats", SEEDS[1])
        a_partial_file_of_other_checkpoints(root)  # of the process at work
        paths.partial_scores(EXPERIMENT, "ats", SEEDS[9]).replace(
            paths.partial_scores(EXPERIMENT, "ats", SEEDS[1])
        )
    else:
        held = paths.training_lock(EXPERIMENT, SEEDS[1])
        paths.checkpoint(EXPERIMENT, SEEDS[1], 10).unlink()  # they are being replaced
    with lock(held):
        result = call(*ats(root, DIGITS, "--seed_id", "1-3"))
    assert result.code == 3
    assert len(result.err.splitlines()) == 1
    assert f"ats/{SEEDS[1]}.pt: " in result.err
    assert "is at work on it" in result.err
    assert computed == [(DIGITS, SEEDS[2]), (DIGITS, SEEDS[3])]


def test_lines_in_a_pipe(root: Path, monkeypatch: pytest.MonkeyPatch):
    """Of scripts that take more than a minute, here a fiftieth of a second."""
    monkeypatch.setattr(progress, "TOLD_EVERY", 0.02)
    for name in ("run_cnn_training", "run_gd_and_gc"):
        args = ("--root", root, "--experiment", DIGITS, "--seed_id", 0, "--overwrite")
        result = call(name, *args)
        assert result.code == 0
        what = {"run_cnn_training": f"{DIGITS} seed 446", "run_gd_and_gc": "gd and gc seed 446"}
        of = {"run_cnn_training": "of 15 epochs, 0 min", "run_gd_and_gc": "of 5 checkpoints, 0 min"}
        lines = result.err.splitlines()
        assert any(line.startswith(f"{what[name]}: ") and of[name] in line for line in lines)
        assert any(line.endswith("less than 1 min left") for line in lines)
