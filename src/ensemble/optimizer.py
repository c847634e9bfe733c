"""The optimiser of a stack of members, and what its first step does.

torch's optimisers work element by element, so one over stacked parameters is exactly one for each
member.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from src.ensemble.members import Params, Stack
from src.experiments import Experiment

ADAM_EPSILON = 1e-8  # torch's default


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
        return kind(members.values(), eps=ADAM_EPSILON, **common)

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
            gradients: The gradient of each member's loss there, (M, ...); becomes the result.
        """
        decoupled = self.name == "adamw"
        with torch.no_grad():
            for name, g in gradients.items():
                start = params[name]
                if decoupled:
                    start = start * (1 - self.learning_rate * self.weight_decay)
                else:
                    g.add_(start, alpha=self.weight_decay)
                if self.name != "sgd":
                    g.div_(g.abs().add_(ADAM_EPSILON))
                g.mul_(-self.learning_rate).add_(start)
        return gradients

    def schedule(self, optimizer: torch.optim.Optimizer) -> LRScheduler | None:
        """Return the schedule of the learning rate, to be stepped after each step."""
        if self.decay_steps is None:
            return None
        n_steps = self.decay_steps
        return LambdaLR(optimizer, lambda step: max(0.0, (n_steps - step) / n_steps))
