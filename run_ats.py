"""Additional training step: one more step on each training sample, and what it does to the test."""

from src.cli import ArgumentParser, run
from src.steps import score_seeds


def main() -> None:
    parser = ArgumentParser(__doc__)
    parser.add_experiments()
    parser.add_computing()
    parser.add_train_samples()
    parser.add_self()
    parser.add_chunk_size("members, each with its own step,")
    args = parser.parse_args()

    from src.tda.ats import AdditionalStep

    score_seeds(args, AdditionalStep(args.chunk_size))


if __name__ == "__main__":
    run(main)
