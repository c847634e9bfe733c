"""Grad-dot and grad-cos: how alike the loss gradients of train and test samples are."""

from src.cli import ArgumentParser, run
from src.steps import score_seeds


def main() -> None:
    parser = ArgumentParser(__doc__)
    parser.add_experiments()
    parser.add_computing()
    parser.add_train_samples()
    parser.add_self()
    parser.add_chunk_size("training samples whose gradients are held")
    args = parser.parse_args()

    from src.tda.gradient_similarity import GradientSimilarity

    score_seeds(args, GradientSimilarity(args.chunk_size))


if __name__ == "__main__":
    run(main)
