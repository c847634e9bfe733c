"""What the scripts that launch jobs share: where the jobs run, and how they are run there.

Nothing heavy is imported before the arguments are known to be right.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from argparse import Namespace
from pathlib import Path

from src.argument_types import gpu_list, name_and_value, positive_int
from src.cli import ArgumentParser, end_at_hangup
from src.errors import UserError
from src.experiments import DEFAULT_BACKBONE, Experiment
from src.experiments.definitions import files_of_environment
from src.launch.jobs import Job

_SLURM_OPTIONS = ("partition", "gpus_per_task", "cpus_per_task", "mem_gb", "time", "sbatch")


def add_side_by_side(parser: ArgumentParser, otherwise: str) -> argparse._MutuallyExclusiveGroup:
    """Add --gpus and --workers, and return the group that they exclude each other in.

    Args:
        parser: The parser.
        otherwise: What is done without any option of the group.
    """
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--gpus",
        type=gpu_list,
        metavar="LIST",
        help="for example 0,1,2,3: one process on each; a number that stands twice has two. "
        f"{otherwise}",
    )
    where.add_argument(
        "--workers", type=positive_int, metavar="N", help="processes on the CPU, its cores divided"
    )
    return where


def add_launching(parser: ArgumentParser) -> None:
    """Add --gpus, --workers and --slurm with its options, and those of a ViT's training."""
    where = add_side_by_side(
        parser,
        "Without this, --workers and --slurm: all GPUs, of CNNs up to four seeds on each at once, "
        "or, where there is none, one worker a core",
    )
    where.add_argument("--slurm", action="store_true", help="submit job arrays to Slurm")
    parser.add_vit_training()
    slurm = parser.add_argument_group("with --slurm")
    slurm.add_argument("--partition", metavar="NAME", help="none: the cluster's default")
    slurm.add_argument("--gpus_per_task", type=int, choices=(0, 1), default=1, help="0: CPU")
    slurm.add_argument("--cpus_per_task", type=positive_int, metavar="N", default=4, help="cores")
    slurm.add_argument("--mem_gb", type=positive_int, metavar="N", default=32, help="memory")
    slurm.add_argument(
        "--time",
        type=positive_int,
        metavar="MINUTES",
        default=240,
        help="limit of a task, which is requeued when it is reached and goes on",
    )
    slurm.add_argument(
        "--sbatch",
        type=name_and_value,
        nargs="+",
        metavar="NAME=VALUE",
        default=[],
        help="further options of sbatch, for example account=me constraint=a100",
    )


def check_launching(parser: ArgumentParser, args: Namespace) -> None:
    """Check that options of Slurm are given with --slurm alone.

    Raises:
        UserError: One is given without.
    """
    for option in _SLURM_OPTIONS:
        if not args.slurm and getattr(args, option) != parser.get_default(option):
            raise UserError(f"--{option} has no effect without --slurm")


def vit_options(args: Namespace, experiments: list[Experiment]) -> list[str]:
    """Return the arguments that only the training of a ViT takes.

    Raises:
        UserError: There are some, and no experiment of a ViT.
    """
    options = ["--backbone", args.backbone] if args.backbone != DEFAULT_BACKBONE else []
    options += ["--random_crop"] if args.random_crop else []
    options += ["--source", str(args.source.resolve())] if args.source else []
    if options and not any(experiment.has_backbone for experiment in experiments):
        raise UserError(f"{options[0]} has no effect without an experiment of a ViT")
    return options


def run_jobs(jobs: list[Job], args: Namespace, *, with_backbone: bool) -> None:
    """Run jobs on this machine, or submit them to Slurm, as the arguments say.

    A job that fails here ends the script with exit code 1, when all others are done.

    Args:
        jobs: The jobs, each behind what it needs.
        args: The arguments, with an absolute root.
        with_backbone: Whether there are experiments of a ViT among them.
    """
    if args.slurm:
        _submit(jobs, args)
    else:
        run_side_by_side(jobs, args, with_backbone=with_backbone)


def run_side_by_side(jobs: list[Job], args: Namespace, *, with_backbone: bool) -> None:
    """Run jobs on this machine, as `run_jobs` does, by --gpus and --workers."""
    from src.launch.parallel import Launcher, make_slots, n_cores

    gpus = [] if args.workers else _gpus_to_use(args.gpus, with_backbone)
    launcher = Launcher(jobs, make_slots(gpus, args.workers or n_cores()))
    end_at_hangup()
    launcher.run()
    if launcher.failed:
        for job in launcher.failed:
            print(f"failed: {job.name}, log {job.log}")
        skipped = f", {len(launcher.skipped)} skipped" if launcher.skipped else ""
        # What the environment defines now, another shell may not.
        defined = (part for file in files_of_environment() for part in ("--define", str(file)))
        again = shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:], *defined])
        print(f"{len(launcher.failed)} failed{skipped}; what is missing is run by: {again}")
        sys.exit(1)


def _gpus_to_use(asked: list[str] | None, with_backbone: bool) -> list[str]:
    """Return the numbers of the GPUs to use; none: the CPU."""
    import torch

    n_gpus = torch.cuda.device_count()
    if asked is None:
        from src.launch.parallel import all_gpus

        return all_gpus(n_gpus, one_seed_fills_one=with_backbone)
    for gpu in asked:
        if int(gpu) >= n_gpus:
            raise UserError(f"there is no GPU {gpu} here, which has {n_gpus} (numbered from 0)")
    return asked


def _submit(jobs: list[Job], args: Namespace) -> None:
    from src.launch.slurm import Resources, submit

    resources = Resources(
        args.partition,
        args.gpus_per_task,
        args.cpus_per_task,
        args.mem_gb,
        args.time,
        dict(args.sbatch),
    )
    folder = args.root / "logs" / "slurm"
    for what, n_tasks, array in submit(jobs, resources, folder):
        print(f"submitted array {array}: {what}, {n_tasks} tasks")
    print(f"logs in {folder.parent}; to see what is queued: squeue --me", flush=True)
