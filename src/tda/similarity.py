"""Input similarity from the network's perspective (Charpiat et al. 2019).

    τ(z_j, z) = trace K_C(z, z_j) / d        K_C(a, b) = K(a, a)^(−1/2) K(a, b) K(b, b)^(−1/2)

K(a, b) = J(a) J(b)ᵀ is (d, d), and J(a) the Jacobian of the network's d outputs, of classes the
logits, with respect to the trainable parameters: how a step that moves the outputs at b moves those
at a. Neither labels nor a loss enter. From −1 to 1; 1: alike to the network, so positive is taken
to help.

Where K(a, a) is singular its inverse square root is the pseudo-inverse's: directions whose
eigenvalue is at most RANK_TOLERANCE of the largest are left out, and the similarity of a sample
with itself is its rank over d. Beside the scores are kept

    neighbours (C, n_test)              Σ_j τ(z_j, z) over the scored z_j, a soft count
    self_similarity (C, n_test)         trace K(z, z)
    self_similarity_train (C, n_scored) trace K(z_j, z_j)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from src.data.samples import Samples
from src.ensemble.members import Params, PerSampleLoss, State
from src.ensemble.memory import gradient_batch, in_chunks, vectors_at_once
from src.errors import DivergedError
from src.tda.estimator import Draws, Scores, each_checkpoint, stacked
from src.tda.gradients import PerSampleGradients, per_sample_gradients

# Of the largest eigenvalue: what float32 leaves of K has errors of about as much.
RANK_TOLERANCE = 1e-6


@dataclass(frozen=True)
class NetworkSimilarity:
    """The estimator `similarity`.

    Attributes:
        chunk_size: Training samples whose Jacobians are held at once; None: what fits.
    """

    methods: ClassVar[tuple[str, ...]] = ("similarity",)
    retrains: ClassVar[bool] = False

    chunk_size: int | None = None

    def settings(self) -> dict:
        """Return every option that changes the numbers."""
        return {}

    def __call__(self, draws: Draws) -> dict[str, Scores]:
        """Return the scores of all pairs at all checkpoints."""
        setup, scored = draws.setup, draws.setup.scored_samples
        outputs = single_outputs(setup.loss)

        def of_checkpoint(checkpoint: State) -> tuple[Tensor, dict[str, Tensor]]:
            chunk_size = self.chunk_size
            if chunk_size is None:
                vectors = vectors_at_once(outputs, checkpoint, scored)
                chunk_size = max(1, vectors // n_outputs(outputs, checkpoint, scored))
            return input_similarity(outputs, checkpoint, scored, setup.test, chunk_size=chunk_size)

        scores, known = stacked(
            each_checkpoint(draws, of_checkpoint, f"similarity seed {draws.seed}")
        )
        counts = known["neighbours"]
        message = (
            f"soft count of a test sample's neighbours among {len(scored)} training samples: "
            f"median {counts.median():.1f}, from {counts.min():.1f} to {counts.max():.1f}"
        )
        return {"similarity": Scores(scores, known, message)}


def single_outputs(loss: PerSampleLoss) -> PerSampleLoss:
    """Return a network's outputs as a per-sample "loss", whose labels (B,) say which output."""
    return PerSampleLoss(loss.model, _chosen_output, together=loss.together)


def _chosen_output(outputs: Tensor, which: Tensor) -> Tensor:
    return outputs.reshape(len(which), -1).gather(1, which[:, None]).squeeze(1)


@torch.no_grad()
def n_outputs(outputs: PerSampleLoss, state: State, samples: Samples) -> int:
    """Return the number d of a network's outputs for one sample."""
    outputs.model.eval()
    inputs, _ = samples[:1]
    return outputs.outputs(state, inputs).numel()


