"""The Gauss–Newton matrix by EK-FAC: a block for each layer, diagonal in a Kronecker basis.

Of a layer with inputs a and output gradients b, a sample's gradient is the matrix Σ_p b_p a_pᵀ over
positions p. The layer's block of G has the eigenvectors of E[a aᵀ] ⊗ E[b bᵀ] (Martens and Grosse
2015; of convolutions, whose a_p are patches, Grosse and Martens 2016), and as eigenvalues the mean
squares of the gradients in that basis (George et al. 2018). The gradients are those of targets that
the model itself gives at random.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.data.samples import Samples
from src.ensemble.members import Params, PerSampleLoss, Stack
from src.ensemble.memory import in_chunks
from src.tda.by_layers import observe, prefix_of
from src.tda.gradients import per_sample_gradients
from src.tda.hessian import flatten, unflatten
from src.tda.layers.convolution import convolution, pad, patches
from src.tda.layers.linear import linear
from src.tda.layers.rules import rule_of
from src.tda.ways import way_for

Result = TypeVar("Result")


@dataclass(frozen=True)
class KroneckerBasis:
    """The basis of a linear layer or a convolution, whose bias is a column of its weight.

    Attributes:
        names: Names of the weight (O, ...) and, where it has one, of the bias (O,).
        inputs: Eigenvectors of E[a aᵀ] as columns, (I, I); with a bias a ends with a 1.
        outputs: Eigenvectors of E[b bᵀ], (O, O).
    """

    names: tuple[str, ...]
    inputs: Tensor
    outputs: Tensor

    def rotate(self, vectors: Stack) -> Tensor:
        """Return vectors (K, ...) over the parameters in the basis, (K, O, I)."""
        weight, *bias = (vectors[name] for name in self.names)
        matrices = torch.cat([weight.flatten(2), *(b[..., None] for b in bias)], 2)
        return self.outputs.T @ matrices @ self.inputs

    def restore(self, rotated: Tensor, like: Stack) -> Stack:
        """Return vectors (K, O, I) in the basis as vectors (K, ...) over the parameters."""
        matrices = self.outputs @ rotated @ self.inputs.T
        weight = like[self.names[0]]
        columns = matrices.split([weight[0, 0].numel(), len(self.names) - 1], 2)
        parts = zip(self.names, columns, strict=False)
        return {name: part.reshape(like[name].shape) for name, part in parts}


@dataclass(frozen=True)
class ParameterBasis:
    """The parameters themselves, of other layers or of none: of G the diagonal is left.

    Attributes:
        names: Names of the parameters.
    """

    names: tuple[str, ...]

    def rotate(self, vectors: Stack) -> Tensor:
        """Return vectors (K, ...) over the parameters as a matrix (K, P')."""
        return flatten({name: vectors[name] for name in self.names})

    def restore(self, rotated: Tensor, like: Stack) -> Stack:
        """Return the rows of a matrix (K, P') as vectors (K, ...) over the parameters."""
        return unflatten(rotated, {name: like[name][0] for name in self.names})


Basis = KroneckerBasis | ParameterBasis


@dataclass(frozen=True)
class Ekfac:
    """G + λ I, λ of each layer `damp` times the mean of its eigenvalues.

    A layer whose eigenvalues are all 0, which no gradient reaches, has no inverse: its parameters
    have no part in what is solved.

    Attributes:
        params: The parameters.
        bases: By name of the layer, so that each parameter is in one of them.
        eigenvalues: Of G, by name of the layer, in the shape of a vector in its basis.
        damp: The damping relative to a layer's mean eigenvalue.
    """

    params: Params
    bases: dict[str, Basis]
    eigenvalues: dict[str, Tensor]
    damp: float

    @property
    def damping(self) -> dict[str, Tensor]:
        """Return λ of each layer by its name."""
        return {layer: self.damp * values.mean() for layer, values in self.eigenvalues.items()}

    def solve(self, matrix: Tensor) -> Tensor:
        """Return (G + λ I)⁻¹ v for each row v of a matrix (K, P)."""
        vectors, solved, damping = unflatten(matrix, self.params), {}, self.damping
        for layer, basis in self.bases.items():
            damped = self.eigenvalues[layer] + damping[layer]
            inverse = torch.where(damped > 0, 1 / damped, 0)
            solved |= basis.restore(basis.rotate(vectors) * inverse, vectors)
        return flatten({name: solved[name] for name in self.params})


def fit_ekfac(
    loss: PerSampleLoss,
    params: Params,
    drawn: Sequence[Samples],
    *,
    damp: float,
    batch_size: int,
) -> Ekfac:
    """Return EK-FAC of the Gauss–Newton matrix of the mean loss.

    Args:
        loss: The per-sample loss.
        params: The trainable parameters θ.
        drawn: The training samples with targets that the model gives at random, one or more times.
        damp: The damping relative to a layer's mean eigenvalue.
        batch_size: Samples whose gradients are held at once.
    """
    loss = loss.accurate
    loss.model.eval()

    def each_batch(compute: Callable[[Tensor, Tensor], Result]) -> Iterator[Result]:
        for samples in drawn:

            def of_chunk(chunk: range, samples: Samples = samples) -> Result:
                return compute(*samples[chunk.start : chunk.stop])

            yield from in_chunks(range(len(samples)), batch_size, of_chunk)

    way = way_for(loss, params, *drawn[0][:batch_size])
    kinds = {name: rule_of(loss.model.get_submodule(name)) for name in way.layers}
    layers = [
        name
        for name, wanted in way.layers.items()
        if kinds[name] in (linear, convolution)
        and "weight" in wanted
        and getattr(loss.model.get_submodule(name), "groups", 1) == 1
    ]

    def products(name: str, x: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        layer, with_bias = loss.model.get_submodule(name), "bias" in way.layers[name]
        a, b = rows_of(layer, x, gradient, with_bias=with_bias)
        return a.T @ a, b.T @ b

    def covariances(inputs: Tensor, labels: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        return observe(loss, params, layers, inputs, labels, products, everywhere=True)

    sums: dict[str, tuple[Tensor, Tensor]] = {}
    for found in each_batch(covariances):
        for name, pair in found.items():
            sums[name] = tuple(map(torch.add, sums[name], pair)) if name in sums else pair
    bases: dict[str, Basis] = {}
    for name, (of_inputs, of_outputs) in sums.items():
        names = [prefix_of(name) + p for p in ("weight", "bias") if p in way.layers[name]]
        bases[name or type(loss.model).__name__] = KroneckerBasis(
            tuple(names), eigenvectors(of_inputs), eigenvectors(of_outputs)
        )
    bases |= _of_others(params, bases)

    def squares(inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        gradients = per_sample_gradients(loss, params, inputs, labels).stack()
        return {name: b.rotate(gradients).square().sum(0) for name, b in bases.items()}

    eigenvalues = {name: torch.zeros(()) for name in bases}
    for found in each_batch(squares):
        eigenvalues = {name: found[name] + total for name, total in eigenvalues.items()}
    n = sum(map(len, drawn))
    return Ekfac(params, bases, {name: total / n for name, total in eigenvalues.items()}, damp)


def rows_of(
    layer: nn.Module, inputs: Tensor, gradient: Tensor, *, with_bias: bool
) -> tuple[Tensor, Tensor]:
    """Return a (N·T, I) and b (N·T, O) of all samples and positions.

    Args:
        layer: A linear layer, or a convolution of one group.
        inputs: What it was given, (N, ...).
        gradient: The gradient of what it returned, (N, ...).
        with_bias: Whether a ends with a 1.
    """
    if rule_of(layer) is linear:
        a, b = inputs.reshape(-1, layer.in_features), gradient.reshape(-1, layer.out_features)
    else:
        a = patches(layer, pad(layer, inputs)).mT.flatten(0, 1)
        b = gradient.flatten(2).mT.flatten(0, 1)
    return (F.pad(a, (0, 1), value=1) if with_bias else a), b


def eigenvectors(matrix: Tensor) -> Tensor:
    """Return the eigenvectors of a symmetric matrix, as columns.

    In float64, since those of eigenvalues that are close rest on its last digits; on the CPU where
    the device has none.
    """
    device = "cpu" if matrix.device.type == "mps" else matrix.device
    return torch.linalg.eigh(matrix.to(device).double()).eigenvectors.to(matrix)


def _of_others(params: Params, bases: dict[str, Basis]) -> dict[str, Basis]:
    """Return bases of the parameters that are in none yet, together those of one module."""
    covered = {name for basis in bases.values() for name in basis.names}
    names: dict[str, list[str]] = {}
    for name in params:
        if name not in covered:
            module, _, _ = name.rpartition(".")
            names.setdefault(name if module in bases or not module else module, []).append(name)
    return {layer: ParameterBasis(tuple(own)) for layer, own in names.items()}
