"""TracIn: what the steps of a training on a sample did to the test loss (Pruthi et al. 2020).

    steps:   τ(z_j, z) = Σ_{t: z_j ∈ B_t} (η_t / |B_t|) g_t(z)ᵀ g_t(z_j)
    epochs:  τ(z_j, z) = Σ_e η_e g_e(z)ᵀ g_e(z_j)

The first is their ideal form with batches, over the steps t of this very training: B_t is the batch
of step t, η_t its learning rate, and g_t are gradients at the parameters before it. The second is
their TracInCP over all epochs: g_e at the parameters after epoch e, and η_e the mean learning rate
of that epoch's steps, not divided by a batch's size. Both run up to the epoch of the checkpoint
that is scored. Positive: z_j helps z.

Both take the steps for those of gradient descent on the loss, whatever the optimiser makes of the
gradients. The training is repeated from its start, since what came before the checkpoints is not
kept, and has to end where they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from src.data.samples import Samples
from src.ensemble.generators import without_drawing
from src.ensemble.independence import require_independent_samples
from src.ensemble.members import PerSampleLoss, State, repeat
from src.ensemble.memory import vectors_at_once
from src.ensemble.procedure import Procedure
from src.errors import UserError
from src.tda.estimator import Draws, Scores, each_epoch
from src.tda.gradient_similarity import gradient_similarity

FORMS = ("steps", "epochs")
# Of the way from the start. Rounding, threads and devices stay below a thousandth; another batch
# order, learning rate (by a tenth) or label of one sample makes more than a twentieth.
TOLERANCE = 0.01


@dataclass(frozen=True)
class TracIn:
    """The estimator `tracin`.

    Attributes:
        at: One of FORMS: where gradients are taken, before every step or after every epoch.
        chunk_size: Training samples whose gradients are held at once; None: what fits.

    Raises:
        UserError: There is no such form.
    """

    methods: ClassVar[tuple[str, ...]] = ("tracin",)
    retrains: ClassVar[bool] = True

    at: str = "steps"
    chunk_size: int | None = None

    def __post_init__(self) -> None:
        """Check the form."""
        if self.at not in FORMS:
            raise UserError(f"tracin_at is {self.at!r}: choose from {', '.join(FORMS)}")

    def settings(self) -> dict:
        """Return every option that changes the numbers."""
        return {"tracin_at": self.at}

    def __call__(self, draws: Draws) -> dict[str, Scores]:
        """Return the scores of all pairs up to each checkpoint.

        Raises:
            UserError: The training ends elsewhere than at the checkpoints.
            DivergedError: A training loss is not finite.
        """
        setup, experiment = draws.setup, draws.setup.experiment
        kept = dict(zip(experiment.kept_epochs, draws.checkpoints, strict=True))

        def pieces(n_done: int) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
            start = setup.start(draws.seed)
            epochs = traced(
                setup.procedure,
                start,
                setup.test,
                setup.scored,
                chunk_size=self.chunk_size or vectors_at_once(setup.loss, start, setup.train),
                at=self.at,
                measure=setup.measure,
                first_epoch=n_done,
            )
            for epoch, (state, scores) in enumerate(epochs):
                known = {}
                if epoch in kept:
                    off = distance(setup.loss, start, kept[epoch], state)
                    if not off <= TOLERANCE:
                        raise UserError(
                            f"tracin seed {draws.seed}: the training, repeated, is not at its "
                            f"checkpoint after epoch {epoch}: it is {off:.1%} of the way from its "
                            "start away, so that these checkpoints are of another training; train "
                            "again"
                        )
                    known["difference"] = torch.tensor(off)
                if scores is not None:
                    yield scores, known

        increments = each_epoch(draws, pieces, f"tracin seed {draws.seed}")
        scores = torch.stack([s for s, _ in increments]).double().cumsum(0)[[*kept]]
        difference = torch.stack([known["difference"] for _, known in increments if known])
        message = (
            f"the training, repeated, is at its checkpoints to {difference.max():.1e} of the way "
            "from its start"
        )
        return {"tracin": Scores(scores.float(), {"difference": difference}, message)}


def traced(
    procedure: Procedure,
    start: State,
    test: Samples,
    scored: Tensor,
    *,
    chunk_size: int,
    at: str = "steps",
    measure: PerSampleLoss | None = None,
    first_epoch: int = 0,
) -> Iterator[tuple[State, Tensor | None]]:
    """Train from `start`; yield the state after each epoch and what that epoch adds to the scores.

    Args:
        procedure: The training procedure.
        start: Initial state; torch's global generator stands where the batch order begins.
        test: The test samples.
        scored: Positions of the training samples that are scored, int64 (n_scored,).
        chunk_size: Training samples whose gradients are held at once.
        at: One of FORMS.
        measure: What of a test sample is attributed; None: the loss.
        first_epoch: First epoch (0-based) of which gradients are taken; the state alone is yielded
            of those before.

    Yields:
        The state, and the epoch's part of the sum (n_scored, n_test).

    Raises:
        UserError: A sample's loss is not its own in eval mode, or a batch is too small for the
            network.
        DivergedError: A training loss is not finite.
    """
    loss, train = procedure.loss, procedure.samples
    require_independent_samples(loss, start, train)
    procedure.require_batches(start, without_one=False)
    row_of = torch.full((len(train),), -1)
    row_of[scored] = torch.arange(len(scored))
    trainer = procedure.trainer(repeat(start, 1))

    def products(samples: Samples) -> Tensor:
        # The generators belong to the training: batch order, dropout, crops.
        with without_drawing(train.device):
            dot, _ = gradient_similarity(
                loss, trainer.member(0), samples, test, chunk_size=chunk_size, measure=measure
            )
        return dot

    for epoch, batches in enumerate(procedure.schedule()):
        total, rates = None, []
        if epoch >= first_epoch:
            dtype = next(iter(loss.parameters(start).values())).dtype
            total = torch.zeros(len(scored), len(test), dtype=dtype, device=train.device)
        for positions in batches:
            rates.append(trainer.optimizer.param_groups[0]["lr"])
            rows = row_of[positions]
            which = rows >= 0
            if total is not None and at == "steps" and which.any():
                samples = train.at(positions[which].to(train.device))
                total[rows[which]] += rates[-1] / len(positions) * products(samples)
            loss.model.train()
            trainer.step(positions.to(train.device))
        if total is not None and at == "epochs":
            total += sum(rates) / len(rates) * products(train.at(scored.to(train.device)))
        yield trainer.member(0), total


def distance(loss: PerSampleLoss, start: State, expected: State, found: State) -> float:
    """Return how far two ends of a training are apart, as a share of the way from its start.

    Of the trainable parameters, in the Euclidean norm.
    """

    def norm(a: State, b: State) -> float:
        parameters = loss.parameters(a)
        return sum((p - b[name]).norm().item() ** 2 for name, p in parameters.items()) ** 0.5

    apart, way = norm(found, expected), norm(expected, start)
    return apart / way if way else float(apart > 0)
