"""Influence functions with the Gauss–Newton matrix by EK-FAC (Grosse et al. 2023).

    τ(z_j, z) = −g(z)ᵀ (G + λ I)⁻¹ g(z_j)

G is the Gauss–Newton matrix of the mean training loss at θ, taken layer by layer: of linear layers
and convolutions, LoRA's among them, in the Kronecker basis that `src.tda.kronecker` describes; of
all other parameters (normalisations, embeddings, recurrences, parameters without a layer,
convolutions of several groups) its diagonal. G is the mean of b bᵀ over gradients b of targets that
the model itself gives at random: labels drawn from its softmax, or values around its outputs. λ is
`damp` times the mean eigenvalue of each layer. Negative: z_j helps z.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from src.data.samples import Samples
from src.ensemble.evaluation import outputs_on
from src.ensemble.members import PerSampleLoss, State, cross_entropy, squared_error
from src.ensemble.memory import gradient_batch, vectors_at_once
from src.errors import UserError
from src.tda.estimator import Draws, Scores, each_checkpoint, stacked
from src.tda.influence import solved_products
from src.tda.kronecker import fit_ekfac

N_NAMED = 8  # layers whose damping is said one by one


@dataclass(frozen=True)
class EkfacInfluence:
    """The estimator `ekfac`.

    Attributes:
        damp: The damping relative to a layer's mean eigenvalue.
        draws: Targets drawn of each training sample.
        chunk_size: Gradients solved for at once; None: what fits.
    """

    methods: ClassVar[tuple[str, ...]] = ("ekfac",)
    retrains: ClassVar[bool] = False

    damp: float = 0.1
    draws: int = 1
    chunk_size: int | None = None

    def settings(self) -> dict:
        """Return every option that changes the numbers."""
        return {"ekfac_damp": self.damp, "ekfac_draws": self.draws}

    def __call__(self, draws: Draws) -> dict[str, Scores]:
        """Return the scores of all pairs at all checkpoints, by method."""
        setup, scored = draws.setup, draws.setup.scored_samples

        def of_checkpoint(checkpoint: State) -> tuple[Tensor, dict[str, Tensor]]:
            # The same one at every checkpoint, so that no draw rests on how many came before.
            generator = torch.Generator().manual_seed(draws.seed)
            return ekfac_influence(
                setup.loss,
                checkpoint,
                draw_targets(setup.loss, checkpoint, setup.train, self.draws, generator),
                scored,
                setup.test,
                damp=self.damp,
                chunk_size=self.chunk_size or vectors_at_once(setup.loss, checkpoint, setup.train),
                measure=setup.measure,
            )

        scores, damping = stacked(each_checkpoint(draws, of_checkpoint, f"ekfac seed {draws.seed}"))
        extra = {f"damping_{layer}": values for layer, values in damping.items()}
        return {"ekfac": Scores(scores, extra, describe(damping))}


def draw_targets(
    loss: PerSampleLoss,
    checkpoint: State,
    samples: Samples,
    n_draws: int,
    generator: torch.Generator,
) -> list[Samples]:
    """Return the samples with targets drawn from the model at a checkpoint, `n_draws` times.

    Labels have the probabilities of the softmax. Values are normal around the outputs, of variance
    D / 2 for each of D numbers: for that the squared error's gradients have the Gauss–Newton matrix
    as their second moment.

    Raises:
        UserError: The loss is neither cross-entropy nor the squared error.
    """
    if loss.criterion not in (cross_entropy, squared_error):
        raise UserError(
            "ekfac draws targets from the model, for which the loss has to be cross-entropy or the "
            "squared error: a criterion of one's own says of no target how likely it is"
        )
    # On the CPU, so that a seed's draws are the same on every device.
    outputs = outputs_on(loss, checkpoint, samples).cpu().double()
    if loss.criterion is cross_entropy:
        drawn = torch.multinomial(outputs.softmax(1), n_draws, True, generator=generator).T
    else:
        means = outputs.reshape(samples.labels.shape)
        noise = torch.randn((n_draws, *means.shape), dtype=means.dtype, generator=generator)
        drawn = means + math.sqrt(means[0].numel() / 2) * noise
    return [
        Samples(samples.images, targets.to(samples.labels), samples.indices, samples.transform)
        for targets in drawn
    ]


def ekfac_influence(
    loss: PerSampleLoss,
    checkpoint: State,
    drawn: list[Samples],
    scored: Samples,
    test: Samples,
    *,
    damp: float,
    chunk_size: int,
    measure: PerSampleLoss | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the scores (n_scored, n_test) of all pairs at one checkpoint.

    Args:
        loss: The per-sample loss.
        checkpoint: State θ.
        drawn: The training samples with drawn targets, which G is of (`draw_targets`).
        scored: The training samples that are scored.
        test: The test samples.
        damp: The damping relative to a layer's mean eigenvalue.
        chunk_size: Vectors solved for at once.
        measure: What of a test sample is attributed, whose gradient g(z) is; None: the loss.

    Returns:
        The scores, and λ of each layer, (), by its name.
    """
    of_test, _ = (measure or loss).at(checkpoint)
    loss, params = loss.at(checkpoint)
    batch_size = min(chunk_size, gradient_batch(loss, params, drawn[0]))
    ekfac = fit_ekfac(loss, params, drawn, damp=damp, batch_size=batch_size)
    products, _ = solved_products(
        params,
        (loss, scored),
        (of_test, test),
        lambda vectors: (ekfac.solve(vectors), {}),
        chunk_size=chunk_size,
    )
    return -products, ekfac.damping


def describe(damping: dict[str, Tensor]) -> str:
    """Return the damping (C,) of each layer, its mean over checkpoints, for people."""
    means = {layer: values.mean().item() for layer, values in damping.items()}
    named = sorted(means, key=means.get) if len(means) > N_NAMED else list(means)
    if len(means) > N_NAMED:
        named = [named[0], named[len(named) // 2], named[-1]]
    said = ", ".join(f"{layer} {means[layer]:.2g}" for layer in named)
    if len(means) > N_NAMED:
        return f"damping of {len(means)} layers, smallest, median and largest: {said}"
    return f"damping {said}"
