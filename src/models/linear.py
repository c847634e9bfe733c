"""Linear layers of frozen networks, computed by whichever of torch's libraries is faster."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Linear):
    """A linear layer on sequences that is a 1x1 convolution where that is faster: on a CPU.

    torch's x86 builds take matrix products from MKL and convolutions from oneDNN, and on an AMD
    processor a convolution reaches more than twice the rate of a matrix product
    (benchmarks/RESULTS.md, "limit"). The weight has to be shared by all members of a stack: with
    one for each, the convolution would be a grouped one.
    """

    @classmethod
    def of(cls, layer: nn.Linear) -> Linear:
        """Return a layer that computes the same and holds the same parameters."""
        new = cls(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        new.weight, new.bias = layer.weight, layer.bias
        return new

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs (B, T, O) of a batch of sequences (B, T, I)."""
        if x.device.type != "cpu" or x.ndim != 3:
            return super().forward(x)
        positions = x.unsqueeze(1).permute(0, 3, 1, 2)  # (B, I, 1, T), in memory channels last
        outputs = F.conv2d(positions, self.weight[:, :, None, None], self.bias)
        return outputs.permute(0, 2, 3, 1).squeeze(1)


def replace_linear_layers(model: nn.Module) -> None:
    """Replace a frozen model's linear layers by ones that compute the same, faster on a CPU."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Linear:
                setattr(parent, name, Linear.of(child))
