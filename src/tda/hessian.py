"""The Hessian of the mean loss of a set of samples, as a matrix and as products with vectors."""

from __future__ import annotations

import warnings
from typing import ClassVar

import torch
from torch import Tensor
from torch.func import jvp

from src.data.samples import Samples
from src.ensemble.members import Params, PerSampleLoss, Stack, n_parameters
from src.ensemble.memory import free_memory, hessian_vectors, in_chunks
from src.errors import UserError
from src.tda.hessian_products import Way, products


def flatten(vectors: Stack) -> Tensor:
    """Return K vectors over the parameters as a matrix (K, P)."""
    return torch.cat([v.reshape(len(v), -1) for v in vectors.values()], 1)


def unflatten(matrix: Tensor, params: Params) -> Stack:
    """Return the rows of a matrix (K, P) as vectors over the parameters."""
    parts = matrix.split([p.numel() for p in params.values()], 1)
    return {
        name: part.reshape(-1, *p.shape)
        for (name, p), part in zip(params.items(), parts, strict=True)
    }


def load_forward_mode_rules() -> None:
    """Have torch load its forward-mode rules, as otherwise its first such derivative would.

    It takes a fraction of a second: torch scripts some of them, and warns that scripting will go.
    """
    zero = torch.zeros(())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.script")
        jvp(torch.neg, (zero,), (zero,))


class Hessian:
    """H of the mean loss of `samples` at `params`, in eval mode.

    A matrix of another curvature is a class that derives from this one and has another name and
    other products.

    Args:
        loss: The per-sample loss.
        params: The parameters.
        samples: The samples whose mean loss it is.
        batch_size: Samples in a batch; batches follow the stored order.
    """

    name: ClassVar[str] = "Hessian"
    _products: ClassVar[Way] = staticmethod(products)  # of a batch's mean loss

    def __init__(
        self, loss: PerSampleLoss, params: Params, samples: Samples, batch_size: int
    ) -> None:
        self.loss = loss
        self.params = params
        self.samples = samples
        self.batches = list(samples.batches(batch_size))
        self.vectors_at_once = hessian_vectors(loss, params, samples, batch_size)
        load_forward_mode_rules()

    def batch_product(self, batch: int, matrix: Tensor) -> Tensor:
        """Return the products (K, P) of K vectors with the matrix of one batch's mean loss."""
        inputs, labels = self.batches[batch]

        def of_rows(rows: Tensor) -> Tensor:
            vectors = unflatten(rows, self.params)
            return flatten(self._products(self.loss.accurate, self.params, inputs, labels, vectors))

        self.loss.model.eval()
        found = [*in_chunks(matrix, self.vectors_at_once, of_rows)]
        return torch.cat(found) if len(found) > 1 else found[0]

    def product(self, matrix: Tensor) -> Tensor:
        """Return the products (K, P) of K vectors (K, P) with the matrix of the mean loss."""
        return sum(
            len(labels) / len(self.samples) * self.batch_product(b, matrix)
            for b, (_, labels) in enumerate(self.batches)
        )

    def dense(self) -> Tensor:
        """Return the matrix (P, P).

        Raises:
            UserError: It does not fit in the free memory; the message says what it would need.
        """
        n = n_parameters(self.params)
        like = next(iter(self.params.values()))
        # The matrix, its eigenvectors, and what computing them takes.
        needed = 4 * n**2 * like.element_size()
        free = free_memory(like.device)
        if needed > free:
            raise UserError(
                f"the dense {self.name} of {n:,} parameters needs {needed / 2**30:,.1f} GiB, "
                f"{free / 2**30:,.1f} GiB are free: use --solver cg or lissa"
            )
        identity = torch.eye(n, dtype=like.dtype, device=like.device)
        return torch.cat([self.product(rows) for rows in identity.split(self.vectors_at_once)])
