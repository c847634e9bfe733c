"""The optimiser of a stack of members, and what its first step does.

torch's optimisers work element by element, so one over stacked parameters is exactly one for each
member.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from src.ensemble.members import Params, Stack
from src.experiments import Experiment

ADAM_EPSILON = 1e-8  # torch's defaults
ADAM_BETAS = 0.9, 0.999


@dataclass(frozen=True)
class OptimizerSettings:
    """One of torch's optimisers.

    Attributes:
        learning_rate: Of the first step, and of all where there is no decay.
        weight_decay: What is added to the gradient, per unit of a parameter; of "adamw" what is
            taken off a parameter, per unit of it and of the learning rate.
        name: "adam", "adamw" or "sgd".
        momentum: Of "sgd".
        decay_steps: Steps over which the learning rate decays to 0, linearly and without warm-up;
            None: it does not.
    """

    learning_rate: float
    weight_decay: float
    name: str = "adam"
    momentum: float = 0.0
    decay_steps: int | None = None

    @classmethod
    def of(cls, experiment: Experiment, n_train: int) -> OptimizerSettings:
        """Return the settings of training an experiment on `n_train` samples."""
        chosen = experiment.hyperparameters
        steps_per_epoch = -(-n_train // chosen.batch_size)
        return cls(
            chosen.learning_rate,
            chosen.weight_decay,
            chosen.optimizer,
            chosen.momentum,
            chosen.epochs * steps_per_epoch if experiment.decays else None,
        )

    def optimizer(self, members: Stack) -> torch.optim.Optimizer:
        """Return a fresh optimiser over the members' parameters."""
        common = {"lr": self.learning_rate, "weight_decay": self.weight_decay, "fused": True}
        if self.name == "sgd":
            return torch.optim.SGD(members.values(), momentum=self.momentum, **common)
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[self.name]
        return kind(members.values(), betas=ADAM_BETAS, eps=ADAM_EPSILON, **common)

    def first_step(self, params: Params, gradients: Stack) -> Stack:
        """Return the members that a fresh optimiser's first step from `params` makes.

        After one step momentum is the gradient itself, and both of Adam's moments, corrected for
        their bias, are those of one gradient (Kingma and Ba 2015, algorithm 1), so that with
        learning rate η and weight decay λ the step goes to

            θ − η (g + λθ)                          "sgd"
            θ − η u(g + λθ)                         "adam", u(g) = g / (|g| + ε)
            θ − η λθ − η u(g)                       "adamw" (Loshchilov and Hutter 2019)

        Args:
            params: Parameters θ of one member.
            gradients: The gradient of each member's loss there, (M, ...); empty afterwards.
        """
        decoupled = self.name == "adamw"
        members = {}
        with torch.no_grad():
            for name, start in params.items():
                # A tensor of its own, since two parameters may have been given one gradient.
                step = torch.add(
                    gradients.pop(name), start, alpha=0 if decoupled else self.weight_decay
                )
                if decoupled:
                    start = start * (1 - self.learning_rate * self.weight_decay)
                if self.name != "sgd":
                    step.div_(step.abs().add_(ADAM_EPSILON))
                members[name] = step.mul_(-self.learning_rate).add_(start)
        return members

    @property
    def n_moments(self) -> int:
        """How many tensors are kept from step to step for each parameter."""
        if self.name == "sgd":
            return int(self.momentum != 0)
        return 2

    def step(
        self,
        parameter: Tensor,
        gradient: Tensor,
        *moments: Tensor,
        number: int,
        learning_rate: float,
    ) -> tuple[Tensor, ...]:
        """Return a parameter and its moments after one step, as a function that has derivatives.

        It works element by element.

        The derivative of the square root in Adam's denominator is taken to be 0 at 0. There every
        gradient so far has been 0, and so are the first moment, which the square root divides, and
        what the step changes.

        Args:
            parameter: The parameter.
            gradient: The gradient of the loss there, same shape.
            moments: What the steps before have left, `n_moments` tensors; zeros before the first.
            number: Of this step, from 1.
            learning_rate: Of this step.
        """
        if self.name == "adamw":
            parameter = parameter * (1 - learning_rate * self.weight_decay)
        else:
            gradient = gradient + self.weight_decay * parameter
        if self.name == "sgd":
            if self.n_moments:
                gradient = self.momentum * moments[0] + gradient
                moments = (gradient,)
            return parameter - learning_rate * gradient, *moments
        beta, beta_of_squares = ADAM_BETAS
        mean = beta * moments[0] + (1 - beta) * gradient
        squares = beta_of_squares * moments[1] + (1 - beta_of_squares) * gradient.square()
        is_zero = squares == 0
        root = squares.masked_fill(is_zero, 1).sqrt().masked_fill(is_zero, 0)
        denominator = root / (1 - beta_of_squares**number) ** 0.5 + ADAM_EPSILON
        step = learning_rate / (1 - beta**number) * mean / denominator
        return parameter - step, mean, squares

    def schedule(self, optimizer: torch.optim.Optimizer) -> LRScheduler | None:
        """Return the schedule of the learning rate, to be stepped after each step."""
        if self.decay_steps is None:
            return None
        n_steps = self.decay_steps
        return LambdaLR(optimizer, lambda step: max(0.0, (n_steps - step) / n_steps))
