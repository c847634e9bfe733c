"""Train the CNN ensembles: one model per seed, the last five epochs kept as checkpoints."""

from pathlib import Path

from src.cli import ArgumentParser, run
from src.experiments import paper_cnn_experiments
from src.steps import take_checkpoints, train_seeds


def main() -> None:
    parser = ArgumentParser(__doc__)
    parser.add_experiments(required=False)
    parser.add_computing()
    parser.add_argument(
        "--checkpoints",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="take these state dicts, of the last epochs in their order, in place of training one "
        "seed",
    )
    args = parser.parse_experiments(paper_cnn_experiments)
    if args.checkpoints:
        take_checkpoints(args)
    else:
        train_seeds(args, args.experiment)


if __name__ == "__main__":
    run(main)
