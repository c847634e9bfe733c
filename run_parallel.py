"""Train and attribute many seeds side by side: one process per GPU or worker, or on Slurm.

Every job is a run_* script for one seed; its command is printed and can be run by hand. Jobs whose
files are there are left out, so the same command goes on after an interruption.
"""

import shlex
import sys
from argparse import Namespace
from pathlib import Path

from src.argument_types import gpu_list, name_and_value, positive_int
from src.cli import ArgumentParser, end_at_hangup, run
from src.errors import UserError
from src.experiments import DEFAULT_BACKBONE, STEPS
from src.launch.jobs import Job, plan
from src.launch.processes import fork_server
from src.steps import check_samples, seeds

SLURM_OPTIONS = ("partition", "gpus_per_task", "cpus_per_task", "mem_gb", "time", "sbatch")


def main() -> None:
    parser = ArgumentParser(__doc__)
    parser.add_experiments()
    parser.add_argument(
        "--methods", nargs="*", choices=STEPS, default=list(STEPS), help="none: training only"
    )
    parser.add_seeds()
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--gpus",
        type=gpu_list,
        metavar="LIST",
        help="for example 0,1,2,3: one process on each; a number that stands twice has two. "
        "Without this, --workers and --slurm: all GPUs, of CNNs up to four seeds on each at once, "
        "or, where there is none, one worker a core",
    )
    where.add_argument(
        "--workers", type=positive_int, metavar="N", help="processes on the CPU, its cores divided"
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
    args = parser.parse_args()
    for option in SLURM_OPTIONS:
        if not args.slurm and getattr(args, option) != parser.get_default(option):
            raise UserError(f"--{option} has no effect without --slurm")

    args.root = args.root.resolve()
    experiments = args.experiment
    options = vit_options(args)
    check_samples(experiments, args.root)
    if not args.slurm:  # it imports libraries, as what follows does: side by side
        fork_server(with_backbone=any(experiment.has_backbone for experiment in experiments))
    jobs = plan(experiments, args.methods, seeds(args.seed_id), args.root, options)
    if args.slurm:
        submit(jobs, args)
    else:
        launch(jobs, args)


def vit_options(args: Namespace) -> list[str]:
    """Return the arguments that only the training of a ViT takes."""
    options = ["--backbone", args.backbone] if args.backbone != DEFAULT_BACKBONE else []
    options += ["--random_crop"] if args.random_crop else []
    options += ["--source", str(args.source.resolve())] if args.source else []
    if options and not any(experiment.has_backbone for experiment in args.experiment):
        raise UserError(f"{options[0]} has no effect without an experiment of a ViT")
    return options


def launch(jobs: list[Job], args: Namespace) -> None:
    """Run the jobs on this machine."""
    from src.launch.parallel import Launcher, make_slots, n_cores

    launcher = Launcher(jobs, make_slots(gpus_to_use(args), args.workers or n_cores()))
    end_at_hangup()
    launcher.run()
    if launcher.failed:
        for job in launcher.failed:
            print(f"failed: {job.name}, log {job.log}")
        skipped = f", {len(launcher.skipped)} skipped" if launcher.skipped else ""
        again = shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]])
        print(f"{len(launcher.failed)} failed{skipped}; what is missing is run by: {again}")
        sys.exit(1)


def gpus_to_use(args: Namespace) -> list[str]:
    """Return the numbers of the GPUs to use; none: the CPU."""
    if args.workers:
        return []
    import torch

    n_gpus = torch.cuda.device_count()
    if args.gpus is None:
        from src.launch.parallel import all_gpus

        with_backbone = any(experiment.has_backbone for experiment in args.experiment)
        return all_gpus(n_gpus, one_seed_fills_one=with_backbone)
    for gpu in args.gpus:
        if int(gpu) >= n_gpus:
            raise UserError(f"there is no GPU {gpu} here, which has {n_gpus} (numbered from 0)")
    return args.gpus


def submit(jobs: list[Job], args: Namespace) -> None:
    """Submit the jobs to Slurm."""
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


if __name__ == "__main__":
    run(main)
