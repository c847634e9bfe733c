"""Models trained on subsets of the training set: the losses of the test samples.

Every member is trained on the seed's own initialisation and batches, like the seed's model, with
the loss of a sample that is not in its subset set to zero wherever it occurs; the batch mean still
divides by the batch's size. Where the samples of a batch see each other in training, what is not in
the subset is taken out of the batch (see `src.ensemble.training.Trainer`).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from src.data.samples import Samples
from src.ensemble.evaluation import evaluate
from src.ensemble.independence import look_at_training, require_independent_samples
from src.ensemble.members import PerSampleLoss, repeat
from src.ensemble.memory import in_chunks, is_out_of_memory
from src.ensemble.procedure import Procedure
from src.ensemble.retraining import Retraining, base_losses, weighted_losses
from src.ensemble.training import TrainingDivergedError
from src.errors import DivergedError, UserError
from src.progress import progress
from src.subsets.masks import Subsets
from src.subsets.walk import Walk
from src.tda.estimator import Draws, checked, collect, kept


def subset_losses(
    procedure: Procedure,
    retraining: Retraining,
    masks: Tensor,
    test: Samples,
    *,
    chunk_size: int,
    measure: PerSampleLoss | None = None,
) -> Iterator[Tensor]:
    """Yield the test losses of one chunk of models after another.

    Args:
        procedure: The training procedure.
        retraining: The training, by its start, and the C epochs after which losses are taken.
        masks: Which samples each model is trained on, bool (K, n_train).
        test: The test samples.
        chunk_size: Models trained at once.
        measure: What of a test sample is taken; None: the loss.

    Yields:
        Losses (C, M, n_test) with M at most `chunk_size`.

    Raises:
        UserError: A sample's loss is not its own in eval mode, or a subset leaves too little of a
            batch for the network.
        DivergedError: A model's training loss is not finite.
    """
    loss, start = procedure.loss, retraining.start()
    require_independent_samples(loss, start, test)
    procedure.require_batches(start, without_one=False)
    mixes = look_at_training(loss, start, procedure.samples).mixes

    def losses(chunk: Tensor) -> Tensor:
        try:
            return torch.stack([*weighted_losses(procedure, retraining, chunk, test, measure)])
        except TrainingDivergedError as error:
            n_in = int(chunk[error.members[0]].sum())
            raise DivergedError(
                f"{len(error.members)} of {len(chunk)} models trained together diverged, the "
                f"first is trained on a subset of {n_in} samples: {error}"
            ) from error
        except (ValueError, RuntimeError) as error:
            if not mixes or is_out_of_memory(error):
                raise
            raise UserError(
                f"{type(loss.model).__name__}: a random subset leaves too little of a batch of "
                f"{procedure.batch_size} for a network in which samples see each other in training "
                f"({str(error).splitlines()[0][:100]}): choose larger batches or subsets"
            ) from error

    yield from in_chunks(masks, chunk_size, losses)


def train_subsets(draws: Draws, subsets: Subsets, chunk_size: int | None = None) -> dict:
    """Train the models of one seed and return what their file holds of it.

    Args:
        draws: The seed; its finished pieces are chunks of models.
        subsets: What is drawn.
        chunk_size: Models trained at once; None: what fits.

    Returns:
        `masks`, bool (K, n_train), and `losses`, float32 (C, K, n_test). Of permutations also
        these, int64 (P, n_train), the number of trained prefixes of each (`lengths`, int64 (P,)),
        whose masks and losses follow each other in this order, and the losses of the empty set,
        that is, of the untrained start (`start`, float32 (n_test,)) and of the whole set (`whole`,
        float32 (C, n_test)).
    """
    setup, experiment = draws.setup, draws.setup.experiment
    retraining = Retraining(lambda: setup.start(draws.seed), experiment.kept_epochs)
    procedure = setup.procedure
    chunk_size = chunk_size or procedure.members_at_once(draws.checkpoints[0])

    def chunks(masks: Tensor) -> Iterator[Tensor]:
        return subset_losses(
            procedure,
            retraining,
            masks,
            setup.test,
            chunk_size=chunk_size,
            measure=setup.measure,
        )

    description = f"{subsets.kind} subsets seed {draws.seed}"
    n_train = len(setup.train)
    if not subsets.is_permutations:
        masks = subsets.masks(n_train, draws.seed)
        losses = collect(draws, masks, chunks, description)
        return {"masks": masks, "losses": losses.float()}
    permutations = subsets.permutations(n_train, draws.seed)
    whole = base_losses(setup.measure, draws.checkpoints, setup.test).float().cpu()
    start = evaluate(setup.measure, repeat(setup.start(draws.seed), 1), setup.test)[0]
    walk = Walk(permutations, whole)
    for piece in draws.pieces.done:
        walk.take(piece)

    def steps() -> Iterator[Tensor]:
        while not walk.is_over:
            number = len(walk.lengths)
            for losses in chunks(walk.ahead()):
                yield walk.take(losses.float().cpu())
                if walk.is_over or len(walk.lengths) != number:
                    break

    total = len(permutations) * (n_train - 1)
    with progress(description, "members", total, walk.n_behind) as advance:
        done = walk.n_behind
        for _ in kept(draws, checked(draws, steps(), description)):
            advance(walk.n_behind - done)
            done = walk.n_behind
    none = torch.empty(len(whole), 0, whole.shape[1])
    return {
        "masks": walk.masks(),
        "losses": torch.cat([none, *draws.pieces.done], 1),
        "permutations": permutations,
        "lengths": torch.tensor(walk.lengths),
        "start": start.float().cpu(),
        "whole": whole,
    }
