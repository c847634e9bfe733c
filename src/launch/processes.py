"""One job as a process: its log, its end, and what went wrong.

Jobs are forked from a process that has imported the libraries (`src.launch.preloaded`), by the fork
server of Python's multiprocessing. Each then runs its script as a process of its own would.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import runpy
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing import forkserver
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from pathlib import Path

from setproctitle import setproctitle

from src.cli import OUTPUT_LOST, check_code
from src.errors import UserError
from src.experiments import REPOSITORY
from src.launch.jobs import Job

SECONDS_TO_END = 20.0  # between SIGTERM, at which a script saves its finished pieces, and SIGKILL
LINES_OF_LOG = 5  # that are shown of a failed job


def fork_server(*, with_backbone: bool) -> BaseContext:
    """Return the context whose processes are forked from one that has imported the libraries.

    The first call starts that process, and decides whether it imports those of a ViT too; it takes
    some seconds until it is ready, for which only the start of a job waits.

    Raises:
        UserError: The process cannot be started.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["src.launch.preloaded", *(["src.models.vit"] if with_backbone else [])]
    )
    # Python's own choice is to import from the working directory first, which may have a package
    # src too, or a module of the standard library's name.
    search = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = {
        "PYTHONPATH": os.pathsep.join(search),
        "PYTHONSAFEPATH": "1",
        "OMP_NUM_THREADS": "1",  # it computes nothing; a job sets the number of its threads
    }
    with _process_can_start(), _environment(variables):
        forkserver.ensure_running()
    return context


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set variables of the environment for the block."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def _process_can_start() -> Iterator[None]:
    """Turn what multiprocessing raises into a UserError."""
    try:
        yield
    except (OSError, EOFError) as error:
        raise UserError(
            f"cannot start a process: {error or 'the one to fork from has ended'} (needed are a "
            "working directory that exists, and a folder for temporary files with some space and "
            "a path of at most 60 letters, which the variable TMPDIR may name)"
        ) from error


class JobProcess:
    """A running job, in a process group of its own, with its output in the job's log.

    Args:
        job: The job.
        device: For the script's --device.
        environment: What the process finds in its environment beside what is there. Its
            OMP_NUM_THREADS is the number of threads that torch uses.

    Raises:
        UserError: The log cannot be written, or the process not be started.
    """

    def __init__(self, job: Job, device: str, environment: dict[str, str]) -> None:
        self.job = job
        self._since = time.monotonic()
        command = job.command(device)
        variables = [f"{name}={shlex.quote(value)}" for name, value in environment.items()]
        self.command = " ".join([*variables, shlex.join(command)])
        try:
            job.log.parent.mkdir(parents=True, exist_ok=True)
            with job.log.open("ab") as log:
                line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} $ {self.command}\n"
                log.write(line.encode(errors="surrogateescape"))
                self._log_start = log.tell()
        except OSError as error:
            raise UserError(f"cannot write {job.log}: {error.strerror}") from error
        context = fork_server(with_backbone=job.has_backbone)
        self._process = context.Process(
            target=_run_script,
            args=(REPOSITORY, command[1:], job.log, {**os.environ, **environment}),
        )
        with _process_can_start(), _signals_wait():
            self._process.start()

    @property
    def sentinel(self) -> int:
        """A file descriptor that is ready when the process has ended."""
        return self._process.sentinel

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._since

    def poll(self) -> int | None:
        """Return the exit code; None: still running.

        Only for the thread that starts jobs: an exit code can be read but once, and multiprocessing
        reads it also when it starts the next process.
        """
        return self._process.exitcode

    def wait(self) -> int:
        """Wait for the end and return the exit code."""
        self._process.join()
        return self.poll()

    def is_done(self) -> bool:
        """Say whether it ended well and its job's files are there."""
        return self.poll() in (0, OUTPUT_LOST) and self.job.is_done()

    def signal(self, which: signal.Signals) -> None:
        """Send a signal to the process and its children, if it still runs."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                try:
                    os.killpg(self._process.pid, which)
                except ProcessLookupError:  # it has not yet made its group
                    os.kill(self._process.pid, which)

    def failure(self) -> list[str]:
        """Return what to say of a process that failed: why, where its log is, and the log's end."""
        code = self.poll()
        if code in (0, OUTPUT_LOST):
            missing = next((path for path in self.job.outputs if not path.exists()), "file")
            reason = f"ended without an error but wrote no {missing}"
        else:
            reason = f"exit code {code}" if code > 0 else signal.Signals(-code).name
        with self.job.log.open("rb") as log:
            log.seek(self._log_start)
            lines = log.read().decode(errors="replace").splitlines()[-LINES_OF_LOG:]
        return [f"{self.job.name} ({reason}), log {self.job.log}", *(f"    {x}" for x in lines)]


@contextlib.contextmanager
def _signals_wait() -> Iterator[None]:
    """Deliver signals that end this process after the block, which must not be left half done."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _run_script(
    repository: Path, command: list[str], log: Path, environment: dict[str, str]
) -> None:
    """Run a script of a repository in this process, which is forked for it, with a log as output.

    It runs in the folder, and finds the environment, of the process that started it.
    """
    os.setpgrp()  # Ctrl-C reaches who started it alone, who then ends it
    with log.open("ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    try:
        check_code(repository)
    except UserError as error:
        sys.exit(f"error: {error}")
    import torch

    import src.launch.preloaded  # noqa: F401, so that it says here why it could not be imported before

    setproctitle(shlex.join(["python", *command]).encode(errors="replace").decode())
    os.environ.clear()
    os.environ.update(environment)
    # Which OpenMP reads only when it is loaded, and that was before the fork.
    torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    sys.argv = command
    sys.path.insert(0, str(repository))
    runpy.run_path(str(repository / command[0]), run_name="__main__")


def _end_with_launcher() -> None:
    """End this process, as SIGTERM does, once the one that it was started by is no more."""
    wait([multiprocessing.parent_process().sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


def wait_for_one(processes: list[JobProcess], seconds: float) -> None:
    """Wait until one of some processes has ended, at most some seconds."""
    wait([process.sentinel for process in processes], seconds)


def end(processes: list[JobProcess]) -> None:
    """End processes with all of their children, by force those that take long."""
    try:
        for process in processes:
            process.signal(signal.SIGTERM)
        deadline = time.monotonic() + SECONDS_TO_END
        while time.monotonic() < deadline and any(p.poll() is None for p in processes):
            time.sleep(0.05)
    finally:  # also at a second Ctrl-C
        for process in processes:
            process.signal(signal.SIGKILL)
        for process in processes:
            process.wait()
