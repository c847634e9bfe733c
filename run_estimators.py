"""Further estimators, and controls, under the same test as the paper's five."""

from src.cli import ArgumentParser, run
from src.steps import score_seeds
from src.tda.arguments import add_estimators, options_by_method


def main() -> None:
    parser = ArgumentParser(__doc__)
    parser.add_experiments()
    add_estimators(parser)
    parser.add_computing()
    parser.add_train_samples()
    parser.add_self()
    parser.add_chunk_size("what an estimator computes")
    args = parser.parse_args()
    options = options_by_method(args)

    from src.tda.estimators import estimator_of

    for method, own in options.items():
        score_seeds(args, estimator_of(method, chunk_size=args.chunk_size, **own))


if __name__ == "__main__":
    run(main)
