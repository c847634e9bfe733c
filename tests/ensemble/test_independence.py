"""Networks of which members cannot be trained as a stack are found by computing, and refused."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from src.ensemble.members import PerSampleLoss, repeat, trainable
from src.ensemble.memory import activation_bytes
from src.ensemble.optimizer import OptimizerSettings
from src.ensemble.training import Trainer
from src.errors import UserError
from src.tda.loo import leave_one_out, retrain
from tests.tools import samples

ADAM = OptimizerSettings(1e-3, 5e-3)


def trained(model: nn.Module, *shape: int, n: int = 6) -> Trainer:
    """Return a trainer of two members of a network on random inputs."""
    data = samples((torch.randn(n, *shape), torch.arange(n) % 3))
    return Trainer(PerSampleLoss(model), repeat(trainable(model), 2), data, ADAM)


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


class OnlyForward(nn.Module):
    """Lets a sample see the ones before it."""

    def forward(self, x: Tensor) -> Tensor:
        """Return sums over the samples up to each."""
        return x.cumsum(0)


def pooled_to_one() -> nn.Module:
    """Return a network with batch normalisation of maps of one element, as resnet18's last are."""
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3))


@pytest.mark.parametrize(
    ("model", "shape", "says"),
    [
        (pooled_to_one(), (1, 3, 3), r"1\.num_batches_tracked, 1\.running_mean, 1\.running_var"),
        (nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3)), (4,), "changes its buffers"),
        (
            nn.Sequential(nn.BatchNorm1d(4, affine=False, momentum=None), nn.Linear(4, 3)),
            (4,),
            "changes its buffers",
        ),
        (parametrizations.spectral_norm(nn.Linear(4, 3)), (4,), "changes its buffers"),
        (converged(), (4,), "changes its buffers"),
        (nn.utils.spectral_norm(nn.Linear(4, 3)), (4,), "changes its buffers"),
        (nn.Sequential(Counting(), nn.Linear(4, 3)), (4,), "n_calls"),
        (
            nn.Sequential(
                nn.InstanceNorm1d(4, track_running_stats=True), nn.Flatten(), nn.Linear(8, 3)
            ),
            (4, 2),
            "changes its buffers",
        ),
        (
            nn.Sequential(nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 3)),
            (4,),
            "depends on the other samples",
        ),
        (nn.Sequential(OverTheBatch(), nn.Linear(4, 3)), (4,), "depends on the other samples"),
        (nn.Sequential(OnlyForward(), nn.Linear(4, 3)), (4,), "depends on the other samples"),
        (
            nn.Sequential(nn.Dropout(0.5), OverTheBatch(), nn.Linear(4, 3)),
            (4,),
            "depends on the other samples",
        ),
    ],
    ids=str,
)
def test_refused(model: nn.Module, shape: tuple[int, ...], says: str):
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(UserError, match=says) as refused:
        trained(model, *shape)
    assert "\n" not in str(refused.value)
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def frozen_statistics() -> nn.Module:
    """Return a network whose batch normalisation stays in eval mode."""

    class Frozen(nn.BatchNorm1d):
        def train(self, mode: bool = True) -> Frozen:
            return super().train(False)

    return nn.Sequential(Frozen(4), nn.Linear(4, 3)).train()


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 8), nn.Dropout(0.9), nn.Linear(8, 3)), (4,)),
        (nn.Sequential(nn.Dropout1d(0.5), nn.Flatten(), nn.Linear(8, 3)), (4, 2)),
        (nn.Sequential(nn.LayerNorm(4), nn.AlphaDropout(0.5), nn.Linear(4, 3)), (4,)),
        (nn.Sequential(nn.GroupNorm(2, 4), nn.Linear(4, 3)), (4,)),
        (frozen_statistics(), (4,)),
        (parametrizations.weight_norm(nn.Linear(4, 3)), (4,)),
    ],
    ids=str,
)
def test_not_refused(model: nn.Module, shape: tuple[int, ...]):
    model.eval()
    data = samples((torch.randn(6, *shape), torch.arange(6) % 3))
    state = torch.get_rng_state()
    Trainer(PerSampleLoss(model), repeat(trainable(model), 2), data, ADAM)
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training


def test_one_training_sample():
    trained(nn.Linear(4, 3), 4, n=1)
    with pytest.raises(UserError, match="changes its buffers"):
        trained(pooled_to_one(), 1, 3, 3, n=1)


def test_leave_one_out_is_refused():
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3))
    data, params = samples((torch.randn(6, 4), torch.arange(6) % 3)), trainable(model)
    with pytest.raises(UserError, match="changes its buffers"):
        next(
            leave_one_out(
                PerSampleLoss(model),
                [params],
                retrain(lambda: params, (0,)),
                [0, 1],
                data,
                data,
                optimizer=ADAM,
                batch_size=3,
                n_epochs=1,
                chunk_size=2,
            )
        )


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
