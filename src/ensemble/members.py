"""Stacks of ensemble members: many states of one architecture, evaluated together.

A member's state maps names to tensors: its trainable parameters, and what else one draw of a model
has for its own, buffers such as running statistics and frozen parameters. A stack is the same with
a leading member dimension M. What is one for all members is there once, expanded.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Hashable, Iterator
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap

from src.ensemble.generators import generator_states, set_generators
from src.errors import UserError
from src.kernels.fuse import by_kernels, is_own_convolution

State = dict[str, Tensor]  # of one member
Params = dict[str, Tensor]  # of one member, its trainable parameters alone
Stack = dict[str, Tensor]  # of M members, each tensor (M, ...)


def trainable(model: nn.Module) -> Params:
    """Return detached copies of the model's trainable parameters, in the order of the model."""
    return {
        name: parameter.detach().clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def own_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield by name what one draw of a model has for its own: parameters, then buffers.

    A model whose frozen weights are given to it, the same ones for all draws, says so by an
    attribute `frozen_weights_are_given`; they are not its own.
    """
    given = getattr(model, "frozen_weights_are_given", False)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad or not given:
            yield name, parameter
    yield from model.named_buffers()


def state_of(model: nn.Module) -> State:
    """Return detached copies of all that one draw of a model has for its own."""
    return {name: tensor.detach().clone() for name, tensor in own_tensors(model)}


def repeat(state: State, n_members: int) -> Stack:
    """Return a stack of `n_members` equal members, which share their memory."""
    return {name: tensor.expand(n_members, *tensor.shape) for name, tensor in state.items()}


def stack(members: list[State]) -> Stack:
    """Return the stack of the given members; tensors that all of them share stay shared."""

    def of_all(tensors: list[Tensor]) -> Tensor:
        if all(tensor is tensors[0] for tensor in tensors):
            return tensors[0].expand(len(tensors), *tensors[0].shape)
        return torch.stack(tensors)

    return {name: of_all([member[name] for member in members]) for name in members[0]}


def unstack(members: Stack) -> list[State]:
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


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the squared error of each sample, the mean over a target's dimensions.

    Args:
        outputs: (B, ...), of as many numbers as the targets.
        targets: (B, ...).
    """
    return (outputs.reshape(targets.shape) - targets).square().reshape(len(targets), -1).mean(1)


class PerSampleLoss:
    """L(z; θ): the loss of single samples as a function of the parameters.

    Args:
        model: Maps a batch of inputs to a batch of outputs. Its parameters and buffers are replaced
            by those of a call; its mode (train or eval) holds for every call.
        criterion: Maps outputs (B, ...) and labels (B,) to losses (B,).
        together: Whether the members of a stack are one batched computation; None: where that is
            faster, and the network's operations allow it.

    Attributes:
        fixed: What replaces the model's parameters and buffers in every call, unless the call says
            otherwise.
        found: What was found out about the loss by computing; `at` and `accurate` share it.
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
        self.fixed: State = {}
        self.found: dict[Hashable, Any] = {}
        # Whether members have convolutions of their own.
        self.convolves = any(map(is_own_convolution, model.modules()))

    @cached_property
    def trainable(self) -> frozenset[str]:
        """The names of the model's trainable parameters."""
        return frozenset(name for name, p in self.model.named_parameters() if p.requires_grad)

    def parameters(self, state: State) -> Params:
        """Return the trainable parameters of a state."""
        return {name: tensor for name, tensor in state.items() if name in self.trainable}

    def at(self, state: State) -> tuple[PerSampleLoss, Params]:
        """Return the loss as a function of the trainable parameters alone, and these.

        What else the state holds, buffers and frozen parameters, is fixed in it.
        """
        params = self.parameters(state)
        if len(params) == len(state):
            return self, state
        bound = self._copy()
        rest = {name: tensor for name, tensor in state.items() if name not in params}
        bound.fixed = {**self.fixed, **rest}
        return bound, params

    def _copy(self) -> PerSampleLoss:
        """Return another loss that shares the model and what is known."""
        copied = copy.copy(self)
        copied.__dict__.pop("accurate", None)
        return copied

    def computes_together(self, device: torch.device) -> bool:
        """Say whether the members of a stack are one batched computation on a device.

        A batch over members is faster for its fewer and larger operations. Not so on a CPU where
        members have convolutions of their own that no kernel takes: the batch would turn them into
        grouped ones, while the activations of one member alone stay in cache. It is also not so
        where an operation has no rule for it (see `src.ensemble.batching`).
        """
        if self.together is not None:
            return self.together
        if self.found.get(("one by one", self.model.training)):
            return False
        return device.type != "cpu" or not self.convolves or by_kernels(self.model)

    @cached_property
    def accurate(self) -> PerSampleLoss:
        """The same loss for attribution: small values and their derivatives keep their digits.

        Training and evaluation take torch's cross-entropy, as the plain idiom does. A criterion of
        one's own is as accurate as it is.
        """
        if self.criterion is not cross_entropy:
            return self
        accurate = self._copy()
        accurate.criterion = accurate_cross_entropy
        return accurate

    def outputs(self, state: State, inputs: Tensor) -> Tensor:
        """Return the model's outputs (B, ...) for one member's state."""
        return functional_call(self.model, {**self.fixed, **state}, (inputs,))

    def __call__(self, state: State, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return the loss (B,) of each sample for one member's state."""
        return self.criterion(self.outputs(state, inputs), labels)

    def forward(
        self, state: State, inputs: Tensor, labels: Tensor, buffers: Collection[str]
    ) -> tuple[Tensor, State]:
        """Return the loss (B,) of each sample and what the pass makes of some buffers.

        The buffers of the state are left as they were, whether the model changes them in place or
        puts others in their place.

        Raises:
            UserError: In training mode another buffer was changed, too.
        """
        values = {**self.fixed, **state}
        values |= {name: values[name].clone() for name in buffers}
        constant = {
            name: (tensor, tensor._version)
            for name, tensor in (state.items() if self.model.training else ())
            if name not in self.trainable and name not in buffers
        }
        losses = self.criterion(functional_call(self.model, values, (inputs,)), labels)
        for name, (tensor, version) in constant.items():
            if values[name] is not tensor or tensor._version != version:
                raise UserError(
                    f"{type(self.model).__name__}: training changes the buffer {name}, which it "
                    "left alone when it was tried, so that members would share it; let every "
                    "step in training mode change it, if only to what it is"
                )
        return losses, {name: values[name].detach() for name in buffers}

    def of_members(self, members: Stack, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return the losses (M, B) of every member on inputs (B, ...) and labels (B,).

        Random layers draw the same masks for all members, the ones that a member would draw alone.
        """
        return self.forward_of_members(members, inputs, labels)[0]

    def forward_of_members(
        self,
        members: Stack,
        inputs: Tensor,
        labels: Tensor,
        buffers: Collection[str] = (),
        *,
        own_batches: bool = False,
    ) -> tuple[Tensor, Stack]:
        """Return the losses (M, B) of every member, and what the pass makes of their buffers.

        Args:
            members: The stack.
            inputs: (B, ...), or with `own_batches` (M, B, ...).
            labels: (B,), or with `own_batches` (M, B).
            buffers: Names of the buffers that the pass may change.
            own_batches: Whether each member has a batch of its own.
        """

        def of_one(state: State, inputs: Tensor, labels: Tensor) -> tuple[Tensor, State]:
            return self.forward(state, inputs, labels, buffers)

        if size(members) > 1 and self.computes_together(labels.device):
            own = self.trainable.union(buffers)
            # What is one for all members (stride 0) is computed with once.
            one = {n: t[0] for n, t in members.items() if n not in own and not t.stride(0)}
            each = {name: tensor for name, tensor in members.items() if name not in one}

            def of_each(state: State, *batch: Tensor) -> tuple[Tensor, State]:
                return of_one({**one, **state}, *batch)

            batch = 0 if own_batches else None
            return vmap(of_each, (0, batch, batch), randomness="same")(each, inputs, labels)
        draws = self.model.training and size(members) > 1
        states = generator_states(labels.device) if draws else ()
        results = []
        for m, state in enumerate(unstack(members)):
            if draws:
                set_generators(labels.device, states)
            batch = (inputs[m], labels[m]) if own_batches else (inputs, labels)
            results.append(of_one(state, *batch))
        losses, changed = zip(*results, strict=True)
        return torch.stack(losses), stack(list(changed))
