"""Every fast path on CUDA against the naive reference, which stays on the CPU.

The same is computed on the device that the environment variable TDA_TEST_DEVICE names: on `cpu` it
shows that these tests are right.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property

import pytest
import torch
from torch import Tensor, nn

from src.data.samples import Samples
from src.ensemble.draws import Draw
from src.ensemble.evaluation import evaluate, predict
from src.ensemble.members import Params, PerSampleLoss, stack, trainable
from src.ensemble.optimizer import OptimizerSettings
from src.ensemble.procedure import Procedure
from src.ensemble.retraining import retrain
from src.ensemble.setup import train
from src.kernels.fuse import fuse
from src.models.cnn import CNN2, CNN3
from src.tda.ats import additional_step
from src.tda.gradient_similarity import gradient_similarity
from src.tda.influence import influence
from src.tda.loo import NOTHING, leave_one_out
from src.tda.solvers.conjugate_gradient import ConjugateGradient
from src.tda.solvers.exact import Exact
from src.tda.solvers.lissa import Lissa
from tests import reference
from tests.models.test_vit import PlainPeft, random_vit
from tests.tools import TOLERANCE, relative_error

pytestmark = pytest.mark.gpu

SEED, BATCH_SIZE, N_EPOCHS, KEPT = 446, 3, 3, (1, 2)
N_TRAIN, N_TEST = 7, 5
N_CLASSES = 10
ADAM = OptimizerSettings(reference.LEARNING_RATE, reference.WEIGHT_DECAY)


class Mlp(nn.Module):
    """Linear layers and a LayerNorm; small enough for a dense Hessian."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, N_CLASSES)
        )

    def forward(self, rows: Tensor) -> Tensor:
        """Return logits (B, 10) of rows (B, 6)."""
        return self.layers(rows)


MODELS = {
    "cnn2": (lambda: CNN2((1, 12, 12), N_CLASSES, width=16), (1, 12, 12)),
    "cnn2 colours": (lambda: CNN2((3, 16, 16), N_CLASSES, width=16), (3, 16, 16)),
    "cnn3": (lambda: CNN3((1, 12, 12), N_CLASSES), (1, 12, 12)),
    "vit": (lambda: PlainPeft(random_vit(8), dropout=0.0), (3, 8, 8)),
    "mlp": (Mlp, (6,)),
}


@pytest.fixture(scope="module")
def device() -> torch.device:
    """The device that is tested."""
    name = os.environ.get("TDA_TEST_DEVICE", "cuda")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device; TDA_TEST_DEVICE=cpu runs this on the CPU")
    torch.backends.cudnn.allow_tf32 = False
    return torch.device(name)


@dataclass(frozen=True)
class Work:
    """What the naive and the fast versions are both given, of one network."""

    model: str
    dtype: torch.dtype
    device: torch.device

    def build(self) -> nn.Module:
        """Return a freshly drawn network on the CPU."""
        return MODELS[self.model][0]().to(self.dtype)

    @cached_property
    def data(self) -> list[reference.Data]:
        """Training and test data."""
        generator = torch.Generator().manual_seed(1)
        return [
            (
                torch.rand(n, *MODELS[self.model][1], generator=generator).to(self.dtype),
                torch.arange(n) % 3,
            )
            for n in (N_TRAIN, N_TEST)
        ]

    @cached_property
    def samples(self) -> list[Samples]:
        """The same on the device."""
        return [Samples(x, y, torch.arange(len(y))).to(self.device) for x, y in self.data]

    @cached_property
    def loss(self) -> PerSampleLoss:
        """The per-sample loss on the device, of the network after the pass."""
        return PerSampleLoss(fuse(self.build().to(self.device)))

    @property
    def procedure(self) -> Procedure:
        """The training procedure on the device."""
        return Procedure(self.loss, self.samples[0], ADAM, BATCH_SIZE, N_EPOCHS)

    def start(self) -> Params:
        """Return the initial parameters of the draw, on the device."""
        return self.on_device(Draw(SEED, SEED).start(self.build))

    def on_device(self, params: Params) -> Params:
        """Return parameters on the device."""
        return {name: p.to(self.device) for name, p in params.items()}

    @cached_property
    def models(self) -> list[nn.Module]:
        """The networks at the kept epochs, trained by the plain idiom."""
        epochs = reference.train(self.build, self.data[0], SEED, N_EPOCHS, BATCH_SIZE)
        return [epochs[e].model for e in KEPT]

    @cached_property
    def checkpoints(self) -> list[Params]:
        """Their parameters on the device."""
        return [self.on_device(trainable(model)) for model in self.models]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """All pairs (j, z), row by row."""
        return [(j, z) for j in range(N_TRAIN) for z in range(N_TEST)]

    def check(self, found: Tensor, expected: Tensor, scale: float | None = None) -> None:
        """Assert that scores lie on the device and are the reference's, (..., n_pairs)."""
        assert found.device.type == self.device.type
        expected = expected.reshape(found.shape)
        scale = expected.abs().max().item() if scale is None else scale
        assert (found.cpu().double() - expected).abs().max() < TOLERANCE[self.dtype] * scale

    @cached_property
    def losses(self) -> Tensor:
        """Losses of the test samples at the kept epochs, (C, n_test)."""
        return torch.stack(
            [
                torch.stack(
                    [reference.sample_loss(m, self.data[1], z).detach() for z in range(N_TEST)]
                )
                for m in self.models
            ]
        )


