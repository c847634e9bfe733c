"""Train the CNN ensembles: one model per seed, the last five epochs kept as checkpoints."""

from src.cli import ArgumentParser, run
from src.experiments import paper_cnn_experiments
from src.steps import train_seeds


def main() -> None:
    parser = ArgumentParser(__doc__)
    parser.add_experiments(nargs="+", required=False)
    parser.add_computing()
    args = parser.parse_experiments(paper_cnn_experiments)
    train_seeds(args, args.experiment)


if __name__ == "__main__":
    run(main)
