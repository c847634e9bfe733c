"""What is measured of the small network on MNIST, in float64: influence, retraining, the optimum.

In float64, since leaving out one image of thousands moves a loss by as little as the rounding of
float32 does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from src.data.samples import Samples
from src.ensemble.evaluation import evaluate, fit_of
from src.ensemble.members import PerSampleLoss, repeat, stack, trainable
from src.ensemble.optimizer import OptimizerSettings
from src.fragility.chain import chain_hessian
from src.fragility.deep_measurement import changes
from src.fragility.influence import loss_changes
from src.fragility.mnist import Configuration
from src.fragility.objective import BATCH, Objective, gauss_newton
from src.fragility.points import groups_of, test_points
from src.fragility.quasi_newton import Coordinates, Refined, minimise
from src.fragility.retraining import retrained_losses, train_by_adam
from src.models.fragile import small_tanh
from src.progress import progress


def measured(
    configuration: Configuration, seed: int, train: Samples, test: Samples
) -> dict[str, Any]:
    """Return what is measured of one seed.

    That is what `src.fragility.deep_measurement.measured` returns and, of the optimum, the norm of
    the objective's gradient, `gradient_norm`, and of the weights, `weight_norm`, the `objective`
    itself, its `decrement` (`src.fragility.quasi_newton`), and the `smallest` eigenvalue of the
    damped Hessian, below 0 where it is no minimum; and where retraining is by
    L-BFGS, of each where it began and where it ended, last the control's, the decrements
    `decrements_before` and `decrements` (K + 1,), and the norms of the gradient, `gradient_norms`
    (K + 1,).
    """
    c = configuration
    train, test = _double(train), _double(test)
    torch.manual_seed(seed)
    model = small_tanh(tuple(train.images.shape[1:]), int(train.labels.max()) + 1)
    model = model.double().to(train.device)
    loss = PerSampleLoss(model)
    ends = [*(round(share * c.steps) for share in (c.first_drop, c.second_drop)), c.steps]
    params, last = train_by_adam(
        loss,
        trainable(model),
        train,
        OptimizerSettings(c.learning_rate, c.decay),
        c.batch_size,
        ends,
        f"{c.name} seed {seed}",
    )
    objective = Objective(loss, params, train, c.decay)
    w = _by_rounds(c, objective, seed)
    coordinates = Coordinates.at(objective, w, c.damp)
    params = objective.params(w)
    value, gradient = objective.value_and_gradient(w)

    losses = evaluate(loss.accurate, repeat(params, 1), test)[0]
    points = test.at(test_points(losses))
    solver = Refined(coordinates, BATCH)
    predicted, known = loss_changes(loss, params, train, train, points, solver)
    removed, groups = groups_of(predicted, c.n_removed, c.groups.split())
    before = evaluate(loss.accurate, repeat(params, 1), points)[0]
    found: dict[str, Any] = {}
    if c.rounds:
        after, found = _without_each(c, objective, w, coordinates, removed, points, seed)
    else:
        after = retrained_losses(
            loss, params, train, removed, points, last, c.batch_size, c.retraining, seed
        )
    return {
        "gradient_norm": gradient.norm().item(),
        "weight_norm": w.norm().item(),
        "objective": value.item(),
        "decrement": coordinates.decrement(gradient),
        "smallest": coordinates.values[0].item(),
        **found,
        **{f"train_{name}": value for name, value in fit_of(loss, params, train).items()},
        **{f"test_{name}": value for name, value in fit_of(loss, params, test).items()},
        **changes(points, before, train, removed, predicted, after - before, groups),
        **{name: value.cpu() for name, value in known.items()},
    }


def _double(samples: Samples) -> Samples:
    return Samples(samples.images.double(), samples.labels, samples.indices)


def _by_rounds(c: Configuration, objective: Objective, seed: int) -> Tensor:
    """Return the optimum (P,), by L-BFGS in coordinates that are renewed from round to round."""
    w, curvature = objective.vector(), gauss_newton
    with progress(f"{c.name} seed {seed}, L-BFGS", "rounds", c.rounds) as advance:
        for _ in range(c.rounds):
            coordinates = Coordinates.at(objective, w, c.damp, curvature)
            w = minimise(objective, w, coordinates, c.iterations, c.tolerance)
            advance(1)
            left = coordinates.decrement(objective.value_and_gradient(w)[1])
            if left <= c.tolerance:
                break
            if left <= c.near:
                curvature = chain_hessian
    return w


def _without_each(
    c: Configuration,
    objective: Objective,
    w: Tensor,
    coordinates: Coordinates,
    removed: Tensor,
    points: Samples,
    seed: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the test losses (K + 1, 2) without each sample and, last, the control's, from w.

    The control leaves nothing out and ends where the most exact of the others does. Second are the
    decrements and the norms of the gradients, as `measured` returns them.
    """
    members, before, after, norms = [], [], [], []
    with progress(f"{c.name} seed {seed}, retraining", "samples", len(removed) + 1) as advance:
        for j in [*removed.tolist(), None]:
            without = objective.without(j)
            before.append(coordinates.decrement(without.value_and_gradient(w)[1]))
            tolerance = c.retraining_tolerance * (before[-1] if j is not None else min(before[:-1]))
            at = minimise(without, w, coordinates, c.retraining, tolerance)
            gradient = without.value_and_gradient(at)[1]
            members.append(objective.params(at))
            after.append(coordinates.decrement(gradient))
            norms.append(gradient.norm().item())
            advance(1)
    losses = evaluate(objective.loss.accurate, stack(members), points)
    known = {"decrements_before": before, "decrements": after, "gradient_norms": norms}
    return losses, {name: torch.tensor(values) for name, values in known.items()}
