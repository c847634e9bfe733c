"""SIGKILL at random moments: the result is bit for bit that of an undisturbed run.

Every kill hits the launcher and all of its processes, as when a machine dies. What a killed run had
finished, whole files and finished pieces, is not computed again by the next one.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
import torch

from src.experiments import REPOSITORY
from tests.conftest import DIGITS
from tests.tools import call_well, tree

ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


class Launch:
    """A running launcher of two workers."""

    def __init__(self, root: Path, arguments: tuple[str, ...]) -> None:
        command = ["run_parallel.py", "--root", root, "--experiment", DIGITS, "--workers", 2]
        self.process = subprocess.Popen(
            [sys.executable, *map(str, command), *arguments],
            cwd=REPOSITORY,
            env=ONE_THREAD,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A shell ignores interrupts on behalf of what it runs in the background.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def finish(self) -> str:
        """Wait for its end and return what it said."""
        out, _ = self.process.communicate(timeout=1200)
        assert self.process.returncode == 0, out
        return out

    def use(self, seconds: float) -> float:
        """Wait until it and its processes have used that much time of the CPU, or have ended.

        A busy machine makes a run longer, and not its stages rarer.

        Returns:
            The seconds used; fewer than `seconds` if it has ended.
        """
        parent = psutil.Process(self.process.pid)
        used = 0.0
        while self.process.poll() is None and used < seconds:
            now = 0.0
            for process in (parent, *parent.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    now += sum(process.cpu_times()[:4])
            used = max(used, now)
            time.sleep(0.02)
        return used

    def kill(self) -> list[str]:
        """Kill it and its processes; return the scripts that were running."""
        parent = psutil.Process(self.process.pid)
        parent.suspend()  # so that it starts nothing while its processes are listed
        children = parent.children(recursive=True)
        scripts = []
        for child in children:
            try:
                scripts += re.findall(r"run_\w+(?=\.py)", " ".join(child.cmdline()))
            except psutil.Error:
                continue
        for process in (parent, *children):
            if process.is_running():
                process.send_signal(signal.SIGKILL)
        psutil.wait_procs(children, timeout=10)
        self.process.communicate()
        return scripts


def finished_files(root: Path) -> dict[Path, tuple[int, int]]:
    """Return what tells a file that was written again, of every finished file."""
    return {
        path: (path.stat().st_ino, path.stat().st_mtime_ns)
        for folder in ("models", "tda_scores")
        for path in (root / folder).rglob("*.pt")
        if not path.name.startswith(".") and ".partial" not in path.name
    }


def finished_pieces(root: Path) -> dict[Path, int]:
    """Return the number of pieces in every partial file."""
    return {
        path: len(torch.load(path, weights_only=True)["pieces"])
        for path in (root / "tda_scores").rglob("*.partial.pt")
        if not path.name.startswith(".")
    }


def new_root(folder: Path) -> Path:
    call_well("run_subset_generation", "--root", folder, "--task", "digits3")
    return folder


def check_killed_runs(tmp_path: Path, n_kills: int, *arguments: str) -> None:
    """Hold a run that is killed `n_kills` times against an undisturbed one."""
    undisturbed, root = new_root(tmp_path / "undisturbed"), new_root(tmp_path / "killed")
    launch = Launch(undisturbed, arguments)
    # Killed after D / n seconds on average, of the D that it all takes: kills hit every stage.
    longest = 2 * launch.use(math.inf) / n_kills
    launch.finish()

    moments, hit, files, pieces = random.Random(0), Counter(), {}, {}
    kills = 0
    while kills < n_kills:
        launch = Launch(root, arguments)
        seconds = moments.uniform(0, longest)
        if launch.use(seconds) < seconds:
            break  # all done before as many kills
        scripts = launch.kill()
        kills += 1
        hit.update(scripts or ["none yet"])
        now = finished_files(root)
        assert files.items() <= now.items(), "a finished file was written again"
        files = now
        now = finished_pieces(root)
        for path, n in pieces.items():
            is_whole = path.with_name(path.name.replace(".partial", "")) in files
            assert now.get(path, 0) >= n or is_whole, f"{path} lost pieces"
        pieces = now
    Launch(root, arguments).finish()
    print(f"\n{kills} kills, each hit at most two processes: {dict(hit.most_common())}")

    assert kills >= n_kills * 3 / 4
    assert files.items() <= finished_files(root).items(), "a finished file was written again"
    for folder in ("models", "tda_scores"):
        assert tree(root / folder) == tree(undisturbed / folder)
    for log in (root / "logs").rglob("*.log"):
        computed = [x for x in log.read_text().splitlines() if x.startswith(str(root))]
        assert sum("finished before" not in x for x in computed) <= 2, computed


@pytest.mark.slow
def test_twenty_kills_of_ten_seeds(tmp_path: Path):
    check_killed_runs(tmp_path, 20)


@pytest.mark.slow
def test_two_launchers_at_once(tmp_path: Path):
    root = new_root(tmp_path)
    arguments = ("--seed_id", "0-1", "--methods", "gd_and_gc")
    launches = [Launch(root, arguments) for _ in range(2)]
    for launch in launches:
        launch.finish()
    logs = {str(log.relative_to(root)): log.read_text() for log in root.rglob("*.log")}
    assert len(logs) == 4
    for name, text in logs.items():
        lines = [x for x in text.splitlines() if x.startswith(str(root))]
        computed = [x for x in lines if "finished before" not in x and "is at work" not in x]
        assert len(computed) == (1 if "training" in name else 2), text  # gd and gc
    assert not list(root.rglob(".*"))


def launch_at_work(root: Path, seed_ids: str) -> tuple[Launch, list[psutil.Process]]:
    """Return a launcher whose jobs have finished first pieces, and all processes below it."""
    launch = Launch(root, ("--seed_id", seed_ids, "--methods", "loo"))
    while not list(root.rglob("*.partial.pt")):
        assert launch.process.poll() is None
        time.sleep(0.05)
    children = psutil.Process(launch.process.pid).children(recursive=True)
    assert children
    return launch, children


def test_a_kill_of_all_processes(tmp_path: Path, digits_root: Path):
    root = new_root(tmp_path)
    launch, _ = launch_at_work(root, "0")
    assert launch.kill() == ["run_loo"]
    files, pieces = finished_files(root), finished_pieces(root)
    assert files
    assert pieces
    Launch(root, ("--seed_id", "0", "--methods", "loo")).finish()
    assert files.items() <= finished_files(root).items(), "a finished file was written again"
    log = (root / "logs" / DIGITS / "loo" / "446.log").read_text()
    assert int(re.search(r"going on from (\d+) of", log).group(1)) > 0
    for folder in (f"models/{DIGITS}/446", f"tda_scores/{DIGITS}/loo"):
        assert tree(root / folder) == tree(digits_root / folder)


@pytest.fixture
def trained(tmp_path: Path, digits_root: Path) -> Path:
    """A root with trained seeds and no scores."""
    for folder in ("data", "models"):
        shutil.copytree(digits_root / folder, tmp_path / folder)
    return tmp_path


def is_at_work(process: psutil.Process) -> bool:
    """Say whether a process lives; what its parent has not yet been told of is only a number."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for_end(processes: list[psutil.Process]) -> None:
    """Wait until none is at work; the one that jobs are forked from ends after the launcher."""
    deadline = time.monotonic() + 10
    while at_work := [process for process in processes if is_at_work(process)]:
        assert time.monotonic() < deadline, at_work
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (signal.SIGKILL, -9),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
    ],
)
def test_jobs_end_with_their_launcher(trained: Path, sent: signal.Signals, code: int):
    launch, children = launch_at_work(trained, "0-1")
    launch.process.send_signal(sent)
    launch.process.communicate(timeout=60)
    assert launch.process.returncode == code
    wait_for_end(children)
    assert not list(trained.rglob(".*")), "a lock or a temporary file is left"
    assert finished_pieces(trained)
