"""Leave-one-out: retrain without each training sample and compare the test losses."""

from src.cli import ArgumentParser, run
from src.steps import score_seeds


def main() -> None:
    parser = ArgumentParser(__doc__)
    parser.add_experiments()
    parser.add_computing()
    parser.add_train_samples()
    parser.add_self()
    parser.add_argument(
        "--protocol",
        choices=("retrain", "continue"),
        default="retrain",
        help="retrain from initialisation, or continue each checkpoint for as many epochs again "
        "(the published code)",
    )
    parser.add_chunk_size("members trained")
    args = parser.parse_args()

    from src.tda.loo import LeaveOneOut

    score_seeds(args, LeaveOneOut(args.protocol, args.chunk_size))


if __name__ == "__main__":
    run(main)
