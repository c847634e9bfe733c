"""Jobs run side by side on the GPUs or cores of one machine."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from tqdm import tqdm

from src.cli import OTHERS_AT_WORK
from src.launch.jobs import Job
from src.launch.processes import JobProcess, end, wait_for_one
from src.messages import say

POLLED_EVERY = 0.2  # seconds, for jobs that other processes are at work on
# One seed of a CNN does not fill a GPU: most of its time goes into launches. Chosen, not measured.
SEEDS_ON_A_GPU = 4


@dataclass(frozen=True)
class Slot:
    """A place where one process at a time runs.

    Attributes:
        device: For the scripts' --device.
        environment: What the process finds in its environment beside what is there.
    """

    device: str
    environment: dict[str, str]


def make_slots(gpus: list[str], n_workers: int) -> list[Slot]:
    """Return a slot for each GPU or, without any, for each worker on the CPU.

    The cores are divided among them, unless the environment says how many threads to use. GPUs are
    numbered among those that the environment lets be seen.
    """
    n_threads = _threads_asked_for() or max(1, n_cores() // (len(gpus) or n_workers))
    threads = {"OMP_NUM_THREADS": str(n_threads)}
    if not gpus:
        return [Slot("cpu", threads)] * n_workers
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        gpus = [visible.split(",")[int(gpu)].strip() for gpu in gpus]
    return [Slot("cuda", {"CUDA_VISIBLE_DEVICES": gpu, **threads}) for gpu in gpus]


def _threads_asked_for() -> int | None:
    """Return the number of threads that OMP_NUM_THREADS asks for; None: it does not.

    Of a list, which has a number for each level of nesting, the first one counts.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "").strip()
    first = asked.split(",")[0].strip()
    if first.isdecimal() and int(first) > 0:
        return int(first)
    if asked:  # empty where a cluster's variable that it was set to is not
        say(
            f"OMP_NUM_THREADS={asked} is no number of threads: the cores are divided among the jobs"
        )
    return None


def all_gpus(n_gpus: int, *, one_seed_fills_one: bool) -> list[str]:
    """Return the numbers of all GPUs, each as often as seeds shall be at work on it at once."""
    at_once = 1
    if n_gpus and not one_seed_fills_one:
        at_once = max(1, min(SEEDS_ON_A_GPU, n_cores() // n_gpus))
    return [str(k) for k in range(n_gpus)] * at_once


def n_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


class Launcher:
    """Runs jobs until each is done, or has failed, or would need one that failed.

    A job that another process is at work on is left to it and looked at again later. When the
    launcher is interrupted, so are its processes, which then save their finished pieces.

    Args:
        jobs: The jobs, each behind what it needs.
        slots: Where they run.

    Attributes:
        failed: The jobs that failed.
        skipped: The jobs that would need one that failed.
    """

    def __init__(self, jobs: list[Job], slots: list[Slot]) -> None:
        self.failed: list[Job] = []
        self.skipped: list[Job] = []
        self._waiting = [job for job in jobs if not job.is_done()]
        self._free = list(slots)
        self._running: list[tuple[JobProcess, Slot]] = []
        self._left_to_others: set[Job] = set()
        n_done = len(jobs) - len(self._waiting)
        self._bar = tqdm(total=len(jobs), initial=n_done, unit="job", disable=None)
        # What a file holds only its script can say, which would take long to ask of each.
        unseen = ", by the names of their files: reports check what these hold" if n_done else ""
        self._say(f"{n_done} of {len(jobs)} jobs were done before{unseen}")

    def run(self) -> None:
        """Run all jobs, a line of output for each start and each end.

        Raises:
            UserError: A log cannot be written, or a process not be started.
        """
        try:
            while self._waiting or self._running:
                self._start_what_can_start()
                wait_for_one([process for process, _ in self._running], POLLED_EVERY)
                for process, slot in list(self._running):
                    if process.poll() is not None:
                        self._running.remove((process, slot))
                        self._free.append(slot)
                        self._ended(process)
        finally:
            end([process for process, _ in self._running])
            self._bar.close()

    def _start_what_can_start(self) -> None:
        unfinished = {*self._waiting, *(process.job for process, _ in self._running)}
        for job in list(self._waiting):
            failed = [needed for needed in job.needs if needed in self.failed]
            if failed:
                self.skipped.append(job)
                self._settle(job, f"skipped          {job.name}: its {failed[0].step} failed")
            elif not self._free or unfinished.intersection(job.needs):
                continue
            elif (holder := job.holder()) is not None:
                if job not in self._left_to_others:
                    self._say(f"waiting          {job.name}: {holder} is at work on it")
                    self._left_to_others.add(job)
            elif job.is_done():
                unfinished.discard(job)
                self._settle(job, f"done             {job.name}, by another process")
            else:
                slot = self._free.pop(0)
                process = JobProcess(job, slot.device, slot.environment)
                self._waiting.remove(job)
                self._running.append((process, slot))
                self._say(f"start            {process.command}")

    def _ended(self, process: JobProcess) -> None:
        job, code = process.job, process.poll()
        if code == OTHERS_AT_WORK:
            self._waiting.insert(0, job)
        elif process.is_done():
            self._settle(job, f"done    {process.seconds:6.0f} s {job.name}")
        else:
            self.failed.append(job)
            self._settle(job, "FAILED           " + "\n".join(process.failure()))

    def _settle(self, job: Job, line: str) -> None:
        if job in self._waiting:
            self._waiting.remove(job)
        self._say(line)
        self._bar.update()

    def _say(self, line: str) -> None:
        self._bar.write(line, file=sys.stdout)
        sys.stdout.flush()
