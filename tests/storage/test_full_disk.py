"""A write that fails leaves nothing half-written and loses nothing, whichever it is."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

from src.ensemble.draws import load_seeds
from src.experiments import PAPER_METHODS, Paths, parse_experiment
from src.storage import files
from src.storage.files import load, save
from tests.conftest import DIGITS
from tests.tools import call, call_well, save_images, score_content, tree

EXPERIMENT = parse_experiment(DIGITS)
MOST_WRITES = 20
N_TRAIN, N_TEST = 4, 6


class FailingDisk:
    """Lets the k-th write of a script fail with half of the file written."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
        self.k = self.n = 0
        self.code = code
        self._fill = files._fill
        monkeypatch.setattr(files, "_fill", self.fill)

    def fill(self, temporary: Path, write: Callable[[Path], object]) -> None:
        self._fill(temporary, write)
        self.n += 1
        if self.n == self.k:
            os.truncate(temporary, temporary.stat().st_size // 2)
            raise OSError(self.code, os.strerror(self.code))

    def calls(self, script: str, *arguments: object) -> Iterator[object]:
        """Call a script with its first, second, ... write failing until none is left to fail."""
        for self.k in range(1, MOST_WRITES):
            self.n = 0
            result = call(script, *arguments)
            yield result
            if result.code == 0:
                return
        raise AssertionError("a script with that many writes?")


def root_of_scores(root: Path) -> Path:
    """Return a root with few scores of all methods by two seeds, and images of their samples."""
    paths = Paths(root)
    for method in PAPER_METHODS:
        for seed in load_seeds()[:2]:
            scores = torch.randn(5, N_TRAIN, N_TEST)
            save(
                paths.scores(EXPERIMENT, method, seed), score_content(DIGITS, method, seed, scores)
            )
    save_images(paths, "train_10pc", N_TRAIN)
    save_images(paths, "test", N_TEST)
    return root


def remove(root: Path, folder: str) -> None:
    for path in (root / folder).rglob("*"):
        if path.is_file():
            path.unlink()


OF_SEED_0 = ("--experiment", DIGITS, "--seed_id", 0)
# Script, arguments, the folder that it fills.
WRITERS = [
    ("run_subset_generation", ("--task", "digits3"), "data"),
    ("run_cnn_training", OF_SEED_0, "models"),
    ("run_gd_and_gc", OF_SEED_0, "tda_scores"),
    pytest.param("run_ats", OF_SEED_0, "tda_scores", marks=pytest.mark.slow),
    ("run_pvalues", ("--experiment", DIGITS, "--allow_missing"), "results"),
    pytest.param(
        *("run_correlations", ("--experiment", DIGITS, "--allow_missing"), "results"),
        marks=pytest.mark.slow,
    ),
]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES], ids=os.strerror)
@pytest.mark.parametrize(("script", "arguments", "folder"), WRITERS, ids=lambda x: str(x)[:22])
def test_every_write_of_every_script(
    digits_root: Path,
    copy_of: Callable[[Path], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    arguments: tuple,
    folder: str,
    code: int,
):
    if code == errno.EACCES and script in ("run_pvalues", "run_ats", "run_correlations"):
        pytest.skip("the same path through the code as for a full disk")
    if folder == "results":
        root = root_of_scores(tmp_path)
        # Pictures of pairs are what takes the time, and not what is tested.
        monkeypatch.setattr("src.reports.pairs.pair_sheet", lambda *_: Figure())
    else:
        root = copy_of(digits_root)
        remove(root, folder)
    disk = FailingDisk(monkeypatch, code)
    before, n_failed = tree(root), 0
    for result in disk.calls(script, "--root", root, *arguments):
        after = tree(root)
        # The page is written anew, whole, whenever one of its parts is.
        kept = {name: found for name, found in before.items() if not name.endswith("index.html")}
        assert kept.items() <= after.items() or any(".partial" in name for name in before)
        hidden = [path for path in root.rglob(".*") if path.name != ".report"]
        assert not hidden, "a lock or a temporary file is left"
        for path in root.rglob("*.pt"):
            load(path, "")  # whole
        if result.code != 0:
            assert result.code == 2, result
            line = result.err.splitlines()[-1]
            assert line.startswith(f"error: cannot write {root}/{folder}"), result
            assert line.endswith(os.strerror(code)), result
            n_failed += 1
        before = after
    assert n_failed >= 1


def test_overwriting_keeps_the_earlier_files(digits_root, copy_of, monkeypatch):
    root = copy_of(digits_root)
    before = tree(root)
    disk = FailingDisk(monkeypatch, errno.ENOSPC)
    for script in ("run_cnn_training", "run_gd_and_gc"):
        for k in (1, 2):
            disk.k, disk.n = k, 0
            result = call(script, "--root", root, *OF_SEED_0, "--overwrite")
            result.check_refused("cannot write", "No space left")
            if script == "run_cnn_training":
                assert tree(root) == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder with 4 MB of space."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("file systems cannot be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_disk_that_is_full(small_disk: Path):
    """Five checkpoints of 2.7 MB each; then a method's scores; then a lock."""
    call_well("run_subset_generation", "--root", small_disk, "--task", "digits3")
    before = tree(small_disk)
    result = call("run_cnn_training", "--root", small_disk, *OF_SEED_0)
    result.check_refused("cannot write", "ckpt_epoch_11.pt")
    assert tree(small_disk) == before
    assert not list(small_disk.rglob(".*"))
    with (small_disk / "filler").open("wb") as filler:
        filler.write(bytes(os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize))
    result = call("run_cnn_training", "--root", small_disk, *OF_SEED_0)
    result.check_refused("cannot write", "No space left on device")
    assert not list(small_disk.rglob(".*"))
