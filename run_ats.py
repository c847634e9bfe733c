"""Additional training step: one more step on each training sample, and what it does to the test."""

from src.cli import ArgumentParser, run
from src.steps import score_seeds


def main() -> None:
    parser = ArgumentParser(__doc__)
    parser.add_experiments()
    parser.add_computing()
    parser.add_chunk_size("members, each with its own step,")
    args = parser.parse_args()

    from collections.abc import Iterator

    from torch import Tensor

    from src.data.samples import Samples
    from src.ensemble.memory import steps_at_once
    from src.tda.ats import additional_step
    from src.tda.scores import Draws, Scores, collect

    def compute(draws: Draws) -> dict[str, Scores]:
        setup = draws.setup
        chunk_size = args.chunk_size or steps_at_once(setup.loss, draws.checkpoints[0], setup.train)

        def chunks(train: Samples) -> Iterator[Tensor]:
            return additional_step(
                setup.loss,
                draws.checkpoints,
                train,
                setup.test,
                optimizer=setup.optimizer,
                chunk_size=chunk_size,
                measure=setup.measure,
            )

        return {"ats": Scores(collect(draws, setup.train, chunks, f"ats seed {draws.seed}"))}

    score_seeds(args, ("ats",), compute, {})


if __name__ == "__main__":
    run(main)
