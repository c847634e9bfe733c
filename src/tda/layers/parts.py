"""Gradients of N samples with respect to some parameters: formed, or as outer products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Part(Protocol):
    """Gradients of N samples with respect to some parameters, which have names of their own."""

    names: tuple[str, ...]

    def inner(self, other: Part) -> Tensor:
        """Return the inner products (N, N') with another batch's gradients, of the same class."""

    def squared_norms(self) -> Tensor:
        """Return the squared norms (N,)."""

    def formed(self) -> dict[str, Tensor]:
        """Return the gradients, (N, ...) by name."""

    def contract(self, vectors: dict[str, Tensor]) -> Tensor:
        """Return the inner products (K, N) with vectors, (K, ...) by name."""

    def within(self, d: int) -> Tensor:
        """Return the inner products (N / d, d, d) among each d consecutive samples."""

    def mixed(self, matrices: Tensor) -> Part:
        """Return R G as one gradient a group: of d consecutive samples G, whose inputs are equal.

        Args:
            matrices: R of each group, (N / d, d, d).
        """


@dataclass(frozen=True)
class Formed:
    """Gradients as tensors (N, ...) by name."""

    tensors: dict[str, Tensor]

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters' names."""
        return tuple(self.tensors)

    def inner(self, other: Formed) -> Tensor:
        """Return the inner products (N, N') with another batch's gradients."""
        return sum(
            _rows(tensor, tensor) @ _rows(other.tensors[name], tensor).T
            for name, tensor in self.tensors.items()
        )

    def squared_norms(self) -> Tensor:
        """Return the squared norms (N,)."""
        return sum(
            torch.linalg.vector_norm(_rows(t, t), dim=1).square() for t in self.tensors.values()
        )

    def formed(self) -> dict[str, Tensor]:
        """Return the gradients, (N, ...) by name."""
        return {name: tensor.contiguous() for name, tensor in self.tensors.items()}

    def contract(self, vectors: dict[str, Tensor]) -> Tensor:
        """Return the inner products (K, N) with vectors, (K, ...) by name."""
        return sum(
            _rows(vectors[name], tensor) @ _rows(tensor, tensor).T
            for name, tensor in self.tensors.items()
        )

    def within(self, d: int) -> Tensor:
        """Return the inner products (N / d, d, d) among each d consecutive samples."""
        groups = [_rows(tensor, tensor).unflatten(0, (-1, d)) for tensor in self.tensors.values()]
        return sum(group @ group.mT for group in groups)

    def mixed(self, matrices: Tensor) -> Formed:
        """Return R G of each d consecutive samples G as one gradient."""
        return Formed(
            {
                name: (matrices @ tensor.reshape(*matrices.shape[:2], -1)).flatten(1)
                for name, tensor in self.tensors.items()
            }
        )


def _rows(tensor: Tensor, like: Tensor) -> Tensor:
    """Return a tensor (N, ...) as a matrix (N, P), in the order in which another lies in memory."""
    order = sorted(range(1, like.ndim), key=like.stride, reverse=True)
    return tensor.permute(0, *order).flatten(1) if order else tensor[:, None]


@dataclass(frozen=True)
class OuterProducts:
    """Gradients b aᵀ of a weight, never formed, and b of a bias.

    The inner product of two samples is ⟨a, a'⟩ ⟨b, b'⟩.

    Attributes:
        outputs: b, (N, O).
        inputs: a, (N, I).
        bias: Whether there is a bias.
    """

    outputs: Tensor
    inputs: Tensor
    bias: bool

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters' names."""
        return ("weight", "bias") if self.bias else ("weight",)

    def inner(self, other: OuterProducts) -> Tensor:
        """Return the inner products (N, N') with another batch's gradients."""
        of_outputs, of_inputs = self.outputs @ other.outputs.T, self.inputs @ other.inputs.T
        return of_outputs * (of_inputs + 1 if self.bias else of_inputs)

    def squared_norms(self) -> Tensor:
        """Return the squared norms (N,)."""
        of_inputs = self.inputs.square().sum(1)
        return self.outputs.square().sum(1) * (of_inputs + 1 if self.bias else of_inputs)

    def formed(self) -> dict[str, Tensor]:
        """Return the gradients of the weight (N, O, I) and of the bias (N, O)."""
        weight = self.outputs[:, :, None] * self.inputs[:, None]
        return {"weight": weight, "bias": self.outputs} if self.bias else {"weight": weight}

    def contract(self, vectors: dict[str, Tensor]) -> Tensor:
        """Return the inner products (K, N) with vectors (K, O, I) and (K, O)."""
        products = self.inputs @ vectors["weight"].mT  # (K, N, O)
        if self.bias:
            products += vectors["bias"][:, None]
        return torch.einsum("no,kno->kn", self.outputs, products)

    def within(self, d: int) -> Tensor:
        """Return the inner products (N / d, d, d) among each d consecutive samples."""
        outputs, inputs = (t.unflatten(0, (-1, d)) for t in (self.outputs, self.inputs))
        of_inputs = inputs @ inputs.mT
        return outputs @ outputs.mT * (of_inputs + 1 if self.bias else of_inputs)

    def mixed(self, matrices: Tensor) -> OuterProducts:
        """Return R G of each d consecutive samples G as one gradient, by mixing the b of one a."""
        n, d, _ = matrices.shape
        outputs = (matrices @ self.outputs.unflatten(0, (n, d))).flatten(1)
        return OuterProducts(outputs, self.inputs[::d], self.bias)
