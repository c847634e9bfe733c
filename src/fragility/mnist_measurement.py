"""What is measured of the small network on MNIST, in float64: influence, retraining, the optimum.

In float64, since leaving out one image of thousands moves a loss by as little as the rounding of
float32 does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from src.data.samples import Samples
from src.data.scored import balanced_order
from src.ensemble.evaluation import evaluate, fit_of
from src.ensemble.members import Params, PerSampleLoss, repeat, stack, trainable
from src.ensemble.optimizer import OptimizerSettings
from src.fragility.deep_measurement import changes
from src.fragility.influence import loss_changes
from src.fragility.mnist import Configuration
from src.fragility.newton import Coordinates, WhitenedCG, minimise
from src.fragility.objective import Objective
from src.fragility.points import groups_of, test_points
from src.fragility.retraining import retrained_losses, train_by_adam
from src.models.fragile import SmallTanh
from src.progress import progress

HESSIAN_BATCH = 100


def measured(
    configuration: Configuration, seed: int, train: Samples, test: Samples
) -> dict[str, Any]:
    """Return what is measured of one seed.

    That is what `src.fragility.deep_measurement.measured` returns and, of the optimum, the norm of
    the objective's gradient, `gradient_norm`, and of the weights, `weight_norm`, the `objective`
    itself, of the whitened Hessian the smallest eigenvalue among those furthest from 1, `smallest`,
    below 0 where it is no minimum, and the norms of the gradient where each retraining ended, last
    the control's, `gradient_norms` (K + 1,), where it is by Newton's method.
    """
    c = configuration
    train, test = _double(train), _double(test)
    torch.manual_seed(seed)
    model = SmallTanh(tuple(train.images.shape[1:]), int(train.labels.max()) + 1)
    model = model.double().to(train.device)
    loss = PerSampleLoss(model)
    params = _by_adam(c, loss, trainable(model), train, seed)
    model.eval()
    objective = Objective(loss, params, train, c.decay)
    w = _by_rounds(c, objective, seed)
    products = objective.damped_products(w, c.damp)
    coordinates = Coordinates.at(objective, w, c.damp, train).corrected(products, c.n_corrected)
    params = objective.params(w)
    value, gradient = objective.value_and_gradient(w)

    losses = evaluate(loss.accurate, repeat(params, 1), test)[0]
    points = test.at(test_points(losses))
    solver = WhitenedCG(
        c.damp, c.solver_tolerance, c.solver_iterations, HESSIAN_BATCH, coordinates, products
    )
    predicted, known = loss_changes(loss, params, train, train, points, solver)
    removed, groups = groups_of(predicted, c.n_removed, c.groups.split())
    before = evaluate(loss.accurate, repeat(params, 1), points)[0]
    found: dict[str, Any] = {}
    if c.rounds:
        after, norms = _without_each(c, objective, w, coordinates, removed, points, seed)
        found["gradient_norms"] = norms.cpu()
    else:
        optimizer = OptimizerSettings(c.learning_rate * 0.1**2, c.decay)
        after = retrained_losses(
            loss, params, train, removed, points, optimizer, c.batch_size, c.retraining, seed
        )
    smallest = {} if coordinates.smallest is None else {"smallest": coordinates.smallest}
    return {
        "gradient_norm": gradient.norm().item(),
        "weight_norm": w.norm().item(),
        "objective": value.item(),
        **smallest,
        **found,
        **{f"train_{name}": value for name, value in fit_of(loss, params, train).items()},
        **{f"test_{name}": value for name, value in fit_of(loss, params, test).items()},
        **changes(points, before, train, removed, predicted, after - before, groups),
        **{name: value.cpu() for name, value in known.items()},
    }


def _double(samples: Samples) -> Samples:
    return Samples(samples.images.double(), samples.labels, samples.indices)


def _by_adam(
    c: Configuration, loss: PerSampleLoss, params: Params, train: Samples, seed: int
) -> Params:
    """Return the parameters after Adam's steps, whose optimiser starts anew with each rate."""
    ends = [*(round(share * c.steps) for share in (c.first_drop, c.second_drop)), c.steps]
    for k, (begin, end) in enumerate(zip([0, *ends], ends, strict=False)):
        optimizer = OptimizerSettings(c.learning_rate * 0.1**k, c.decay)
        what = f"{c.name} seed {seed}, Adam {k + 1} of {len(ends)}"
        params = train_by_adam(loss, params, train, optimizer, c.batch_size, end - begin, what)
    return params


def _by_rounds(c: Configuration, objective: Objective, seed: int) -> Tensor:
    """Return the optimum (P,), by rounds of Newton's method."""
    w = objective.vector()
    few = balanced_order(objective.train.labels.cpu().numpy(), np.random.default_rng(seed))
    few = torch.from_numpy(few[: c.n_coordinates]).to(objective.train.device)
    with progress(f"{c.name} seed {seed}, Newton", "rounds", c.rounds) as advance:
        for _ in range(c.rounds):
            coordinates = Coordinates.at(objective, w, c.damp, objective.train.at(few))
            w, norm = minimise(objective, w, coordinates, c.iterations, c.tolerance)
            advance(1)
            if norm <= c.tolerance:
                break
    return w


def _without_each(
    c: Configuration,
    objective: Objective,
    w: Tensor,
    coordinates: Coordinates,
    removed: Tensor,
    points: Samples,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Return the test losses (K + 1, 2) without each sample and without none, by steps from w.

    Second are the norms (K + 1,) of the gradients where it ended.
    """
    members, norms = [], []
    what = f"{c.name} seed {seed}, retraining"
    with progress(what, "samples", len(removed) + 1) as advance:
        for j in [*removed.tolist(), None]:
            at, norm = minimise(objective.without(j), w, coordinates, c.retraining, c.tolerance)
            members.append(objective.params(at))
            norms.append(norm)
            advance(1)
    losses = evaluate(objective.loss.accurate, stack(members), points)
    return losses, torch.tensor(norms)
