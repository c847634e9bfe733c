"""Per-sample gradients g(z) = ∇_θ L(z; θ), for all samples of a batch from one backward pass.

A layer's gradient for one sample is Σ_p b_p a_pᵀ over positions p: a_p the layer's input at a
position (for a convolution the patch under the kernel), b_p the gradient of the sample's loss with
respect to the layer's output there. Both come out of a single forward and backward pass of the
summed loss, since a sample's loss depends on its own activations alone.

Where there is one position, the gradient is never formed: the inner product of two samples is
⟨a, a'⟩ ⟨b, b'⟩. Where there are many, forming it is cheaper.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.kernels import windows
from src.members import Params, PerSampleLoss, Stack


@dataclass(frozen=True)
class OuterProducts:
    """A layer's gradients of N samples as outer products: b aᵀ of the weight, b of the bias.

    Attributes:
        outputs: b, (N, O).
        inputs: a, (N, I).
        bias: Whether the layer has a bias.
    """

    outputs: Tensor
    inputs: Tensor
    bias: bool

    def inner(self, other: OuterProducts) -> Tensor:
        """Return the inner products (N, N') with another batch's gradients."""
        of_outputs, of_inputs = self.outputs @ other.outputs.T, self.inputs @ other.inputs.T
        return of_outputs * (of_inputs + 1 if self.bias else of_inputs)

    def squared_norms(self) -> Tensor:
        """Return the squared norms (N,)."""
        of_inputs = self.inputs.square().sum(1)
        return self.outputs.square().sum(1) * (of_inputs + 1 if self.bias else of_inputs)

    def formed(self) -> tuple[Tensor, Tensor | None]:
        """Return the gradients of the weight (N, O, I) and of the bias (N, O)."""
        weight = self.outputs[:, :, None] * self.inputs[:, None]
        return weight, self.outputs if self.bias else None

    def contract(self, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the inner products (K, N) with vectors (K, O, I) and (K, O)."""
        products = self.inputs @ weight.mT  # (K, N, O)
        if bias is not None:
            products += bias[:, None]
        return torch.einsum("no,kno->kn", self.outputs, products)


@dataclass(frozen=True)
class Matrices:
    """A layer's gradients of N samples, formed: Σ_p b_p a_pᵀ of the weight, Σ_p b_p of the bias.

    Attributes:
        weight: (N, O, I). Of a convolution, I goes through the kernel's rows and columns, and in
            each through the input's channels.
        bias: (N, O); None: the layer has none.
        kernel: Rows and columns of a convolution's kernel; None: it is no convolution.
    """

    weight: Tensor
    bias: Tensor | None
    kernel: tuple[int, int] | None = None

    def inner(self, other: Matrices) -> Tensor:
        """Return the inner products (N, N') with another batch's gradients."""
        products = self.weight.flatten(1) @ other.weight.flatten(1).T
        return products if self.bias is None else products + self.bias @ other.bias.T

    def squared_norms(self) -> Tensor:
        """Return the squared norms (N,)."""
        squares = self.weight.square().sum((1, 2))
        return squares if self.bias is None else squares + self.bias.square().sum(1)

    def formed(self) -> tuple[Tensor, Tensor | None]:
        """Return the gradients of the weight (N, O, I), in its order, and of the bias (N, O)."""
        if self.kernel is None:
            return self.weight, self.bias
        weight = self.weight.unflatten(2, (*self.kernel, -1))  # (N, O, kH, kW, C)
        return weight.permute(0, 1, 4, 2, 3).flatten(2), self.bias

    def contract(self, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the inner products (K, N) with vectors (K, O, I), in their order, and (K, O)."""
        if self.kernel is not None:
            weight = weight.unflatten(2, (-1, *self.kernel)).permute(0, 1, 3, 4, 2).flatten(2)
        products = weight.flatten(1) @ self.weight.flatten(1).T
        return products if bias is None else products + bias @ self.bias.T


class PerSampleGradients:
    """The gradients of N samples with respect to all trainable parameters.

    Args:
        layers: Each layer's gradients, by the name of the layer.
        shapes: Shape of each trainable parameter, by name, in the order of the model.
    """

    def __init__(
        self, layers: dict[str, OuterProducts | Matrices], shapes: dict[str, torch.Size]
    ) -> None:
        self.layers = layers
        self.shapes = shapes

    def inner(self, other: PerSampleGradients) -> Tensor:
        """Return the inner products g(z)ᵀ g(z') with another batch's gradients, (N, N')."""
        return sum(layer.inner(other.layers[name]) for name, layer in self.layers.items())

    def norms(self) -> Tensor:
        """Return the Euclidean norms (N,)."""
        return sum(layer.squared_norms() for layer in self.layers.values()).sqrt()

    def stack(self) -> Stack:
        """Return the gradients as a stack: new tensors (N, ...) by the name of the parameter."""
        formed = {}
        for layer, gradients in self.layers.items():
            weight, bias = _parameter_names(layer)
            of_weight, of_bias = gradients.formed()
            formed[weight] = of_weight.reshape(-1, *self.shapes[weight])
            if of_bias is not None:
                formed[bias] = of_bias
        return {name: formed[name] for name in self.shapes}

    def contract(self, vectors: Stack) -> Tensor:
        """Return the inner products (K, N) with K vectors over the parameters."""
        total: Tensor | int = 0
        for layer, gradients in self.layers.items():
            weight, bias = _parameter_names(layer)
            total = total + gradients.contract(vectors[weight].flatten(2), vectors.get(bias))
        return total


def _parameter_names(layer: str) -> tuple[str, str]:
    prefix = f"{layer}." if layer else ""
    return f"{prefix}weight", f"{prefix}bias"


def per_sample_gradients(
    loss: PerSampleLoss, params: Params, inputs: Tensor, labels: Tensor
) -> PerSampleGradients:
    """Return the gradients of a batch's losses at `params`, one per sample, in eval mode.

    Args:
        loss: The per-sample loss. Every trainable parameter must be the weight or bias of an
            `nn.Linear` or of an ungrouped `nn.Conv2d` with trainable weight, called once.
        params: The trainable parameters.
        inputs: (N, ...).
        labels: (N,).

    Raises:
        NotImplementedError: A trainable parameter belongs to a layer of another kind.
    """
    layers = _layers_with_parameters(loss.model, params)
    calls: dict[str, tuple[Tensor, Tensor]] = {}

    def recorder(name: str):  # noqa: ANN202
        def record(module: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
            if name in calls:
                raise NotImplementedError(f"layer {name!r} is called more than once")
            calls[name] = (args[0].detach(), output)

        return record

    handles = [layer.register_forward_hook(recorder(name)) for name, layer in layers.items()]
    try:
        loss.model.eval()
        with torch.enable_grad():
            leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
            total = loss.accurate(leaves, inputs, labels).sum()
            output_gradients = torch.autograd.grad(total, [output for _, output in calls.values()])
    finally:
        for handle in handles:
            handle.remove()
    return PerSampleGradients(
        {
            name: _layer_gradients(layers[name], layer_inputs, gradient)
            for (name, (layer_inputs, _)), gradient in zip(
                calls.items(), output_gradients, strict=True
            )
        },
        {name: p.shape for name, p in params.items()},
    )


def _layers_with_parameters(model: nn.Module, params: Params) -> dict[str, nn.Module]:
    layers, missing = {}, set(params)
    for name, module in model.named_modules():
        weight, bias = _parameter_names(name)
        supported = isinstance(module, nn.Linear) or (
            isinstance(module, nn.Conv2d)
            and module.groups == 1
            and module.padding_mode == "zeros"
            and not isinstance(module.padding, str)
        )
        if supported and weight in params and (module.bias is None or bias in params):
            layers[name] = module
            missing -= {weight, bias}
    if missing:
        raise NotImplementedError(
            f"per-sample gradients of {', '.join(sorted(missing))}: trainable parameters must be "
            "those of linear or ungrouped convolution layers"
        )
    return layers


def _layer_gradients(
    layer: nn.Module, inputs: Tensor, gradient: Tensor
) -> OuterProducts | Matrices:
    has_bias = layer.bias is not None
    if isinstance(layer, nn.Conv2d):
        return _convolution_gradients(layer, inputs, gradient)
    a = inputs.reshape(len(inputs), -1, layer.in_features)
    b = gradient.reshape(len(gradient), -1, layer.out_features)
    if a.shape[1] == 1:
        return OuterProducts(b[:, 0], a[:, 0], has_bias)
    return Matrices(b.mT @ a, b.sum(1) if has_bias else None)


def _convolution_gradients(layer: nn.Conv2d, inputs: Tensor, gradient: Tensor) -> Matrices:
    bias = gradient.sum((2, 3)) if layer.bias is not None else None
    weight = None
    if (layer.stride, layer.padding, layer.dilation) == ((1, 1), (0, 0), (1, 1)):
        weight = windows.per_image_weight_gradients(
            inputs.permute(0, 2, 3, 1), gradient.permute(0, 2, 3, 1), layer.kernel_size
        )
    if weight is None:
        patches = F.unfold(inputs, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
        weight = gradient.flatten(2) @ patches.mT  # (N, O, C * kH * kW)
        weight = weight.unflatten(2, (-1, *layer.kernel_size)).permute(0, 1, 3, 4, 2)
    return Matrices(weight.flatten(2), bias, layer.kernel_size)