@pytest.fixture(scope="module", params=TOLERANCE, ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """The numbers."""
    return request.param


@pytest.fixture(scope="module", params=MODELS)
def work(request: pytest.FixtureRequest, dtype: torch.dtype, device: torch.device) -> Work:
    """A network, and all that is computed of it."""
    return Work(request.param, dtype, device)


def test_training(work: Work):
    states = [*train(work.procedure, work.start())]
    for epoch, model in zip(KEPT, work.models, strict=True):
        for name, expected in trainable(model).items():
            found = states[epoch].params[name]
            assert found.device.type == work.device.type
            assert relative_error(found.cpu(), expected) < 10 * TOLERANCE[work.dtype]


def test_evaluation(work: Work):
    found = evaluate(work.loss, stack(work.checkpoints), work.samples[1])
    work.check(found, work.losses)
    for model, params in zip(work.models, work.checkpoints, strict=True):
        expected = model.eval()(work.data[1][0]).argmax(1)
        assert torch.equal(predict(work.loss, params, work.samples[1]).cpu(), expected)


def test_leave_one_out(work: Work):
    chunks = leave_one_out(
        work.procedure,
        work.checkpoints,
        retrain(work.start, KEPT),
        [*range(N_TRAIN), NOTHING],
        work.samples[1],
        chunk_size=5,
    )
    found = torch.cat([*chunks], 1)
    expected = reference.loo(
        work.build, *work.data, work.pairs, SEED, N_EPOCHS, [*KEPT], BATCH_SIZE
    )
    # Differences of losses carry the losses' rounding, which training amplifies.
    scale = 10 * work.losses.abs().max().item()
    work.check(found[:, :-1], expected, scale)
    assert expected.abs().max() > 10 * TOLERANCE[work.dtype] * scale
    assert found[:, -1].abs().max() < TOLERANCE[work.dtype] * scale


def test_additional_step(work: Work):
    chunks = additional_step(
        work.loss, work.checkpoints, *work.samples, optimizer=ADAM, chunk_size=4
    )
    expected = torch.stack([reference.ats(m, *work.data, work.pairs) for m in work.models])
    work.check(torch.cat([*chunks], 1), expected, work.losses.abs().max().item())


def test_gradient_similarity(work: Work):
    dot, cosine = gradient_similarity(work.loss, work.checkpoints[0], *work.samples, chunk_size=4)
    work.check(dot, reference.grad_dot(work.models[0], *work.data, work.pairs))
    work.check(cosine, reference.grad_cos(work.models[0], *work.data, work.pairs))


def test_lissa(work: Work):
    found, _ = influence(
        work.loss, work.checkpoints[0], *work.samples, Lissa(scale=1e3), chunk_size=4
    )
    expected = reference.influence_lissa(work.models[0], *work.data, work.pairs, scale=1e3)
    work.check(found, expected)


@pytest.mark.parametrize("model", ["mlp"])
@pytest.mark.parametrize(
    ("solver", "of_reference"),
    [
        (ConjugateGradient(damp=5, tolerance=1e-12, max_iterations=500), reference.influence_cg),
        (Exact(damp=5), reference.influence_exact),
    ],
    ids=["cg", "exact"],
)
def test_solvers(model: str, device: torch.device, dtype: torch.dtype, solver, of_reference):
    work = Work(model, dtype, device)
    found, _ = influence(work.loss, work.checkpoints[0], *work.samples, solver, chunk_size=4)
    exact = Work(model, torch.float64, device)
    exact.models[0].load_state_dict(work.models[0].state_dict())
    work.check(found, of_reference(exact.models[0], *exact.data, work.pairs, damp=5))
