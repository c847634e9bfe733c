"""Derivatives of a training by the weights of its samples, carried along from step to step."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.func import vjp

from src.ensemble.generators import generator_states, set_generators
from src.ensemble.members import Params, Stack, unstack
from src.ensemble.memory import hessian_vectors, in_chunks
from src.ensemble.procedure import Procedure
from src.errors import UserError
from src.tda.hessian import load_forward_mode_rules
from src.tda.hessian_products import give_up_way, products

SAME = 1e-3  # how far apart two computations of one gradient may be, relative to its norm


class Tangents:
    """Derivatives of a training's parameters and moments by the weights of K training samples.

    Args:
        procedure: The training procedure.
        members: The one member to start from.
        by: Positions of the K training samples.

    Attributes:
        trainer: Trains the member; `step` has it take its steps.
        of_parameters: dθ / dw_j, K vectors over the parameters.
    """

    def __init__(self, procedure: Procedure, members: Stack, by: list[int]) -> None:
        load_forward_mode_rules()
        self.trainer = trainer = procedure.trainer(members)
        self.optimizer = optimizer = procedure.optimizer
        self.samples = procedure.samples
        self.by = torch.tensor(by, device=self.samples.device)
        state = unstack(trainer.members)[0]
        # Of the loss what the optimiser does not move stays as it is.
        self.loss = trainer.loss.at(state)[0].accurate
        params = self._parameters()
        self.n_steps = dict.fromkeys(params, 0)

        def moments(values: Params | Stack) -> dict[str, tuple[Tensor, ...]]:
            each = range(optimizer.n_moments)
            return {name: tuple(torch.zeros_like(v) for _ in each) for name, v in values.items()}

        self.of_parameters = {n: p.new_zeros(len(by), *p.shape) for n, p in params.items()}
        self.moments, self.of_moments = moments(params), moments(self.of_parameters)
        batch_size = min(procedure.batch_size, len(self.samples))
        self.at_once = hessian_vectors(self.loss, params, self.samples, batch_size)

    def _parameters(self) -> Params:
        """Return copies of the parameters as they are now."""
        parameters = self.trainer.loss.parameters(self.trainer.members)
        return {name: p.detach()[0].clone() for name, p in parameters.items()}

    def step(self, positions: Tensor) -> None:
        """Take a step on the batch at positions (B,), and bring the tangents behind it.

        Raises:
            UserError, DivergedError: See `src.tda.unrolled.unrolled`.
        """
        device, params = self.samples.device, self._parameters()
        learning_rate = self.trainer.optimizer.param_groups[0]["lr"]
        before = generator_states(device)
        inputs, labels = self.samples[positions]  # which may be random crops
        drawn = generator_states(device)
        set_generators(device, before)
        self.trainer.step(positions)
        after = generator_states(device)
        # What has no gradient is no part of the step.
        gradients = {
            name: self.trainer.members[name].grad[0]
            for name in params
            if self.trainer.members[name].grad is not None
        }
        is_first = not any(self.n_steps.values())
        for name in gradients:
            self.n_steps[name] += 1

        def of_gradients(vectors: Stack, weights: Tensor) -> Stack:
            set_generators(device, drawn)
            weights = weights.to(next(iter(params.values())).dtype)
            return products(self.loss, params, inputs, labels, vectors, weights)

        if is_first:
            nothing = {name: torch.zeros_like(p[None]) for name, p in params.items()}
            everyone = torch.ones_like(positions[None])
            while not _are_equal(of_gradients(nothing, everyone), gradients):
                if not give_up_way(self.loss, "random layers draw other numbers in the other way"):
                    raise UserError(
                        f"{type(self.loss.model).__name__}: random layers draw other numbers in "
                        "second derivatives than in training, so that unrolled does not apply"
                    )

        moments, derivatives = {}, {}
        for name, gradient in gradients.items():
            update = partial(
                self.optimizer.step, number=self.n_steps[name], learning_rate=learning_rate
            )
            at = params[name], gradient, *self.moments[name]
            values, derivatives[name] = _by_each(update, at)
            moments[name] = values[1:]

        def step(chunk: range) -> None:
            rows = slice(chunk.start, chunk.stop)
            vectors = {name: tangent[rows] for name, tangent in self.of_parameters.items()}
            along = of_gradients(vectors, self.by[rows, None] == positions)
            found = {}
            for name, by_each in derivatives.items():
                of_moments = (tangent[rows] for tangent in self.of_moments[name])
                found[name] = _along(by_each, (vectors[name], along.pop(name), *of_moments))
            # Behind all that may run out of memory, so that it is as a whole or not at all.
            for name, new in found.items():
                carried = self.of_parameters[name], *self.of_moments[name]
                for tangent, values in zip(carried, new, strict=True):
                    tangent[rows] = values

        with torch.no_grad():
            for _ in in_chunks(range(len(self.by)), self.at_once, step):
                pass
        self.moments |= moments
        set_generators(device, after)


def _by_each(
    function: Callable[..., tuple[Tensor, ...]], at: tuple[Tensor, ...]
) -> tuple[tuple[Tensor, ...], list[tuple[Tensor, ...]]]:
    """Return the values of a function that works element by element, and its derivatives.

    Those are the diagonals of its Jacobian's blocks: of each of its values the derivative by each
    of its arguments, all of one shape.
    """
    values, pull_back = vjp(function, *at)
    ones, zeros = torch.ones_like(at[0]), torch.zeros_like(at[0])
    return values, [
        pull_back(tuple(ones if k == value else zeros for k in range(len(values))))
        for value in range(len(values))
    ]


def _along(derivatives: list[tuple[Tensor, ...]], tangents: tuple[Tensor, ...]) -> list[Tensor]:
    """Return a function's derivatives along K tangents, (K, ...) of each of its values.

    Args:
        derivatives: What `_by_each` returns.
        tangents: Of each of its arguments, (K, ...).
    """
    found = []
    for by_argument in derivatives:
        first, *others = zip(by_argument, tangents, strict=True)
        total = first[0] * first[1]
        for derivative, tangent in others:
            total.addcmul_(derivative, tangent)
        found.append(total)
    return found


def _are_equal(found: Stack, gradients: Params) -> bool:
    """Say whether a gradient by way of products is that of the training's own pass.

    Other masks change much of it, rounding little: some networks have parts in float32 at any rate.
    """
    difference = sum((found[n][0] - g).square().sum() for n, g in gradients.items()).sqrt()
    size = sum(g.square().sum() for g in gradients.values()).sqrt()
    return (difference <= SAME * size).item()