def input_similarity(
    outputs: PerSampleLoss,
    checkpoint: State,
    train: Samples,
    test: Samples,
    *,
    chunk_size: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the scores (n_train, n_test) of all pairs at one checkpoint.

    trace K_C(z, z_j) is the inner product of Ĵ(z) and Ĵ(z_j), each Ĵ = K^(−1/2) J as one vector.

    Args:
        outputs: The network's outputs, by `single_outputs`.
        checkpoint: State θ.
        train: The training samples that are scored.
        test: The test samples.
        chunk_size: Training samples whose Jacobians are held at once.

    Returns:
        The scores, and what is kept beside them, by name: see above.

    Raises:
        DivergedError: A derivative is not finite.
    """
    d = n_outputs(outputs, checkpoint, train)
    outputs, params = outputs.at(checkpoint)
    batch_size = max(1, min(chunk_size, _rows_at_once(outputs, params, train) // d))

    def normalised(samples: Samples, batch: range) -> tuple[PerSampleGradients, Tensor]:
        """Return Ĵ of a batch, one vector a sample, and trace K (B,)."""
        inputs, _ = samples[batch.start : batch.stop]
        jacobians = output_gradients(outputs, params, inputs, d)
        kernels = jacobians.within(d)
        directions = jacobians.mixed(inverse_square_roots(kernels))
        return directions, kernels.diagonal(dim1=1, dim2=2).sum(1)

    def rows(chunk: range) -> tuple[Tensor, Tensor, Tensor]:
        held = [*in_chunks(chunk, batch_size, lambda batch: normalised(train, batch))]
        of_train = torch.cat([traces for _, traces in held])

        def block(batch: range) -> tuple[Tensor, Tensor]:
            directions, traces = normalised(test, batch)
            return torch.cat([train.inner(directions) for train, _ in held]) / d, traces

        blocks = [*in_chunks(range(len(test)), batch_size, block)]
        scores, of_test = (torch.cat(parts, -1) for parts in zip(*blocks, strict=True))
        return scores, of_train, of_test

    chunks = [*in_chunks(range(len(train)), chunk_size, rows)]
    scores = torch.cat([scores for scores, _, _ in chunks])
    return scores, {
        "neighbours": scores.sum(0),
        "self_similarity": chunks[0][2],
        "self_similarity_train": torch.cat([of_train for _, of_train, _ in chunks]),
    }


def _rows_at_once(outputs: PerSampleLoss, params: Params, samples: Samples) -> int:
    """Return of how many outputs, each of one sample, to form the gradients at once."""
    first = Samples(
        samples.images,
        torch.zeros(len(samples), dtype=torch.int64, device=samples.device),
        samples.indices,
        samples.transform,
    )
    return min(gradient_batch(outputs, params, first), vectors_at_once(outputs, params, first))


def output_gradients(
    outputs: PerSampleLoss, params: Params, inputs: Tensor, d: int
) -> PerSampleGradients:
    """Return the gradients of a batch's outputs: of N·d rows, d consecutive ones of each sample.

    Args:
        outputs: The network's outputs, by `single_outputs`.
        params: The trainable parameters.
        inputs: (N, ...).
        d: Number of outputs.
    """
    which = torch.arange(d, device=inputs.device).repeat(len(inputs))
    return per_sample_gradients(outputs, params, inputs.repeat_interleave(d, 0), which)


def inverse_square_roots(kernels: Tensor) -> Tensor:
    """Return K^(−1/2) of positive semi-definite matrices (N, d, d), the pseudo-inverse's.

    Eigenvalues of at most RANK_TOLERANCE of a matrix's largest count as zero.

    Raises:
        DivergedError: A matrix is not finite.
    """
    if not kernels.isfinite().all():
        raise DivergedError("derivatives of the outputs, or their products, are not finite")
    # On the CPU, since not every device has float64.
    eigenvalues, eigenvectors = torch.linalg.eigh(kernels.cpu().double())
    there = eigenvalues > RANK_TOLERANCE * eigenvalues[:, -1:]
    roots = torch.where(there, eigenvalues, torch.inf).rsqrt()
    return ((eigenvectors * roots[:, None]) @ eigenvectors.mT).to(kernels)
