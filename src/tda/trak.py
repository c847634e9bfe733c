"""TRAK: a kernel of randomly projected gradients of the log odds (Park et al. 2023).

    τ(z_j, z) = φ(z)ᵀ (ΦᵀΦ + λ I)⁻¹ φ(z_j) (1 − p_j),    φ = P ∇_θ log(p_y / (1 − p_y))

p_y is the model's probability of a sample's label y, p_j that of z_j's. P is a Gaussian projection
to k dimensions, drawn from the seed and the same at all its checkpoints. Φ (n, k) has the φ of all
training samples as its rows. λ is `damp` times the mean eigenvalue of ΦᵀΦ; it is needed where there
are fewer samples than dimensions. Positive: z_j helps z.

One draw is one model; the mean over draws is the published estimator, but that this one weights
each model's pairs by its own 1 − p_j. What is attributed are the log odds, also where a task has a
measure of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from src.data.samples import Samples
from src.ensemble.evaluation import evaluate
from src.ensemble.members import PerSampleLoss, State, n_parameters, repeat
from src.ensemble.memory import gradient_batch, in_chunks, vectors_at_once
from src.errors import DivergedError, UserError
from src.tda.estimator import Draws, Scores, each_checkpoint
from src.tda.gradients import per_sample_gradients
from src.tda.hessian import flatten

BLOCK = 2**22  # numbers of P that are there at once


@dataclass(frozen=True)
class Trak:
    """The estimator `trak`.

    Attributes:
        dim: Dimensions k of the projection.
        damp: λ relative to the mean eigenvalue of ΦᵀΦ.
        chunk_size: Samples whose gradients are held at once; None: what fits.
    """

    methods: ClassVar[tuple[str, ...]] = ("trak",)
    retrains: ClassVar[bool] = False

    dim: int = 512
    damp: float = 1e-3
    chunk_size: int | None = None

    def settings(self) -> dict:
        """Return every option that changes the numbers."""
        return {"trak_dim": self.dim, "trak_damp": self.damp}

    def __call__(self, draws: Draws) -> dict[str, Scores]:
        """Return the scores of all pairs at all checkpoints, by method.

        Raises:
            UserError: The model does not give a logit for each of two classes or more.
        """
        setup = draws.setup
        require_logits(setup.loss, draws.checkpoints[0], setup.train)
        odds = PerSampleLoss(setup.loss.model, log_odds)

        def of_checkpoint(checkpoint: State) -> Tensor:
            return trak(
                odds,
                checkpoint,
                setup.train,
                setup.test,
                setup.scored.to(setup.device),
                dim=self.dim,
                damp=self.damp,
                seed=draws.seed,
                chunk_size=self.chunk_size or vectors_at_once(odds, checkpoint, setup.train),
            )

        results = each_checkpoint(draws, of_checkpoint, f"trak seed {draws.seed}")
        return {"trak": Scores(torch.stack(results))}


def require_logits(loss: PerSampleLoss, checkpoint: State, samples: Samples) -> None:
    """Check that targets are classes, and that outputs are a logit for each.

    Raises:
        UserError: They are not.
    """
    if samples.labels.is_floating_point():
        raise UserError("trak is of the probability of a class: it has no meaning for values")
    loss.model.eval()
    with torch.no_grad():
        shape = loss.outputs(checkpoint, samples[:1][0]).shape
    n_classes = max(2, int(samples.labels.max()) + 1)
    if len(shape) != 2 or shape[1] < n_classes:
        raise UserError(
            f"trak takes a logit for each of {n_classes} classes: the model gives outputs "
            f"{list(shape)} for a sample"
        )


def log_odds(logits: Tensor, labels: Tensor) -> Tensor:
    """Return log(p_y / (1 − p_y)) of each sample, (B,); logits (B, K), labels (B,).

    That is the label's logit minus the logarithm of the others' summed exponentials, which keeps
    its digits however confident the model is.
    """
    label = labels[:, None]
    others = logits.scatter(1, label, -torch.inf)
    return logits.gather(1, label).squeeze(1) - others.logsumexp(1)


def trak(
    odds: PerSampleLoss,
    checkpoint: State,
    train: Samples,
    test: Samples,
    scored: Tensor,
    *,
    dim: int,
    damp: float,
    seed: int,
    chunk_size: int,
) -> Tensor:
    """Return the scores (n_scored, n_test) of all pairs at one checkpoint.

    Args:
        odds: The log odds of single samples (`log_odds`), in a loss's place.
        checkpoint: State θ.
        train: The training samples, which Φ is of.
        test: The test samples.
        scored: Positions of the training samples that are scored, (n_scored,).
        dim: Dimensions k of the projection.
        damp: λ relative to the mean eigenvalue of ΦᵀΦ.
        seed: Of the projection.
        chunk_size: Samples whose gradients are held at once.
    """
    odds, params = odds.at(checkpoint)
    # Of both at once, since to draw P takes as long as a third of the products with it.
    phi = projected_gradients(
        odds, params, train.followed_by(test), dim=dim, seed=seed, chunk_size=chunk_size
    )
    phi_train, phi_test = phi[: len(train)], phi[len(train) :]
    solved = solve_gram(phi_train, phi_train[scored], damp)
    # 1 − p = 1 / (1 + odds), without a difference of nearly equal numbers.
    of_scored = evaluate(odds, repeat(params, 1), train.at(scored))[0]
    return torch.sigmoid(-of_scored)[:, None] * (solved @ phi_test.T)


def solve_gram(features: Tensor, vectors: Tensor, damp: float) -> Tensor:
    """Return (ΦᵀΦ + λ I)⁻¹ v for each row v of `vectors` (K, k), Φ (n, k) the `features`.

    In float64: with fewer samples than dimensions λ alone stands against division by zero. On the
    CPU where the device has none.

    Raises:
        DivergedError: The matrix is not positive definite to its precision, or not finite.
    """
    device = "cpu" if features.device.type == "mps" else features.device
    phi = features.to(device).double()
    gram = phi.T @ phi
    damping = damp * gram.diagonal().mean()
    if damping == 0:  # no gradient at all
        return torch.zeros_like(vectors)
    gram.diagonal().add_(damping)
    factor, failed = torch.linalg.cholesky_ex(gram)
    if failed:
        raise DivergedError(
            f"the kernel is singular, or not finite: use a larger --trak_damp than {damp:g}"
        )
    return torch.cholesky_solve(vectors.to(device).double().T, factor).T.to(vectors)


def projected_gradients(
    odds: PerSampleLoss,
    params: State,
    samples: Samples,
    *,
    dim: int,
    seed: int,
    chunk_size: int,
) -> Tensor:
    """Return φ = P g of each sample's gradient g, (n, k).

    Args:
        odds: What the gradients are of.
        params: The trainable parameters.
        samples: The samples.
        dim: Dimensions k.
        seed: Of the projection.
        chunk_size: Samples whose gradients are held at once, for which P is drawn once.
    """
    batch_size = min(chunk_size, gradient_batch(odds, params, samples))

    n = n_parameters(params)
    like = next(iter(params.values()))

    def gradients(batch: range) -> Tensor:
        return flatten(
            per_sample_gradients(odds, params, *samples[batch.start : batch.stop]).stack()
        )

    def projected(chunk: range) -> Tensor:
        held, first = like.new_empty(len(chunk), n), 0
        for batch in in_chunks(chunk, batch_size, gradients):
            held[first : first + len(batch)] = batch
            first += len(batch)
        first, total = 0, like.new_zeros(len(chunk), dim)
        for block in projection(n, dim, seed):
            total.addmm_(held[:, first : first + len(block)], block.to(held))
            first += len(block)
        return total / dim**0.5

    return torch.cat([*in_chunks(range(len(samples)), chunk_size, projected)])


def projection(n: int, dim: int, seed: int) -> Iterator[Tensor]:
    """Yield blocks of rows of √k Pᵀ (n, k): independent standard normal numbers.

    The same numbers on every device, and whatever else is computed at once: they are drawn on the
    CPU in float32, in blocks whose size follows from k.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = max(1, BLOCK // dim)
    for first in range(0, n, rows):
        yield torch.randn(min(rows, n - first), dim, generator=generator)
