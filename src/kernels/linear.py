"""Linear layers, computed by whichever of torch's operations is faster."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Linear):
    """A linear layer with a batching rule of its own for a weight of each member."""

    @staticmethod
    def takes(layer: nn.Module) -> bool:
        """Say whether a layer may become one of this class."""
        return type(layer) is nn.Linear and layer.bias is not None and layer.weight.requires_grad

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs (B, O) of x (B, I)."""
        if x.ndim == 2 and torch._C._functorch.is_batchedtensor(self.weight):
            return Product.apply(x, self.weight, self.bias)
        return super().forward(x)


class Product(torch.autograd.Function):
    """x Wᵀ + bias.

    torch batches it as a product and a sum, of which the gradient of the weight is not contiguous.
    """

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return the outputs (B, O) of x (B, I), weight (O, I) and bias (O,)."""
        return F.linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Keep what the derivatives need."""
        x, weight, _ = inputs
        ctx.save_for_backward(x, weight)
        ctx.save_for_forward(x, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients."""
        x, weight = ctx.saved_tensors
        return gradient @ weight, gradient.mT @ x, gradient.sum(0)

    @staticmethod
    def jvp(
        ctx: Any, of_x: Tensor | None, of_weight: Tensor | None, of_bias: Tensor | None
    ) -> Tensor:
        """Return the tangent."""
        x, weight = ctx.saved_tensors
        terms = (
            None if of_x is None else of_x @ weight.mT,
            None if of_weight is None else x @ of_weight.mT,
            None if of_bias is None else of_bias.expand(len(x), -1),
        )
        return sum(term for term in terms if term is not None)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *operands: Tensor) -> tuple[Tensor, int]:
        """Return the outputs of all members by one product."""
        x, weight, bias = (
            operand.expand(info.batch_size, *operand.shape)
            if dim is None
            else operand.movedim(dim, 0)
            for operand, dim in zip(operands, in_dims, strict=True)
        )
        if torch.is_grad_enabled():
            # In this order, the gradient of the weight is contiguous.
            return torch.baddbmm(bias[:, :, None], weight, x.mT).mT, 0
        return torch.baddbmm(bias[:, None], x, weight.mT), 0


class FrozenLinear(nn.Linear):
    """A linear layer on sequences that is a 1x1 convolution where that is faster: on a CPU.

    torch's x86 builds take matrix products from MKL and convolutions from oneDNN, and on an AMD
    processor a convolution reaches more than twice the rate of a matrix product
    (benchmarks/RESULTS.md, "limit"). The weight has to be shared by all members of a stack: with
    one for each, the convolution would be a grouped one.
    """

    @staticmethod
    def takes(layer: nn.Module) -> bool:
        """Say whether a layer may become one of this class."""
        return type(layer) is nn.Linear and not any(p.requires_grad for p in layer.parameters())

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs (B, T, O) of a batch of sequences (B, T, I)."""
        if x.device.type != "cpu" or x.ndim != 3:
            return super().forward(x)
        positions = x.unsqueeze(1).permute(0, 3, 1, 2)  # (B, I, 1, T), in memory channels last
        outputs = F.conv2d(positions, self.weight[:, :, None, None], self.bias)
        return outputs.permute(0, 2, 3, 1).squeeze(1)
