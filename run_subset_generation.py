"""Draw the balanced subsets (index files) and write the tensors that every other script reads."""

from src.argument_types import positive_int
from src.cli import ArgumentParser, run
from src.errors import UserError
from src.experiments import TASKS, Paths
from src.experiments.definitions import defined_tasks


def main() -> None:
    parser = ArgumentParser(__doc__)
    parser.add_argument(
        "--task",
        nargs="+",
        choices=TASKS,
        help="tasks to generate; none: those that --define registers or, without it, all",
    )
    parser.add_source()
    parser.add_argument(
        "--new_indices", action="store_true", help="draw new index files with --seed"
    )
    parser.add_argument("--seed", type=positive_int, metavar="N", help="for --new_indices")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="write tensors again that are there, also where the source has other pixels or labels "
        "for the same indices",
    )
    args = parser.parse_args()
    if args.new_indices != (args.seed is not None):
        raise UserError("--new_indices and --seed N go together")

    from src.data.subsets import prepare

    # All tasks are read and checked before the first file is written.
    prepared = [
        subset
        for task in args.task or defined_tasks() or TASKS
        for subset in prepare(
            TASKS[task],
            Paths(args.root),
            args.source,
            new_seed=args.seed,
            overwrite=args.overwrite,
        )
    ]
    for subset in prepared:
        print(subset.write(), flush=True)


if __name__ == "__main__":
    run(main)
