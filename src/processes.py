"""One job as a process: its log, its end, and what went wrong."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import threading
import time

from src.errors import UserError
from src.experiments import REPOSITORY
from src.jobs import Job

SECONDS_TO_END = 20.0  # between SIGTERM, at which a script saves its finished pieces, and SIGKILL
LINES_OF_LOG = 5  # that are shown of a failed job


class JobProcess:
    """A running job, in a process group of its own, with its output in the job's log.

    Args:
        job: The job.
        device: For the script's --device.
        environment: What the process finds in its environment beside what is there.

    Raises:
        UserError: The log cannot be written.
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
                log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} $ {self.command}\n".encode())
                self._log_start = log.tell()
                log.flush()
                self._process = subprocess.Popen(
                    [sys.executable, *command[1:]],
                    cwd=REPOSITORY,
                    env={**os.environ, **environment},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    process_group=0,  # Ctrl-C reaches who started it alone, who then ends it
                )
        except OSError as error:
            raise UserError(f"cannot write {job.log}: {error.strerror}") from error
        # A thread of its own waits, because Popen's methods must not be called by a signal handler
        # that interrupts one of them.
        threading.Thread(target=self._process.wait, daemon=True).start()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._since

    def poll(self) -> int | None:
        """Return the exit code; None: still running."""
        return self._process.returncode

    def wait(self) -> int:
        """Wait for the end and return the exit code."""
        while (code := self.poll()) is None:
            time.sleep(0.05)
        return code

    def signal(self, which: signal.Signals) -> None:
        """Send a signal to the process and its children, if it still runs."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, which)

    def failure(self) -> list[str]:
        """Return what to say of a process that failed: why, where its log is, and the log's end."""
        code = self.poll()
        reason = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        with self.job.log.open("rb") as log:
            log.seek(self._log_start)
            lines = log.read().decode(errors="replace").splitlines()[-LINES_OF_LOG:]
        return [f"{self.job.name} ({reason}), log {self.job.log}", *(f"    {x}" for x in lines)]


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
