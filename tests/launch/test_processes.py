"""Jobs as processes: forked with the libraries imported, each by itself otherwise."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from src.experiments import REPOSITORY
from src.launch.jobs import Job
from src.launch.processes import JobProcess, end, wait_for_one
from tests.conftest import DIGITS

COUNT_CALLS = """
import torch

names = [n for n in dir(torch._C) if n.startswith("_cuda_") and callable(getattr(torch._C, n))]
assert names
for name in names:
    setattr(torch._C, name, lambda *_, n=name: exit(f"{n} was called"))
import src.launch.preloaded
import src.models.vit
"""


def test_no_gpu_is_asked_for_before_the_fork():
    """It would bind every job to what the server saw, and break CUDA in the forked processes."""
    result = subprocess.run(
        [sys.executable, "-c", COUNT_CALLS],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr


@pytest.fixture
def job(tmp_path: Path) -> Callable[[str], Job]:
    """A job that runs the given code in place of a script."""

    def make(code: str) -> Job:
        script = tmp_path / "script.py"
        script.write_text(code)
        return Job(
            "a job",
            DIGITS,
            "training",
            0,
            (str(script), "--an", "option with a blank"),
            (),
            tmp_path / "lock",
            tmp_path / "logs" / "job.log",
        )

    return make


def start(job: Job) -> JobProcess:
    return JobProcess(job, "cpu", {"OMP_NUM_THREADS": "3", "OF_THIS_JOB": "yes"})


def test_a_script_finds_what_a_process_of_its_own_would(job, tmp_path, monkeypatch):
    """The folder too, which relative paths in the environment start from."""
    monkeypatch.chdir(tmp_path)
    process = start(
        job(
            "import os, sys, torch\n"
            "print(__name__, sys.argv[1:], os.getcwd(), os.environ['OF_THIS_JOB'])\n"
            "print(torch.get_num_threads(), os.getpgrp() == os.getpid(), sys.stdin.read())\n"
            "print('an error', file=sys.stderr)\n"
            "os.system('echo of a child')"
        )
    )
    assert process.wait() == 0
    assert "OF_THIS_JOB" not in os.environ
    first, *lines = process.job.log.read_text().splitlines()
    assert first.endswith(
        f"$ OMP_NUM_THREADS=3 OF_THIS_JOB=yes python {process.job.arguments[0]} "
        "--an 'option with a blank' --device cpu"
    )
    assert sorted(lines) == sorted(
        [
            f"__main__ ['--an', 'option with a blank', '--device', 'cpu'] {tmp_path} yes",
            "3 True ",
            "an error",
            "of a child",
        ]
    )


def test_a_script_that_ends_well_without_its_files(job, tmp_path: Path):
    process = start(replace(job(""), outputs=(tmp_path, tmp_path / "446.pt")))
    assert process.wait() == 0
    assert not process.is_done()
    says = f"a job (ended without an error but wrote no {tmp_path}/446.pt), log"
    assert process.failure()[0].startswith(says)


def test_code_of_another_repository_is_not_run(job, tmp_path: Path, monkeypatch):
    """Whatever makes Python find it first."""
    (tmp_path / "src").mkdir()
    monkeypatch.setattr("src.launch.processes.REPOSITORY", tmp_path)
    process = JobProcess(job("print('it runs')"), "cpu", {"OMP_NUM_THREADS": "1"})
    assert process.wait() == 1
    _, *lines = process.job.log.read_text().splitlines()
    assert lines == [
        f"error: a script of {tmp_path} was called, but Python found the package src of "
        f"{REPOSITORY}: take that out of PYTHONPATH, or call the script from another folder"
    ]


@pytest.mark.parametrize(
    ("code", "exit_code", "says"),
    [
        ("import sys; print('wrong', file=sys.stderr); sys.exit(2)", 2, "exit code 2"),
        ("1 / 0", 1, "exit code 1"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -9, "SIGKILL"),
    ],
)
def test_how_a_script_ends(job, code: str, exit_code: int, says: str):
    process = start(job(code))
    assert process.wait() == exit_code
    first, *_, last = [*process.failure(), process.job.log.read_text().splitlines()[-1]]
    assert first == f"a job ({says}), log {process.job.log}"
    if exit_code == 1:
        assert last == "ZeroDivisionError: division by zero"


def test_no_exit_code_is_lost_when_others_start(job):
    exits = job("import sys; sys.exit(7)")
    processes = []
    for _ in range(30):
        processes.append(start(exits))
        wait_for_one(processes[-2:][:1], 10.0)
    assert [process.wait() for process in processes] == [7] * 30


def test_an_end_reaches_children(job):
    process = start(
        job(
            "import subprocess, sys, time\n"
            "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
            "print(child.pid, flush=True)\n"
            "time.sleep(60)"
        )
    )
    while len(lines := process.job.log.read_text().splitlines()) < 2:
        assert process.poll() is None
    child = psutil.Process(int(lines[1]))
    title = psutil.Process(child.ppid()).cmdline()[0]
    assert title.startswith(f"python {process.job.arguments[0]}")
    end([process])
    assert process.poll() == -signal.SIGTERM
    child.wait(10)


def test_a_log_of_an_earlier_run_is_kept(job):
    for text in ("first", "second"):
        assert start(replace(job(f"print({text!r})"))).wait() == 0
    lines = job("").log.read_text().splitlines()
    assert lines[1::2] == ["first", "second"]
