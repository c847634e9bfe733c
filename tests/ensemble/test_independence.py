"""What training does to a network, and whether samples see each other: found by computing."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from src.ensemble.evaluation import evaluate
from src.ensemble.independence import look_at_training
from src.ensemble.members import PerSampleLoss, repeat, state_of, trainable
from src.ensemble.memory import activation_bytes
from src.ensemble.optimizer import OptimizerSettings
from src.ensemble.procedure import Procedure
from src.ensemble.retraining import retrain
from src.ensemble.setup import train
from src.errors import UserError
from src.tda.loo import NOTHING, leave_one_out
from tests.tools import samples

ADAM = OptimizerSettings(1e-3, 5e-3)


def converged() -> nn.Module:
    """Return a network whose iteration is at its fixed point, so that it changes no buffer."""
    layer = nn.Linear(4, 3)
    nn.init.zeros_(layer.weight)
    with torch.no_grad():
        layer.weight[0, 0] = 2.0
    return parametrizations.spectral_norm(layer)


class OverTheBatch(nn.Module):
    """Subtracts the mean over the batch; in training only."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x, centred in training."""
        return x - x.mean(0) if self.training else x


class Counting(nn.Module):
    """Counts its calls in training, in a buffer that it puts in place of the old one."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("n_calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Return x."""
        if self.training:
            self.n_calls = self.n_calls + 1
        return x


class CountingSamples(nn.Module):
    """Counts the samples that it has seen in training."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("n_samples", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """Return x."""
        if self.training:
            self.n_samples += len(x)
        return x


def pooled_to_one() -> nn.Module:
    """Return a network with batch normalisation of maps of one element, as resnet18's last are."""
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3))


def frozen_statistics() -> nn.Module:
    """Return a network whose batch normalisation stays in eval mode."""

    class Frozen(nn.BatchNorm1d):
        def train(self, mode: bool = True) -> Frozen:
            return super().train(False)

    return nn.Sequential(Frozen(4), nn.Linear(4, 3)).train()


STATISTICS = {"running_mean", "running_var", "num_batches_tracked"}


@pytest.mark.parametrize(
    ("model", "shape", "changes", "mixes"),
    [
        (pooled_to_one(), (1, 3, 3), STATISTICS, True),
        (nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3)), (4,), STATISTICS, True),
        (nn.Sequential(nn.BatchNorm1d(4, affine=False), nn.Linear(4, 3)), (4,), STATISTICS, True),
        (
            nn.Sequential(nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 3)),
            (4,),
            set(),
            True,
        ),
        (parametrizations.spectral_norm(nn.Linear(4, 3)), (4,), {"_u", "_v"}, False),
        (converged(), (4,), {"_u", "_v"}, False),
        (nn.utils.spectral_norm(nn.Linear(4, 3)), (4,), {"weight_u", "weight_v"}, False),
        (nn.Sequential(Counting(), nn.Linear(4, 3)), (4,), {"n_calls"}, False),
        (nn.Sequential(CountingSamples(), nn.Linear(4, 3)), (4,), {"n_samples"}, True),
        (
            # A sample's loss is its own in training, but not what evaluation normalises by.
            nn.Sequential(
                nn.InstanceNorm1d(4, track_running_stats=True), nn.Flatten(), nn.Linear(8, 3)
            ),
            (4, 2),
            STATISTICS - {"num_batches_tracked"},
            True,
        ),
        (nn.Sequential(OverTheBatch(), nn.Linear(4, 3)), (4,), set(), True),
        (nn.Sequential(nn.Dropout(0.5), OverTheBatch(), nn.Linear(4, 3)), (4,), set(), True),
        (nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 8), nn.Dropout(0.9)), (4,), set(), False),
        (nn.Sequential(nn.LayerNorm(4), nn.AlphaDropout(0.5), nn.Linear(4, 3)), (4,), set(), False),
        (nn.Sequential(nn.GroupNorm(2, 4), nn.Linear(4, 3)), (4,), set(), False),
        (frozen_statistics(), (4,), set(), False),
        (parametrizations.weight_norm(nn.Linear(4, 3)), (4,), set(), False),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
)
def test_what_training_does(
    model: nn.Module, shape: tuple[int, ...], changes: set[str], mixes: bool
):
    """And finding it out leaves model, mode and generators alone."""
    model.eval()
    before = copy.deepcopy(model.state_dict())
    data = samples((torch.randn(6, *shape), torch.arange(6) % 3))
    generator = torch.get_rng_state()
    found = look_at_training(PerSampleLoss(model), state_of(model), data)
    expected = {name for name, _ in model.named_buffers() if name.split(".")[-1] in changes}
    assert (found.changes, found.mixes) == (expected or changes, mixes)
    assert torch.equal(torch.get_rng_state(), generator)
    assert not model.training
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in after)


