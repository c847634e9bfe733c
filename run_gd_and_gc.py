"""Grad-dot and grad-cos: how alike the loss gradients of train and test samples are."""

from src.cli import ArgumentParser, run
from src.steps import score_seeds


def main() -> None:
    parser = ArgumentParser(__doc__)
    parser.add_experiments()
    parser.add_computing()
    parser.add_chunk_size("training samples whose gradients are held")
    args = parser.parse_args()

    import torch

    from src.ensemble.members import Params
    from src.ensemble.memory import vectors_at_once
    from src.tda.gradient_similarity import gradient_similarity
    from src.tda.scores import Draws, Scores, each_checkpoint

    def compute(draws: Draws) -> dict[str, Scores]:
        setup = draws.setup

        def similarity(params: Params) -> tuple[torch.Tensor, torch.Tensor]:
            return gradient_similarity(
                setup.loss,
                params,
                setup.train,
                setup.test,
                chunk_size=args.chunk_size or vectors_at_once(params, setup.train),
                measure=setup.measure,
            )

        pairs = each_checkpoint(draws, similarity, f"gd and gc seed {draws.seed}")
        dot, cosine = (torch.stack(scores) for scores in zip(*pairs, strict=True))
        return {"gd": Scores(dot), "gc": Scores(cosine)}

    score_seeds(args, ("gd", "gc"), compute, {})


if __name__ == "__main__":
    run(main)
