"""Train models on random subsets of the training set, and keep their losses on the test set."""

from src.argument_types import number, positive_int
from src.cli import ArgumentParser, run
from src.experiments import FRACTION, INCLUSION, SUBSET_KINDS, TRUTH
from src.steps import train_on_subsets


def main() -> None:
    parser = ArgumentParser(__doc__)
    parser.add_experiments()
    parser.add_argument(
        "--kind",
        nargs="+",
        choices=SUBSET_KINDS,
        default=[TRUTH],
        help="; ".join(f"{kind.name}: {kind.help}" for kind in SUBSET_KINDS.values()),
    )
    numbers = ", ".join(f"{kind.n_subsets} {kind.name}" for kind in SUBSET_KINDS.values())
    parser.add_argument(
        "--n_subsets",
        type=positive_int,
        metavar="K",
        help=f"subsets of each seed, of permutations their number; none: {numbers}",
    )
    parser.add_argument(
        "--fraction",
        type=number(above=0, below=1),
        default=FRACTION,
        metavar="X",
        help="share of the training set in a subset, of truth and half",
    )
    parser.add_argument(
        "--inclusion",
        type=number(above=0, below=1),
        default=INCLUSION,
        metavar="P",
        help="probability that a sample is in a subset, of independent",
    )
    parser.add_computing()
    parser.add_chunk_size("models trained")
    args = parser.parse_args()
    for option in ("fraction", "inclusion"):
        kinds = [kind.name for kind in SUBSET_KINDS.values() if kind.size == option]
        if getattr(args, option) != parser.get_default(option) and not {*kinds} & {*args.kind}:
            parser.error(f"--{option} has no effect without --kind {' or '.join(kinds)}")

    from src.subsets.masks import Subsets

    for kind in dict.fromkeys(args.kind):
        train_on_subsets(args, Subsets.of(kind, args.n_subsets, args.fraction, args.inclusion))


if __name__ == "__main__":
    run(main)
