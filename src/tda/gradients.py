"""Per-sample gradients g(z) = ∇_θ L(z; θ), for all samples of a batch.

Of most layers they come out of a single forward and backward pass of the summed loss: a layer's
gradient for one sample is made of its input and of the gradient of the sample's loss with respect
to its output (`src.tda.layers`), since a sample's loss depends on its own activations alone. All
other parameters go the general way, `vmap(grad)` of one sample's loss, or one sample at a time.

What is observed of a layer is what it was given and what it returned. Whether that accounts for
everything that its parameters do is found out by computing, once for a loss and a shape of inputs
(`src.tda.ways`).
"""

from __future__ import annotations

from torch import Tensor

from src.ensemble.members import Params, PerSampleLoss, Stack
from src.tda.layers.parts import Formed, Part
from src.tda.ways import compute, way_for


class PerSampleGradients:
    """The gradients of N samples with respect to all trainable parameters.

    Args:
        parts: Gradients by what precedes their parameters' names in the model: of a layer, its name
            and a dot; of a single parameter, its whole name.
        names: Names of all trainable parameters, in the order of the model.
    """

    def __init__(self, parts: dict[str, Part], names: list[str]) -> None:
        self.parts = parts
        self.names = names

    def inner(self, other: PerSampleGradients) -> Tensor:
        """Return the inner products g(z)ᵀ g(z') with another batch's gradients, (N, N')."""
        if self._kinds() != other._kinds():  # a batch's layers were not called as another's were
            return Formed(self.stack()).inner(Formed(other.stack()))
        return sum(part.inner(other.parts[prefix]) for prefix, part in self.parts.items())

    def norms(self) -> Tensor:
        """Return the Euclidean norms (N,)."""
        return sum(part.squared_norms() for part in self.parts.values()).sqrt()

    def stack(self) -> Stack:
        """Return the gradients as a stack: tensors (N, ...) by the name of the parameter."""
        formed = {
            prefix + name: tensor
            for prefix, part in self.parts.items()
            for name, tensor in part.formed().items()
        }
        return {name: formed[name] for name in self.names}

    def contract(self, vectors: Stack) -> Tensor:
        """Return the inner products (K, N) with K vectors over the parameters."""
        return sum(
            part.contract({name: vectors[prefix + name] for name in part.names})
            for prefix, part in self.parts.items()
        )

    def within(self, d: int) -> Tensor:
        """Return the inner products (N / d, d, d) among each d consecutive samples."""
        return sum(part.within(d) for part in self.parts.values())

    def mixed(self, matrices: Tensor) -> PerSampleGradients:
        """Return R G as one vector a group: of d consecutive samples G, whose inputs are equal.

        Args:
            matrices: R of each group, (N / d, d, d).
        """
        parts = {prefix: part.mixed(matrices) for prefix, part in self.parts.items()}
        return PerSampleGradients(parts, self.names)

    def _kinds(self) -> dict[str, tuple]:
        return {prefix: (type(part), part.names) for prefix, part in self.parts.items()}


def per_sample_gradients(
    loss: PerSampleLoss, params: Params, inputs: Tensor, labels: Tensor
) -> PerSampleGradients:
    """Return the gradients of a batch's losses at `params`, one per sample, in eval mode.

    Args:
        loss: The per-sample loss, of any model whose samples do not see each other in eval mode.
        params: The trainable parameters.
        inputs: (N, ...).
        labels: (N,).

    Raises:
        UserError: A sample's loss depends on the other samples of the batch.
    """
    loss = loss.accurate
    loss.model.eval()
    way = way_for(loss, params, inputs, labels)
    return PerSampleGradients(compute(way, loss, params, inputs, labels), list(params))
