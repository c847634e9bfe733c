"""Leave-one-out: retrain without each training sample and compare the test losses."""

from src.cli import ArgumentParser, run
from src.steps import score_seeds


def main() -> None:
    parser = ArgumentParser(__doc__)
    parser.add_experiments()
    parser.add_computing()
    parser.add_argument(
        "--protocol",
        choices=("retrain", "continue"),
        default="retrain",
        help="retrain from initialisation, or continue each checkpoint for as many epochs again "
        "(the published code)",
    )
    parser.add_chunk_size("members trained")
    args = parser.parse_args()

    from collections.abc import Iterator

    from torch import Tensor

    from src.ensemble.draws import Draw
    from src.ensemble.memory import members_at_once
    from src.tda.loo import NOTHING, continue_training, leave_one_out, retrain
    from src.tda.scores import Draws, Scores, collect

    def compute(draws: Draws) -> dict[str, Scores]:
        setup, experiment, checkpoints = draws.setup, draws.setup.experiment, draws.checkpoints
        if args.protocol == "retrain":
            retrainings = retrain(lambda: setup.start(draws.seed), experiment.kept_epochs)
        else:
            batch_seed = Draw.of(experiment, draws.seed).batch_seed
            retrainings = continue_training(checkpoints, batch_seed, experiment.epochs)
        chunk_size = args.chunk_size or members_at_once(
            setup.loss, checkpoints[0], setup.train, experiment.batch_size
        )

        def chunks(left_out: list[int]) -> Iterator[Tensor]:
            return leave_one_out(
                setup.loss,
                checkpoints,
                retrainings,
                left_out,
                setup.train,
                setup.test,
                optimizer=setup.optimizer,
                batch_size=experiment.batch_size,
                n_epochs=experiment.epochs,
                chunk_size=chunk_size,
                measure=setup.measure,
            )

        left_out = [*range(len(setup.train)), NOTHING]
        scores = collect(draws, left_out, chunks, f"loo seed {draws.seed}")
        scores, floor = scores[:, :-1], scores[:, -1]
        message = (
            f"median |score| {scores.abs().median():.2e}, "
            f"numerical floor {floor.abs().median():.2e}"
        )
        return {"loo": Scores(scores, {"floor": floor}, message)}

    retrains = args.protocol == "retrain"
    score_seeds(args, ("loo",), compute, {"protocol": args.protocol}, retrains=retrains)


if __name__ == "__main__":
    run(main)
