"""What is measured of one deep network: influence, and retraining without a sample."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from src.data.samples import Samples
from src.ensemble.evaluation import evaluate, fit_of
from src.ensemble.members import PerSampleLoss, repeat, state_of
from src.ensemble.optimizer import OptimizerSettings
from src.fragility.deep import Configuration
from src.fragility.influence import loss_changes
from src.fragility.objective import Objective
from src.fragility.points import groups_of, test_points
from src.fragility.retraining import retrained_losses, train_by_adam
from src.models.fragile import NETWORKS
from src.tda.gauss_newton import GaussNewton
from src.tda.solvers.conjugate_gradient import ConjugateGradient


def measured(
    configuration: Configuration, seed: int, train: Samples, test: Samples, n_classes: int
) -> dict[str, Any]:
    """Return what is measured of one seed.

    That is the number of training samples, `n_train`; the norm of the gradient of what was
    minimised, in eval mode, where it is called an optimum (`gradient_norm`); how well the network
    fits (`train_loss`, `train_accuracy`, `test_loss`, `test_accuracy`); the indices of the test
    points of highest and of median loss, `test` (2,), and their losses there, `test_losses` (2,);
    the indices of the training samples that are left out, `removed` (K,); the changes of the test
    losses that are `predicted` (K, 2), that are `retrained` (K, 2), and that the `control` brings
    (2,), which is not subtracted from them; of each group where in `removed` its samples stand,
    `group_...`; and what the solver knows of the two solutions.

    Raises:
        DivergedError: Training or the solver came to no number.
    """
    c, device = configuration, train.device
    torch.manual_seed(seed)
    model = NETWORKS[c.network](tuple(train.images.shape[1:]), n_classes).to(device)
    loss = PerSampleLoss(model)
    state, optimizer = train_by_adam(
        loss,
        state_of(model),
        train,
        OptimizerSettings(c.learning_rate, c.decay),
        c.batch_size,
        [round(c.drop * c.steps), c.steps],
        f"{c.name} seed {seed}",
    )
    losses = evaluate(loss.accurate, repeat(state, 1), test)[0]
    points = test.at(test_points(losses))
    at, params = loss.at(state)
    solver = ConjugateGradient(c.damp + c.decay, c.cg_tolerance, c.cg_iterations, c.batch_size)
    predicted, known = loss_changes(at, params, train, train, points, solver, GaussNewton)
    removed, groups = groups_of(predicted, c.n_removed)
    after = retrained_losses(
        loss, state, train, removed, points, optimizer, c.batch_size, c.retraining, seed
    )
    before = evaluate(loss.accurate, repeat(state, 1), points)[0]
    objective = Objective(at, params, train, c.decay)
    _, gradient = objective.value_and_gradient(objective.vector())
    return {
        "gradient_norm": gradient.norm().item(),
        **{f"train_{name}": value for name, value in fit_of(loss, state, train).items()},
        **{f"test_{name}": value for name, value in fit_of(loss, state, test).items()},
        **changes(points, before, train, removed, predicted, after - before, groups),
        **{name: value.cpu() for name, value in known.items()},
    }


def changes(
    points: Samples,
    before: Tensor,
    train: Samples,
    removed: Tensor,
    predicted: Tensor,
    change: Tensor,
    groups: dict[str, Tensor],
) -> dict[str, Any]:
    """Return what is kept of the changes of the test points' losses, on the CPU.

    Args:
        points: The test points.
        before: Their losses at the optimum (2,).
        train: The training samples.
        removed: Positions (K,) of those that are left out.
        predicted: Changes that are predicted for all training samples, (n, 2).
        change: Changes by retraining without each, and last the control's, (K + 1, 2).
        groups: See `groups_of`.
    """
    kept = {
        "test_losses": before,
        "predicted": predicted[removed],
        "retrained": change[:-1],
        "control": change[-1],
        **{f"group_{name}": group for name, group in groups.items()},
    }
    return {
        "n_train": len(train),
        "test": points.indices.cpu(),
        "removed": train.indices[removed.cpu()],
        **{name: tensor.cpu() for name, tensor in kept.items()},
    }
