"""Jobs as arrays on a Slurm cluster, by submitit: one task a seed.

submitit has a task requeued when it is preempted or its time is up. A requeued task runs the same
command again, which goes on from the finished pieces.
"""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from src.cli import OTHERS_AT_WORK, check_code
from src.errors import UserError
from src.experiments import REPOSITORY
from src.launch.jobs import Job
from src.launch.processes import JobProcess, end

if TYPE_CHECKING:
    import submitit

MAX_REQUEUES = 1000  # at the time limit; after each a job has got further
LOOKED_AT_EVERY = 5.0  # seconds, at a job that another process is at work on


@dataclass(frozen=True)
class Resources:
    """What each task asks for, and further options of sbatch."""

    partition: str | None
    gpus_per_task: int
    cpus_per_task: int
    mem_gb: int
    minutes: int
    options: dict[str, str]


@dataclass
class Task:
    """A job as submitit calls it."""

    job: Job
    device: str
    environment: dict[str, str]
    repository: Path = REPOSITORY
    _process: JobProcess | None = field(default=None, repr=False)

    def __call__(self) -> str:
        """Run the job's command; one that another process is at work on waits for it.

        Raises:
            UserError: The code that runs here is not that of who submitted it.
            RuntimeError: The command failed.
        """
        check_code(self.repository)
        while True:
            self._process = JobProcess(self.job, self.device, self.environment)
            code = self._process.wait()
            if self._process.is_done():
                return self._process.command
            if code != OTHERS_AT_WORK:
                raise RuntimeError("\n".join(self._process.failure()))
            print(f"waiting for {self.job.holder()}, at work on {self.job.name}", flush=True)
            while self.job.holder() is not None:
                time.sleep(LOOKED_AT_EVERY)

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """End the command, which saves its finished pieces; return what to run when requeued."""
        from submitit.helpers import DelayedSubmission

        if self._process is not None:
            end([self._process])
        return DelayedSubmission(replace(self, _process=None))


def submit(jobs: list[Job], resources: Resources, folder: Path) -> list[tuple[str, int, str]]:
    """Submit an array for each step of each experiment, its tasks waiting for what they need.

    Args:
        jobs: The jobs; those whose files are there are left out.
        resources: What each task asks for.
        folder: For submitit's files.

    Returns:
        What each array is, its number of tasks, and its Slurm id.

    Raises:
        UserError: There is no Slurm here, or it refuses the jobs.
    """
    try:
        import submitit
    except ImportError:
        raise UserError("--slurm needs submitit: python -m pip install submitit") from None
    if submitit.SlurmExecutor.affinity() < 0:
        raise UserError("there is no Slurm here (no sbatch): --gpus or --workers run jobs here")
    missing = [job for job in jobs if not job.is_done()]
    seeds = {(job.experiment, job.seed_id) for job in missing}
    arrays: dict[tuple[str, str], list[Job]] = {}
    for job in jobs:
        # Task i of every array of an experiment is the same seed, as aftercorr wants it.
        if (job.experiment, job.seed_id) in seeds:
            arrays.setdefault((job.experiment, job.step), []).append(job)
    submitted, ids = [], {}
    for (experiment, step), array in arrays.items():
        if all(job.is_done() for job in array):
            continue
        needs = (ids.get((experiment, needed.step)) for needed in array[0].needs)
        after = next(filter(None, needs), None)
        ids[experiment, step] = _submit_array(array, resources, folder, after)
        submitted.append((f"{experiment} {step}", len(array), ids[experiment, step]))
    return submitted


def _submit_array(array: list[Job], resources: Resources, folder: Path, after: str | None) -> str:
    import submitit

    executor = submitit.SlurmExecutor(folder, max_num_timeout=MAX_REQUEUES)
    executor.update_parameters(
        job_name=f"{array[0].step}-{array[0].experiment}",
        time=resources.minutes,
        cpus_per_task=resources.cpus_per_task,
        mem=f"{resources.mem_gb}GB",
        gpus_per_task=resources.gpus_per_task or None,
        partition=resources.partition,
        # Task i waits for task i of what it needs, and leaves the queue if that one failed.
        dependency=None if after is None else f"aftercorr:{after}",
        additional_parameters={"kill-on-invalid-dep": "yes", "requeue": True, **resources.options},
        # Not the working directory's src, nor its modules of the standard library's names.
        setup=[
            "export PYTHONSAFEPATH=1 "
            f"PYTHONPATH={shlex.quote(str(REPOSITORY))}${{PYTHONPATH:+:$PYTHONPATH}}"
        ],
    )
    device = "cuda" if resources.gpus_per_task else "cpu"
    environment = {"OMP_NUM_THREADS": str(resources.cpus_per_task)}
    try:
        tasks = executor.submit_array([Task(job, device, environment) for job in array])
    except submitit.core.utils.FailedJobError as error:
        raise UserError(f"Slurm refuses {array[0].step}: {error}") from error
    return tasks[0].job_id.partition("_")[0]
