"""Stacks of ensemble members: many parameter vectors of one architecture, evaluated together.

A stack maps each trainable parameter's name to a tensor with a leading member dimension M. Frozen
parameters and buffers stay in the model and are shared by all members.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap

from src.kernels.fuse import by_kernels, is_own_convolution

Params = dict[str, Tensor]  # of one member
Stack = dict[str, Tensor]  # of M members, each tensor (M, ...)


def trainable(model: nn.Module) -> Params:
    """Return detached copies of the model's trainable parameters, in the order of the model."""
    return {
        name: parameter.detach().clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def repeat(params: Params, n_members: int) -> Stack:
    """Return a stack of `n_members` equal members."""
    return {name: p.expand(n_members, *p.shape).clone() for name, p in params.items()}


def stack(members: list[Params]) -> Stack:
    """Return the stack of the given members."""
    return {name: torch.stack([member[name] for member in members]) for name in members[0]}


def unstack(members: Stack) -> list[Params]:
    """Return the members of a stack as views."""
    columns = [tensor.unbind(0) for tensor in members.values()]
    return [dict(zip(members, row, strict=True)) for row in zip(*columns, strict=True)]


def size(members: Stack) -> int:
    """Return the number of members."""
    return len(next(iter(members.values())))


def n_parameters(params: Params) -> int:
    """Return the number of trainable parameters of one member."""
    return sum(p.numel() for p in params.values())


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of each sample; logits (B, K), labels (B,), result (B,)."""
    return F.cross_entropy(logits, labels, reduction="none")


def accurate_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return `cross_entropy` in a form that keeps its digits where a sample is confident.

    With c the class of the largest logit,

        L = (z_c − z_y) + log(1 + Σ_{k≠c} exp(z_k − z_c)),

    whose derivative by z_c is made of the sum of the other classes' probabilities. The usual form
    has p_y − 1 there, and its value is a logarithm of nearly 1: both cancel where p_y is near 1.
    """
    top = logits.argmax(1, keepdim=True)
    z_top, z_label = logits.gather(1, top), logits.gather(1, labels[:, None])
    others = (logits - z_top).exp().scatter(1, top, 0)
    # Where the label is on top the gap is 0, and must not bring back a derivative of 1 − 1.
    gap = (z_top - z_label).masked_fill(top == labels[:, None], 0)
    return gap.squeeze(1) + others.sum(1).log1p()


class PerSampleLoss:
    """L(z; θ): the loss of single samples as a function of the parameters.

    Args:
        model: Maps a batch of inputs to a batch of outputs. Its trainable parameters are replaced
            by those of a call; its mode (train or eval) holds for every call.
        criterion: Maps outputs (B, ...) and labels (B,) to losses (B,).
        together: Whether the members of a stack are one batched computation; None: where that is
            faster.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
        *,
        together: bool | None = None,
    ) -> None:
        self.model = model
        self.criterion = criterion
        self.together = together
        # Whether members have convolutions of their own.
        self.convolves = any(map(is_own_convolution, model.modules()))

    def computes_together(self, device: torch.device) -> bool:
        """Say whether the members of a stack are one batched computation on a device.

        A batch over members is faster for its fewer and larger operations. Not so on a CPU where
        members have convolutions of their own that no kernel takes: the batch would turn them into
        grouped ones, while the activations of one member alone stay in cache.
        """
        if self.together is None:
            return device.type != "cpu" or not self.convolves or by_kernels(self.model)
        return self.together

    @cached_property
    def accurate(self) -> PerSampleLoss:
        """The same loss for attribution: small values and their derivatives keep their digits.

        Training and evaluation take torch's cross-entropy, as the plain idiom does. A criterion of
        one's own is as accurate as it is.
        """
        if self.criterion is not cross_entropy:
            return self
        return PerSampleLoss(self.model, accurate_cross_entropy, together=self.together)

    def __call__(self, params: Params, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return the loss (B,) of each sample for one member's parameters."""
        return self.criterion(functional_call(self.model, params, (inputs,)), labels)

    def of_members(self, members: Stack, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return the losses (M, B) of every member on inputs (B, ...) and labels (B,).

        Random layers draw the same masks for all members, the ones that a member would draw alone.
        """
        if size(members) == 1:
            return self(unstack(members)[0], inputs, labels)[None]
        if self.computes_together(labels.device):
            return vmap(self, (0, None, None), randomness="same")(members, inputs, labels)
        random_state = torch.get_rng_state() if self.model.training else None
        losses = []
        for params in unstack(members):
            if random_state is not None:
                torch.set_rng_state(random_state)
            losses.append(self(params, inputs, labels))
        return torch.stack(losses)
