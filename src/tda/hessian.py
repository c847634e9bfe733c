"""The Hessian of the mean loss of a set of samples, as a matrix and as products with vectors."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torch.func import grad, jvp, vmap

from src.data.samples import Samples
from src.errors import UserError
from src.members import Params, PerSampleLoss, Stack, n_parameters
from src.memory import free_memory, hessian_vectors, in_chunks


def flatten(vectors: Stack) -> Tensor:
    """Return K vectors over the parameters as a matrix (K, P)."""
    return torch.cat([v.flatten(1) for v in vectors.values()], 1)


def unflatten(matrix: Tensor, params: Params) -> Stack:
    """Return the rows of a matrix (K, P) as vectors over the parameters."""
    parts = matrix.split([p.numel() for p in params.values()], 1)
    return {
        name: part.unflatten(1, p.shape)
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

    Products are forward-mode derivatives of the gradient (Pearlmutter 1994), batched over vectors.

    Args:
        loss: The per-sample loss.
        params: The parameters.
        samples: The samples whose mean loss it is.
        batch_size: Samples in a batch; batches follow the stored order.
    """

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
        """Return the products (K, P) of K vectors with the Hessian of one batch's mean loss."""
        inputs, labels = self.batches[batch]

        def mean_loss(params: Params) -> Tensor:
            return self.loss.accurate(params, inputs, labels).mean()

        def product(vector: Params) -> Params:
            return jvp(grad(mean_loss), (self.params,), (vector,))[1]

        self.loss.model.eval()
        products = [
            *in_chunks(
                matrix,
                self.vectors_at_once,
                lambda rows: flatten(vmap(product)(unflatten(rows, self.params))),
            )
        ]
        return torch.cat(products) if len(products) > 1 else products[0]

    def product(self, matrix: Tensor) -> Tensor:
        """Return the products (K, P) of K vectors (K, P) with the Hessian of the mean loss."""
        return sum(
            len(labels) / len(self.samples) * self.batch_product(b, matrix)
            for b, (_, labels) in enumerate(self.batches)
        )

    def dense(self) -> Tensor:
        """Return the Hessian as a matrix (P, P).

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
                f"the dense Hessian of {n:,} parameters needs {needed / 2**30:,.1f} GiB, "
                f"{free / 2**30:,.1f} GiB are free: use --solver cg or lissa"
            )
        identity = torch.eye(n, dtype=like.dtype, device=like.device)
        return torch.cat([self.product(rows) for rows in identity.split(self.vectors_at_once)])