def test_of_one_sample_nothing_shows_what_another_does():
    data = samples((torch.randn(1, 1, 3, 3), torch.zeros(1).long()))
    assert look_at_training(PerSampleLoss(model := pooled_to_one()), state_of(model), data).mixes


def leave_out(model: nn.Module, n: int, batch_size: int) -> Tensor:
    """Return leave-one-out scores of a network on random rows of four numbers."""
    data, state = samples((torch.randn(n, 4), torch.arange(n) % 3)), state_of(model)
    chunks = leave_one_out(
        Procedure(PerSampleLoss(model), data, ADAM, batch_size, n_epochs=1),
        [state],
        retrain(lambda: state, (0,)),
        [0, n - 1, NOTHING],
        data,
        chunk_size=2,
    )
    return torch.cat([*chunks], 1)


def normalised() -> nn.Module:
    """Return a network with batch normalisation of rows."""
    return nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3))


@pytest.mark.parametrize(
    ("build", "n", "batch_size", "says"),
    [
        (normalised, 5, 4, "5 training samples and a batch size of 4 a batch has 1 sample, 0 with"),
        (normalised, 6, 4, "a batch has 2 samples, 1 without the one that is left out"),
        (normalised, 2, 32, "a batch has 2 samples, 1 without"),
        (normalised, 4, 1, "a batch has 1 sample, 0 without"),
        (lambda: nn.Sequential(OverTheBatch(), nn.Linear(4, 3)), 5, 4, "nothing is left"),
    ],
)
def test_batches_too_small_to_leave_one_out(
    build: Callable[[], nn.Module], n: int, batch_size: int, says: str
):
    with pytest.raises(UserError, match=says) as refused:
        leave_out(build(), n, batch_size)
    assert "\n" not in str(refused.value)
    assert "choose another batch size or number of samples" in str(refused.value)


@pytest.mark.parametrize(
    ("build", "n"),
    [(normalised, 7), (lambda: nn.Sequential(OverTheBatch(), nn.Linear(4, 3)), 6)],
)
def test_batches_just_large_enough(build: Callable[[], nn.Module], n: int):
    assert leave_out(build(), n, 4).isfinite().all()


def test_a_last_batch_of_one_is_refused_before_training():
    model, data = normalised(), samples((torch.randn(5, 4), torch.arange(5) % 3))
    with pytest.raises(UserError, match="a batch has 1 sample, too few"):
        next(train(Procedure(PerSampleLoss(model), data, ADAM, 4, 1), state_of(model)))


def test_batch_statistics_in_evaluation_are_refused():
    model = nn.Sequential(nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 3))
    data = samples((torch.randn(6, 4), torch.arange(6) % 3))
    with pytest.raises(UserError, match="in eval mode a sample's loss depends on the other"):
        next(train(Procedure(PerSampleLoss(model), data, ADAM, 3, 1), state_of(model)))
    with pytest.raises(UserError, match="in eval mode a sample's loss depends on the other"):
        leave_out(model, 6, 3)


class Seldom(nn.Module):
    """Changes its buffer at every seventh call."""

    def __init__(self) -> None:
        super().__init__()
        self.n_calls = 0
        self.register_buffer("shift", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Return x, shifted."""
        self.n_calls += self.training
        if self.training and self.n_calls % 7 == 0:
            self.shift += 1
        return x + self.shift


def test_a_buffer_that_changes_seldom_is_not_shared_without_a_word():
    with pytest.raises(UserError, match="training changes the buffer 0.shift, which it left alone"):
        leave_out(nn.Sequential(Seldom(), nn.Linear(4, 3)), 40, 4)


def test_a_network_that_keeps_nothing_for_its_gradient_is_evaluated():
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.shift = nn.Parameter(torch.ones(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.shift

    data = samples((torch.zeros(5, 3), torch.arange(5)))
    loss = PerSampleLoss(Shifted(), lambda outputs, _: outputs.sum(1))
    found = evaluate(loss, repeat(trainable(loss.model), 2), data)
    assert torch.equal(found, torch.full((2, 5), 3.0))


@pytest.mark.parametrize("training", [True, False])
def test_memory_is_measured_where_a_single_sample_cannot_be_normalised(training: bool):
    model = pooled_to_one().train(training)
    before = copy.deepcopy(model.state_dict())
    loss = PerSampleLoss(model)
    for n in (1, 5):
        data = samples((torch.randn(n, 1, 3, 3), torch.arange(n) % 3))
        # At least the image, the convolution's map and the last layer's input, in float32.
        assert activation_bytes(loss, trainable(model), data) >= 4 * (9 + 4 + 4)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
