"""A task's own criterion and measure, targets that are values, and torch's other optimisers.

All methods are held against plain models, one sample and one retraining at a time.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector
from torch.utils.data import DataLoader

from src.ensemble.members import PerSampleLoss, squared_error, state_of
from src.ensemble.optimizer import OptimizerSettings
from src.ensemble.procedure import Procedure
from src.ensemble.retraining import retrain
from src.tda.ats import additional_step
from src.tda.gradient_similarity import gradient_similarity
from src.tda.influence import influence
from src.tda.loo import leave_one_out
from src.tda.solvers.exact import Exact
from tests.tools import relative_error, samples

SEED, BATCH_SIZE, N_EPOCHS, N_TRAIN, N_TEST = 446, 4, 3, 7, 5
SETTINGS = {
    "adam": OptimizerSettings(1e-2, 5e-3),
    "adamw": OptimizerSettings(1e-2, 0.1, "adamw"),
    "sgd": OptimizerSettings(0.1, 1e-2, "sgd", momentum=0.9),
}


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Return how far the other classes are ahead."""
    right = logits.gather(1, labels[:, None]).squeeze(1)
    return logits.logsumexp(1) - 2 * right


def naive_squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    return torch.stack([F.mse_loss(o.flatten(), t) for o, t in zip(outputs, targets, strict=True)])


def absolute_error(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.reshape(targets.shape) - targets).abs().sum(1)


# Criterion and measure as src takes them, the criterion as the naive one does, and the targets.
KINDS: dict[str, tuple[Callable, Callable | None, Callable, Callable[[int], Tensor]]] = {
    "margin": (
        lambda o, y: F.cross_entropy(o, y, reduction="none"),
        margin,
        lambda o, y: F.cross_entropy(o, y, reduction="none"),
        lambda n: torch.arange(n) % 2,
    ),
    "values": (squared_error, None, naive_squared_error, lambda n: torch.randn(n, 2).double()),
    "values, measured otherwise": (
        squared_error,
        absolute_error,
        naive_squared_error,
        lambda n: torch.randn(n, 2).double(),
    ),
}


def build() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def optimizer_of(settings: OptimizerSettings, model: nn.Module) -> torch.optim.Optimizer:
    common = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    if settings.name == "sgd":
        return torch.optim.SGD(model.parameters(), momentum=settings.momentum, **common)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.name]
    return kind(model.parameters(), **common)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=SETTINGS)
def settings(request: pytest.FixtureRequest) -> OptimizerSettings:
    return SETTINGS[request.param]


class Plain:
    """The naive side: plain models, trained and measured in loops."""

    def __init__(self, kind: str, settings: OptimizerSettings) -> None:
        self.settings = settings
        _, self.measure, self.criterion, targets = KINDS[kind]
        self.measure = self.measure or self.criterion
        self.train, self.test = (
            (torch.randn(n, 3).double(), targets(n)) for n in (N_TRAIN, N_TEST)
        )

    def trained(self, left_out: int | None = None) -> nn.Module:
        torch.manual_seed(SEED)
        model = build()
        optimizer = optimizer_of(self.settings, model)
        for _ in range(N_EPOCHS):
            for batch in DataLoader(range(N_TRAIN), BATCH_SIZE, shuffle=True):
                inputs, targets = self.train[0][batch], self.train[1][batch]
                losses = self.criterion(model(inputs), targets) * (batch != left_out)
                optimizer.zero_grad()
                losses.mean().backward()
                optimizer.step()
        return model

    def measured(self, model: nn.Module) -> Tensor:
        with torch.no_grad():
            return self.measure(model(self.test[0]), self.test[1])

    def stepped(self, model: nn.Module, j: int) -> nn.Module:
        model = copy.deepcopy(model)
        optimizer = optimizer_of(self.settings, model)
        optimizer.zero_grad()
        self.criterion(model(self.train[0][j, None]), self.train[1][j, None]).sum().backward()
        optimizer.step()
        return model

    def gradients(self, model: nn.Module, function: Callable, data: tuple) -> Tensor:
        rows = []
        for x, y in zip(*data, strict=True):
            value = function(model(x[None]), y[None]).sum()
            found = torch.autograd.grad(value, list(model.parameters()))
            rows.append(torch.cat([g.flatten() for g in found]))
        return torch.stack(rows)

    def hessian(self, model: nn.Module) -> Tensor:
        names = [name for name, _ in model.named_parameters()]
        shapes = [p.shape for p in model.parameters()]
        sizes = [p.numel() for p in model.parameters()]

        def mean_loss(flat: Tensor) -> Tensor:
            parts = flat.split(sizes)
            values = {n: p.view(s) for n, p, s in zip(names, parts, shapes, strict=True)}
            outputs = torch.func.functional_call(model, values, (self.train[0],))
            return self.criterion(outputs, self.train[1]).mean()

        return torch.autograd.functional.hessian(
            mean_loss, parameters_to_vector(model.parameters())
        )


@pytest.mark.parametrize("together", [False, True])
def test_every_method(kind: str, settings: OptimizerSettings, together: bool):
    plain = Plain(kind, settings)
    model = plain.trained()
    criterion, own, _, _ = KINDS[kind]
    loss = PerSampleLoss(build(), criterion, together=together)
    measure = None if own is None else PerSampleLoss(loss.model, own, together=together)
    state, train, test = state_of(model), samples(plain.train), samples(plain.test)

    at_train = plain.gradients(model, plain.criterion, plain.train)
    at_test = plain.gradients(model, plain.measure, plain.test)
    dot, cosine = gradient_similarity(loss, state, train, test, chunk_size=2, measure=measure)
    assert relative_error(dot, at_train @ at_test.T) < 1e-9
    norms = at_train.norm(dim=1)[:, None] * at_test.norm(dim=1)
    assert relative_error(cosine, at_train @ at_test.T / norms) < 1e-9

    damped = plain.hessian(model) + 2 * torch.eye(at_train.shape[1])
    for few_train in (True, False):  # each side of the pair matrix is solved once
        some = test.at(slice(None)) if few_train else test.at(slice(2))
        found, _ = influence(loss, state, train, some, Exact(2.0), chunk_size=3, measure=measure)
        expected = -at_train @ torch.linalg.solve(damped, at_test[: len(some)].T)
        assert relative_error(found, expected) < 1e-9

    steps = additional_step(
        loss, [state], train, test, optimizer=settings, chunk_size=3, measure=measure
    )
    base = plain.measured(model)
    expected = torch.stack([plain.measured(plain.stepped(model, j)) - base for j in range(N_TRAIN)])
    assert relative_error(torch.cat([*steps], 1)[0], expected) < 1e-9

    def start() -> dict[str, Tensor]:
        torch.manual_seed(SEED)
        return state_of(build())

    scores = leave_one_out(
        Procedure(loss, train, settings, BATCH_SIZE, N_EPOCHS),
        [state],
        retrain(start, (N_EPOCHS - 1,)),
        list(range(N_TRAIN)),
        test,
        chunk_size=4,
        measure=measure,
    )
    expected = torch.stack([plain.measured(plain.trained(j)) - base for j in range(N_TRAIN)])
    assert relative_error(torch.cat([*scores], 1)[0], expected) < 1e-9
