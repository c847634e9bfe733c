"""What is measured of one network on iris: retraining, influence, the response between them.

All 150 samples are training samples, standardised. The test point is the training sample of largest
loss at the optimum. Left out, one at a time, are the samples of the next largest losses, a sixth of
all; the test point stays, since what leaving it out does to itself is another question. The control
is retrained as they are, with nothing left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from src.data.samples import Samples
from src.ensemble.members import PerSampleLoss, stack, trainable, unstack
from src.errors import DivergedError
from src.fragility.descent import (
    Layers,
    Objective,
    cross_entropy_objective,
    descend,
    flat,
    to_layers,
    to_stack,
    values_and_gradients,
)
from src.fragility.iris import Configuration
from src.fragility.optimum import Optimum
from src.progress import progress

N_CLASSES = 3
ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh}


def iris(device: torch.device) -> Samples:
    """Return the 150 samples of iris, every feature with mean 0 and standard deviation 1, float64.

    scikit-learn bundles them.
    """
    from sklearn.datasets import load_iris

    values, labels = (torch.from_numpy(part) for part in load_iris(return_X_y=True))
    values = (values - values.mean(0)) / values.std(0, correction=0)
    return Samples(values, labels, torch.arange(len(labels))).to(device)


def perceptron(configuration: Configuration, n_inputs: int, seed: int) -> nn.Sequential:
    """Return the network that a seed initialises by torch's global generator, float64.

    Weights are those of He et al. (2015), biases 0. With torch's own, which make activations
    smaller from layer to layer, all seeds of eight layers decayed to one answer for all samples.
    """
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for _ in range(configuration.depth):
        layers += [
            nn.Linear(n_inputs, configuration.width),
            ACTIVATIONS[configuration.activation](),
        ]
        n_inputs = configuration.width
    layers.append(nn.Linear(n_inputs, N_CLASSES))
    for layer in layers[::2]:
        nn.init.kaiming_normal_(layer.weight, nonlinearity=configuration.activation)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers).double()


def measured(
    configuration: Configuration, seeds: list[int], device: torch.device
) -> Iterator[dict[str, Any]]:
    """Yield what is measured of each seed; all seeds and left-out samples are trained together.

    Each holds what is known of the optimum: `gradient_norm`, `drift` (the norm of the mean gradient
    over the control's steps: where the minimum lies on a kink of ReLU the gradient itself jumps
    about 0), `loss`, `top_eigenvalue` and `smallest_eigenvalue` of the Hessian of the
    mean loss; the `test` point, the samples `removed` (K,), and their losses; and of what leaving
    each out changes `losses`, of the test point, and `norms`, of the parameters, each (K,) by name:
    `retrained`, less what the control changes, and `retrained_raw`; the `response`; and what the
    estimators `exact`, `cg`, `ggn` and `lissa` predict.

    Raises:
        DivergedError: Training came to no number.
    """
    train = iris(device)
    models = [perceptron(configuration, train.images.shape[1], seed) for seed in seeds]
    start = to_layers(stack([trainable(model.to(device)) for model in models]))
    what = f"iris {configuration.name}"
    objective = _objective(configuration, train, [None] * len(seeds))
    with progress(f"{what}: optimum", "networks", len(seeds)) as advance:
        optima = descend(start, objective, configuration.phases(configuration.steps), advance)
    loss = PerSampleLoss(models[0])
    at = to_stack(optima, trainable(models[0]))
    losses = loss.of_members(at, *train[:])  # (seeds, n)
    by_loss = losses.argsort(dim=1, descending=True, stable=True)
    removed = by_loss[:, 1 : 1 + configuration.n_removed]
    retrained = _retrained(configuration, train, optima, removed, what)
    if not all(layer.isfinite().all() for layer in retrained):
        raise DivergedError(f"{what}: gradient descent at rate {configuration.rate:g} diverged")
    norms = values_and_gradients(optima, objective)[1].norm(dim=1)
    changes = flat(retrained).unflatten(0, (len(seeds), -1)) - flat(optima)[:, None]
    for s, params in enumerate(unstack(at)):
        optimum = Optimum(
            configuration,
            loss,
            params,
            [layer[s : s + 1] for layer in optima],
            train,
            train.at(removed[s]),
            train.at(by_loss[s, :1]),
        )
        yield {
            "gradient_norm": norms[s].item(),
            "loss": losses[s].mean().item(),
            "test": by_loss[s, 0].item(),
            "test_loss": losses[s, by_loss[s, 0]].item(),
            "removed": removed[s].cpu(),
            "removed_losses": losses[s, removed[s]].cpu(),
            **_changes(optimum, changes[s], seeds[s]),
        }


def _changes(optimum: Optimum, changes: Tensor, seed: int) -> dict[str, Any]:
    """Return what leaving each sample out changes, and what is known of the optimum beside.

    Args:
        optimum: The optimum.
        changes: What training on changed the parameters by: without each of K samples, and last
            without leaving anything out, (K + 1, P).
        seed: Draws LiSSA's batches.
    """
    configuration = optimum.configuration
    response, response_gradients = optimum.response()
    predictions, known = optimum.predictions(seed)
    actual, of_response = (
        optimum.loss_changes(vectors, optimum.test)[:, 0] for vectors in (changes, response)
    )
    predicted = {
        name: optimum.predicted_loss_changes(vectors, optimum.test)[:, 0]
        for name, vectors in predictions.items()
    }
    losses = {
        "retrained": actual[:-1] - actual[-1],
        "retrained_raw": actual[:-1],
        "response": of_response,
        **predicted,
    }
    norms = {
        "retrained": (changes[:-1] - changes[-1]).norm(dim=1),
        "retrained_raw": changes[:-1].norm(dim=1),
        "response": response.norm(dim=1),
        **{name: found.norm(dim=1) for name, found in predictions.items()},
    }
    # Where the exact inverse came to nothing there is nothing to compare with the control.
    exact = predictions.get("exact", torch.full_like(response, torch.nan))
    of_control = optimum.fits_of_control(changes, exact)
    eigenvalues = torch.linalg.eigvalsh(optimum.hessian.dense())
    phases = configuration.phases(configuration.retraining_steps)
    way = sum(rate * steps for rate, steps in phases)
    return {
        "losses": {name: value.cpu() for name, value in losses.items()},
        "norms": {name: value.cpu() for name, value in norms.items()},
        "control_loss": actual[-1].item(),
        "control_norm": changes[-1].norm().item(),
        **{f"control_{name}": value for name, value in of_control.items()},
        "drift": changes[-1].norm().item() / way,
        "response_gradients": response_gradients.cpu(),
        "top_eigenvalue": eigenvalues[-1].item(),
        "smallest_eigenvalue": eigenvalues[0].item(),
        "solvers": known,
    }


def _objective(
    configuration: Configuration, train: Samples, left_out: list[int | None]
) -> Objective:
    return cross_entropy_objective(
        train[:], N_CLASSES, left_out, configuration.decay, configuration.activation
    )


def _retrained(
    configuration: Configuration, train: Samples, optima: Layers, removed: Tensor, what: str
) -> Layers:
    """Return the networks trained on from each seed's optimum, seed by seed.

    Args:
        configuration: The configuration.
        train: The training samples.
        optima: The optima of the seeds, a stack.
        removed: The samples that are left out, (seeds, K): K networks a seed, then the control.
        what: What is computed, for people.
    """
    left_out = [j for row in removed.tolist() for j in (*row, None)]
    start = [layer.repeat_interleave(removed.shape[1] + 1, 0) for layer in optima]
    with progress(f"{what}: without a sample", "networks", len(left_out)) as advance:
        return descend(
            start,
            _objective(configuration, train, left_out),
            configuration.phases(configuration.retraining_steps),
            advance,
        )
