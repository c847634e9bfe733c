"""Wrong input through the command line: one line that says what is wrong, exit code 2."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from src.experiments import REPOSITORY, Paths, parse_experiment
from src.storage.files import load, save
from tests.conftest import DIGITS
from tests.tools import call, run_script, tree

EXPERIMENT = parse_experiment(DIGITS)

TRAIN = "run_cnn_training"
GIVEN = (TRAIN, "--experiment", DIGITS)
LOO = ("run_loo", "--experiment", DIGITS)
IF = ("run_if", "--experiment", DIGITS)
PVALUES = ("run_pvalues", "--experiment", DIGITS)
CORRELATIONS = ("run_correlations", "--experiment", DIGITS)
PARALLEL = ("run_parallel", "--experiment", DIGITS)

# Name, command, what the line says. {root} is an empty folder.
ARGUMENTS = [
    ("no experiment", ("run_loo",), "the following arguments are required: --experiment"),
    ("no name", (TRAIN, "--experiment", ""), "unknown experiment ''"),
    ("not a name", (TRAIN, "--experiment", "mnist"), "a name is <model>_<task>_<n>pc"),
    ("unknown model", (TRAIN, "--experiment", "cnn9_mnist3_10pc"), "choose from cnn2, cnn3, vit"),
    ("unknown task", (TRAIN, "--experiment", "cnn2_mnist4_10pc"), "choose from digits3, mnist3"),
    ("unknown size", (TRAIN, "--experiment", "cnn2_mnist3_11pc"), "choose from 10, 20, 50"),
    ("size 0", (TRAIN, "--experiment", "cnn2_mnist3_0pc"), "choose from 10, 20, 50"),
    ("unknown suffix", (TRAIN, "--experiment", f"{DIGITS}_seed"), "_init, _batch or none"),
    ("two suffixes", (TRAIN, "--experiment", f"{DIGITS}_init_batch"), "unknown experiment"),
    ("a path out", (TRAIN, "--experiment", f"../../{DIGITS}"), "unknown model '../../cnn2'"),
    ("a path in", (TRAIN, "--experiment", f"{DIGITS}/../x"), "unknown experiment"),
    ("a line break", (TRAIN, "--experiment", f"{DIGITS}\n"), "unknown experiment"),
    ("another script's", (TRAIN, "--experiment", "vit_digits3_10pc"), "run_vit_finetuning.py"),
    ("seed too large", (*LOO, "--seed_id", "10000"), "not a number from 0 to 9999"),
    ("seed negative", (*LOO, "--seed_id", "-1"), "--seed_id"),
    ("seed in words", (*LOO, "--seed_id", "one"), "'one' is not a number from 0 to 9999"),
    ("seed missing", (*LOO, "--seed_id"), "expected one argument"),
    ("unknown device", (*LOO, "--device", "abacus"), "there is no device 'abacus' here"),
    ("GPU too many", (*LOO, "--device", "cuda:99"), "there is no device 'cuda:99' here"),
    ("unknown option", (*LOO, "--fast"), "unrecognized arguments: --fast"),
    ("stray argument", (*LOO, "--overwrite", "now"), "unrecognized arguments: now"),
    ("unknown protocol", (*LOO, "--protocol", "guess"), "invalid choice: 'guess'"),
    (
        "all of a task of subsets",
        (TRAIN, "--experiment", "cnn2_mnist3_all"),
        "no experiment of all",
    ),
    ("a subset of all", (TRAIN, "--experiment", "cnn2_mnist_10pc"), "per class (in 'cnn2_mnist_1"),
    ("all per class", (TRAIN, "--experiment", "cnn2_mnist_allpc"), "or has all in the place of"),
    ("no samples", (*LOO, "--train_samples", "0"), "not a whole number of at least 1"),
    ("samples below 0", (*IF, "--train_samples", "-3"), "--train_samples"),
    ("half a sample", (*PARALLEL, "--train_samples", "2.5"), "not a whole number of at least 1"),
    ("samples to train", (TRAIN, "--experiment", DIGITS, "--train_samples", "5"), "unrecognized"),
    ("samples to report", (*PVALUES, "--train_samples", "5"), "unrecognized arguments"),
    ("chunks of 0", (*LOO, "--chunk_size", "0"), "not a whole number of at least 1"),
    ("half a chunk", (*LOO, "--chunk_size", "1.5"), "not a whole number of at least 1"),
    ("unknown solver", (*IF, "--solver", "magic"), "invalid choice: 'magic'"),
    ("damping negative", (*IF, "--damp", "-1"), "--damp"),
    ("damping nan", (*IF, "--damp", "nan"), "'nan' is not a number at least 0"),
    ("scale 0", (*IF, "--scale", "0"), "'0' is not a number above 0"),
    ("another solver's", (*IF, "--solver", "cg", "--scale", "2"), "--scale has no effect with"),
    ("tolerance 1", (*IF, "--solver", "cg", "--tolerance", "1"), "above 0 and below 1"),
    ("unknown test", (*PVALUES, "--test", "luck"), "invalid choice: 'luck'"),
    ("alpha 2", (*PVALUES, "--alpha", "2"), "'2' is not a number above 0 and below 1"),
    ("index negative", (*PVALUES, "--test_index", "-1"), "--test_index"),
    ("index in words", (*PVALUES, "--test_index", "a"), "not a whole number of at least 0"),
    ("alpha 0", ("run_correlations", "--experiment", DIGITS, "--alpha", "0"), "above 0 and below"),
    ("generation of nothing", ("run_subset_generation", "--task", "x"), "invalid choice: 'x'"),
    ("new indices, no seed", ("run_subset_generation", "--new_indices"), "go together"),
    ("no such source", ("run_subset_generation", "--task", "mnist3", "--source", "/no"), "/no"),
    ("unknown step", (*PARALLEL, "--methods", "gdd"), "invalid choice: 'gdd'"),
    ("no workers", (*PARALLEL, "--workers", "0"), "not a whole number of at least 1"),
    ("a list of no GPUs", (*PARALLEL, "--gpus", "0,,1"), "'0,,1' is no list of GPUs"),
    ("GPUs and workers", (*PARALLEL, "--gpus", "0", "--workers", "2"), "not allowed with"),
    ("a range backwards", (*PARALLEL, "--seed_id", "5-2"), "'5-2' ends before it begins"),
    ("a range too far", (*PARALLEL, "--seed_id", "0-10000"), "not a number from 0 to 9999"),
    ("half a range", (*PARALLEL, "--seed_id", "3-"), "'3-' is not a number from 0 to 9999, nor a"),
    ("seeds backwards", (*LOO, "--seed_id", "0,5-2"), "'5-2' ends before it begins"),
    ("one seed of many", (*IF, "--seed_id", "0,1,12000"), "'12000' is not a number from"),
    ("a seed that is none", (*LOO, "--seed_id", "0,,2"), "'' is not a number from 0 to 9999"),
    ("a seed of many digits", (*LOO, "--seed_id", "9" * 5000), "is not a number from 0 to 9999"),
    ("seeds without end", (*PVALUES, "--seed_id", f"0-{10**12}"), "not a number from 0 to 9999"),
    ("scores of a seed too far", (*PVALUES, "--seed_id", "9999-10000"), "from 0 to 9999"),
    ("scores of seeds backwards", (*PVALUES, "--seed_id", "37-12"), "'37-12' ends before it"),
    ("correlations of no seed", (*CORRELATIONS, "--seed_id", "ten"), "'ten' is not a number from"),
    ("p-values of one seed", (*PVALUES, "--seed_id", "3"), "two at least, not 3"),
    ("one seed twice", (*CORRELATIONS, "--seed_id", "12,12"), "two at least, not 12"),
    ("one name of many", (*LOO, "cnn2_mnist3_11pc"), "choose from 10, 20, 50"),
    ("no data of one", (*LOO, "cnn2_digits3_20pc"), "run_subset_generation.py --task digits3"),
    ("no files", (*GIVEN, "--seed_id", "0", "--checkpoints"), "expected at least one argument"),
    ("files for no seed", (*GIVEN, "--checkpoints", *"abcde"), "one --experiment and one --seed"),
    (
        "files for two seeds",
        (*GIVEN, "--seed_id", "0,1", "--checkpoints", *"abcde"),
        "--checkpoints takes one --experiment and one --seed_id",
    ),
    (
        "files for two experiments",
        (*GIVEN, "cnn2_digits3_20pc", "--seed_id", "0", "--checkpoints", *"abcde"),
        "--checkpoints takes one --experiment and one --seed_id",
    ),
    (
        "files for all of the paper",
        (TRAIN, "--seed_id", "0", "--checkpoints", *"abcde"),
        "--checkpoints takes one --experiment and one --seed_id",
    ),
    (
        "too few files",
        (*GIVEN, "--seed_id", "0", "--checkpoints", *"abcd"),
        "takes 5 files for cnn2_digits3_10pc, of the epochs 10 to 14 in this order, not 4",
    ),
    (
        "too many files",
        (*GIVEN, "--seed_id", "0", "--checkpoints", *"abcdef"),
        "takes 5 files for cnn2_digits3_10pc, of the epochs 10 to 14 in this order, not 6",
    ),
    ("files to a ViT", ("run_vit_finetuning", "--checkpoints", "a"), "unrecognized arguments"),
    ("Slurm's alone", (*PARALLEL, "--partition", "gpu"), "no effect without --slurm"),
    ("sbatch what", (*PARALLEL, "--slurm", "--sbatch", "exclusive"), "is not NAME=VALUE"),
    ("backbone of a CNN", (*PARALLEL, "--backbone", "tiny"), "without an experiment of a ViT"),
    ("source of none", (*PARALLEL, "--source", "/tmp"), "no effect without --backbone tiny"),
    ("no data", (TRAIN, "--experiment", DIGITS), "run_subset_generation.py --task digits3"),
    ("no data yet", PARALLEL, "run_subset_generation.py --task digits3"),
    ("no scores", PVALUES, "no method has scores|are missing"),
    ("no scores at all", ("run_correlations", "--experiment", DIGITS), "are missing"),
]


@pytest.mark.parametrize(
    ("command", "says"), [case[1:] for case in ARGUMENTS], ids=[case[0] for case in ARGUMENTS]
)
def test_arguments(tmp_path: Path, command: tuple[str, ...], says: str):
    script, *arguments = command
    root = tmp_path / "root"
    result = call(script, "--root", root, *arguments)
    result.check_refused()
    assert any(part in result.err for part in says.split("|")), result
    assert not list(tmp_path.rglob("*.*")), "something was written"


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def foreign(path: Path) -> None:
    torch.save({"state_dict": torch.zeros(3)}, path)


def other_settings(path: Path) -> None:
    content = load(path, "")
    save(path, {**content, "settings": {**content["settings"], "batch_size": 64}})


TRAINING_SET = Paths(Path()).tensors("digits3", "train_10pc")
CHECKPOINT = Paths(Path()).checkpoint(EXPERIMENT, 446, 12)
SCORES = Paths(Path()).scores(EXPERIMENT, "gd", 446)

FILES = [
    (TRAINING_SET, truncated, "is damaged"),
    (TRAINING_SET, foreign, "no checksum"),
    (TRAINING_SET, Path.unlink, "does not exist; make it with"),
    (CHECKPOINT, truncated, "is damaged"),
    (CHECKPOINT, flipped, "is damaged"),
    (CHECKPOINT, emptied, "is damaged"),
    (CHECKPOINT, foreign, "no checksum"),
    (CHECKPOINT, a_folder, "cannot read"),
    (CHECKPOINT, Path.unlink, "does not exist; make it with: python run_cnn_training.py"),
    (CHECKPOINT, other_settings, "batch_size is 64, now 32"),
    (SCORES, truncated, "is damaged"),
    (SCORES, flipped, "is damaged"),
    (SCORES, emptied, "is damaged"),
    (SCORES, foreign, "no checksum"),
    (SCORES, a_folder, "cannot read"),
    (SCORES, other_settings, "was made with other settings (batch_size is 64, now None)"),
]


@pytest.mark.parametrize(("path", "spoil", "says"), FILES)
def test_files(
    digits_root: Path,
    copy_of: Callable[[Path], Path],
    path: Path,
    spoil: Callable[[Path], None],
    says: str,
):
    root = copy_of(digits_root)
    spoil(root / path)
    before = tree(root)
    result = call("run_gd_and_gc", "--root", root, "--experiment", DIGITS, "--seed_id", 0)
    result.check_refused(str(root / path), says)
    assert tree(root) == before


def test_a_file_that_is_gone_while_it_is_read(digits_root: Path, monkeypatch: pytest.MonkeyPatch):
    def gone(path: Path, **_: object) -> None:
        raise FileNotFoundError(2, "No such file or directory", str(path))

    monkeypatch.setattr("src.storage.files.torch.load", gone)
    result = call("run_gd_and_gc", "--root", digits_root, "--experiment", DIGITS)
    result.check_refused("random_seeds.pt does not exist")


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("run_loo.py", ("--experiment", "cnn2_mnist3_11pc")),
        ("run_parallel.py", ("--experiment", DIGITS, "--seed_id", "0-10000")),
        ("run_if.py", ("--experiment", DIGITS, "--device", "abacus")),
    ],
)
def test_in_a_process_of_its_own(script: str, arguments: tuple[str, ...]):
    run_script(script, *arguments).check_refused()


def test_help_is_quick():
    """Nothing heavy is imported before the arguments are known to be right."""
    code = "import sys, run_parallel; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)
