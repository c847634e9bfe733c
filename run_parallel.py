"""Train and attribute many seeds side by side: one process per GPU or worker, or on Slurm.

Every job is a run_* script for one seed; its command is printed and can be run by hand. Jobs whose
files are there are left out, so the same command goes on after an interruption.
"""

from src.argument_types import positive_int, step_of
from src.cli import ArgumentParser, run
from src.experiments import PAPER_STEPS, STEPS, SUBSET_KINDS, TRUTH
from src.launch.arguments import add_launching, check_launching, run_jobs, vit_options
from src.launch.jobs import SUBSETS, plan
from src.launch.processes import fork_server
from src.steps import check_samples, seeds


def main() -> None:
    parser = ArgumentParser(__doc__)
    parser.add_experiments()
    parser.add_argument(
        "--methods",
        nargs="*",
        type=step_of,
        choices=(SUBSETS, *STEPS),
        default=list(PAPER_STEPS),
        help=f"none: training only; {SUBSETS}: models on the subsets that accuracy is measured by "
        "(run_subsets.py). Methods that are computed from models on other subsets bring these "
        "along",
    )
    parser.add_argument(
        "--n_subsets",
        type=positive_int,
        metavar="K",
        help=f"of {SUBSETS}, their number; none: {SUBSET_KINDS[TRUTH].n_subsets}",
    )
    parser.add_seeds()
    parser.add_train_samples()
    parser.add_argument(
        "--self",
        action="store_true",
        dest="on_itself",
        help="also score the training samples on themselves",
    )
    add_launching(parser)
    args = parser.parse_args()
    check_launching(parser, args)
    if args.n_subsets is not None and SUBSETS not in args.methods:
        parser.error(f"--n_subsets has no effect without --methods {SUBSETS}")

    args.root = args.root.resolve()
    experiments = args.experiment
    options = vit_options(args, experiments)
    with_backbone = any(experiment.has_backbone for experiment in experiments)
    check_samples(experiments, args.root, args.train_samples)
    if not args.slurm:  # it imports libraries, as what follows does: side by side
        fork_server(with_backbone=with_backbone)
    numbered = seeds(args.seed_id)
    jobs = plan(
        experiments,
        args.methods,
        numbered,
        args.root,
        options,
        args.train_samples,
        on_itself=args.on_itself,
        n_subsets=args.n_subsets,
    )
    run_jobs(jobs, args, with_backbone=with_backbone)


if __name__ == "__main__":
    run(main)
