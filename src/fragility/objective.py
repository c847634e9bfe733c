"""What a training minimises, as a function of one vector, and its Gauss–Newton matrix.

    F(w) = (1/n) Σ_{i≠j} L_i(w) + (decay/2) ‖w‖²

j is the sample that is left out, or none is; n stays the number of all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.func import hessian, vmap

from src.data.samples import Samples
from src.ensemble.members import Params, PerSampleLoss, n_parameters
from src.tda.hessian import flatten, unflatten
from src.tda.similarity import n_outputs, output_gradients, single_outputs

BATCH = 100  # samples whose activations stay in a CPU's caches


@dataclass(frozen=True)
class Objective:
    """F over all parameters of a network.

    Attributes:
        loss: The per-sample loss, in eval mode.
        like: Parameters, which say what names and shapes a vector's parts have.
        train: The n training samples.
        decay: The weight decay.
        removed: Position of the sample that is left out; None: none is.
    """

    loss: PerSampleLoss
    like: Params
    train: Samples
    decay: float
    removed: int | None = None

    def params(self, w: Tensor) -> Params:
        """Return the parameters that a vector (P,) stands for."""
        return {name: part[0] for name, part in unflatten(w[None], self.like).items()}

    def vector(self) -> Tensor:
        """Return the vector (P,) of `like`."""
        return flatten({name: p[None] for name, p in self.like.items()})[0]

    def without(self, position: int | None) -> Objective:
        """Return the same without the sample at a position, or with all."""
        return replace(self, removed=position)

    def value_and_gradient(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """Return F and ∇F (P,) at a vector (P,)."""
        leaves = {name: p.detach().requires_grad_() for name, p in self.params(w).items()}
        weights = torch.ones_like(self.train.labels, dtype=w.dtype)
        if self.removed is not None:
            weights[self.removed] = 0
        total = w.new_zeros(())
        with torch.enable_grad():
            for first, (inputs, labels) in zip(
                range(0, len(weights), BATCH), self.train.batches(BATCH), strict=True
            ):
                losses = self.loss.accurate(leaves, inputs, labels)
                part = (losses * weights[first : first + BATCH]).sum() / len(weights)
                part.backward()
                total += part.detach()
        of_losses = torch.cat([p.grad.reshape(-1) for p in leaves.values()])
        return total + self.decay / 2 * w.square().sum(), of_losses + self.decay * w

    def single(self) -> Objective:
        """Return the same in float32."""
        train = self.train
        train = Samples(train.images.float(), train.labels, train.indices, train.transform)
        like = {name: p.float() for name, p in self.like.items()}
        return replace(self, like=like, train=train)


def gauss_newton(loss: PerSampleLoss, params: Params, samples: Samples) -> Tensor:
    """Return the Gauss–Newton matrix (P, P) of the mean loss, as `src.tda.gauss_newton` defines it.

    It is AᵀA of rows R_i J_i, with R_iᵀ R_i the Hessian of sample i's loss with respect to its
    outputs: one large product instead of P small ones with vectors. The loss has to be convex in
    the outputs, as cross-entropy is.
    """
    outputs = single_outputs(loss)
    d, width = n_outputs(outputs, params, samples), n_parameters(params)
    like = next(iter(params.values()))
    matrix = like.new_zeros(width, width)

    def of_outputs(row: Tensor, label: Tensor) -> Tensor:
        return loss.accurate.criterion(row[None], label[None]).sum()

    for inputs, labels in samples.batches(BATCH):
        jacobians = flatten(output_gradients(outputs, params, inputs, d).stack())
        with torch.no_grad():
            rows = loss.outputs(params, inputs)
        curvature = vmap(hessian(of_outputs))(rows, labels)  # (B, d, d)
        values, vectors = torch.linalg.eigh(curvature)
        roots = values.clamp(min=0).sqrt()[:, :, None] * vectors.mT  # R, (B, d, d)
        a = (roots @ jacobians.reshape(len(labels), d, -1)).reshape(-1, width)
        matrix.addmm_(a.T, a)
    return matrix / len(samples)
