"""Every method on networks of all kinds, against one plain model for each left-out sample."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from src.ensemble.draws import Draw
from src.ensemble.members import PerSampleLoss, State, state_of
from src.ensemble.optimizer import OptimizerSettings
from src.ensemble.procedure import Procedure
from src.ensemble.retraining import retrain
from src.ensemble.setup import train
from src.kernels.fuse import fuse
from src.tda.ats import additional_step
from src.tda.gradient_similarity import gradient_similarity
from src.tda.influence import influence
from src.tda.loo import NOTHING, leave_one_out
from src.tda.solvers import Solver
from src.tda.solvers.conjugate_gradient import ConjugateGradient
from src.tda.solvers.exact import Exact
from src.tda.solvers.lissa import Lissa
from tests import reference
from tests.tda.test_layers import DTYPES, N_CLASSES
from tests.tda.test_ways import NETS, WIDTH, data_of
from tests.tools import TOLERANCE, relative_error, samples

ADAM = OptimizerSettings(reference.LEARNING_RATE, reference.WEIGHT_DECAY)
SEED, N_EPOCHS, BATCH_SIZE = 7, 2, 5
N_TRAIN, N_TEST = 8, 3  # batches of 5 and 3
N_SOME = 4  # training samples of which pairs are compared where all are costly

Build = Callable[[], nn.Module]
MAPS = (1, 6, 6)


def linear(outputs: int = N_CLASSES, inputs: int = WIDTH) -> nn.Linear:
    """Return a linear layer."""
    return nn.Linear(inputs, outputs)


def convolutional(*between: nn.Module, **options: object) -> nn.Sequential:
    """Return a network with a convolution to four maps, and layers between it and the logits."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, **options), *between, nn.Flatten(), nn.LazyLinear(N_CLASSES)
    )


def with_frozen_layer() -> nn.Sequential:
    """Return a network with a frozen layer, drawn at random like the others."""
    return nn.Sequential(linear(WIDTH).requires_grad_(False), nn.Tanh(), linear())


# Builds a network, dimensions of a sample (None: ids).
NETWORKS: dict[str, tuple[Build, tuple[int, ...] | None]] = {
    "logistic regression": (linear, (WIDTH,)),
    "mlp": (lambda: nn.Sequential(linear(5), nn.Tanh(), linear(inputs=5)), (WIDTH,)),
    "strided convolution": (lambda: convolutional(nn.ReLU(), stride=2), MAPS),
    "padding same": (lambda: convolutional(nn.ReLU(), nn.MaxPool2d(3), padding="same"), MAPS),
    "group norm": (lambda: convolutional(nn.GroupNorm(2, 4), nn.ReLU(), stride=2), MAPS),
    "layer norm": (lambda: nn.Sequential(linear(5), nn.LayerNorm(5), linear(inputs=5)), (WIDTH,)),
    "embedding": (
        lambda: nn.Sequential(nn.Embedding(N_CLASSES, 4), nn.Flatten(), linear(inputs=20)),
        None,
    ),
    "dropout": (
        lambda: nn.Sequential(linear(), nn.Tanh(), nn.Dropout(0.4), linear(inputs=3)),
        (6,),
    ),
    "frozen layer": (with_frozen_layer, (WIDTH,)),
    **{
        name: NETS[name][:2]
        for name in (
            "own parameter",
            "called twice",
            "tied layers",
            "tied embedding",
            "added in place",
            "spectral norm",
            "lstm",
            "gru",
            "rnn",
            "attention",
        )
    },
    "transformer": (lambda: NETS["transformer"][0](dropout=0.0), (3, WIDTH)),
    "transformer with dropout": (lambda: NETS["transformer"][0](dropout=0.4), (3, WIDTH)),
}
MIXING: dict[str, tuple[Build, tuple[int, ...] | None]] = {
    "batch norm": (lambda: convolutional(nn.BatchNorm2d(4), nn.ReLU(), stride=2), MAPS),
    "batch norm behind kernels": (
        lambda: convolutional(nn.GELU(), nn.MaxPool2d(2), nn.BatchNorm2d(4)),
        MAPS,
    ),
    "batch norm and dropout": (
        lambda: nn.Sequential(
            nn.Dropout(0.2), linear(5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.4), linear(3, 5)
        ),
        (WIDTH,),
    ),
    "batch norm with cumulative averages": (
        lambda: nn.Sequential(linear(5), nn.BatchNorm1d(5, momentum=None), linear(inputs=5)),
        (WIDTH,),
    ),
    "running statistics of samples": (
        lambda: nn.Sequential(
            nn.InstanceNorm1d(3, track_running_stats=True), nn.Flatten(), linear(inputs=18)
        ),
        (3, WIDTH),
    ),
}


class Work:
    """A network's data, and its plain training."""

    def __init__(self, build: Build, shape: tuple[int, ...] | None, dtype: torch.dtype) -> None:
        torch.manual_seed(1)
        self.train = data_of(shape, N_TRAIN, dtype)
        self.test = data_of(shape, N_TEST, dtype)

        def filled() -> nn.Module:
            model = build().to(dtype)
            model(self.train[0][:2])  # layers that find their number of inputs
            return model

        self.build = (
            filled if any(_is_lazy(m) for m in build().modules()) else (lambda: build().to(dtype))
        )
        self.plain = reference.train(self.build, self.train[:2], SEED, N_EPOCHS, BATCH_SIZE)
        self.checkpoints = [state_of(epoch.model) for epoch in self.plain]

    def start(self) -> State:
        """Return the initial state, the generator behind it."""
        return Draw(SEED, SEED).start(self.build)

    def loss(self, *, together: bool | None = None) -> PerSampleLoss:
        """Return the loss of a network whose own parameters and buffers are others."""
        return PerSampleLoss(fuse(self.build()), together=together)

    def procedure(self, loss: PerSampleLoss | None = None) -> Procedure:
        """Return the training procedure."""
        return Procedure(loss or self.loss(), samples(self.train), ADAM, BATCH_SIZE, N_EPOCHS)

    def leave_one_out(self, loss: PerSampleLoss, left_out: list[int], chunk_size: int) -> Tensor:
        """Return scores (C, M, n_test)."""
        chunks = leave_one_out(
            self.procedure(loss),
            self.checkpoints,
            retrain(self.start, (0, 1)),
            left_out,
            samples(self.test),
            chunk_size=chunk_size,
        )
        return torch.cat([*chunks], 1)

    def expected(self, left_out: list[int], *, taken_out: bool) -> Tensor:
        """Return the naive scores (C, M, n_test)."""
        return reference.loo(
            self.build,
            self.train,
            self.test,
            [(j, z) for j in left_out for z in range(N_TEST)],
            SEED,
            N_EPOCHS,
            [0, 1],
            BATCH_SIZE,
            taken_out=taken_out,
        ).unflatten(1, (len(left_out), N_TEST))


def _is_lazy(module: nn.Module) -> bool:
    return isinstance(module, nn.LazyLinear)


def check_leave_one_out(
    work: Work, dtype: torch.dtype, *, taken_out: bool, together: bool | None, chunk_size: int
) -> None:
    """Hold scores against naive ones, and those of nothing against zero."""
    left_out = [0, 3, N_TRAIN - 1]
    scores = work.leave_one_out(work.loss(together=together), [*left_out, NOTHING], chunk_size)
    expected = work.expected(left_out, taken_out=taken_out)
    assert relative_error(scores[:, :-1], expected) < TOLERANCE[dtype]
    assert scores[:, -1].abs().max() < TOLERANCE[dtype] * expected.abs().max()


@DTYPES
@pytest.mark.parametrize("name", NETWORKS | MIXING)
def test_training(name: str, dtype: torch.dtype):
    """Parameters and buffers, counters among them, as the plain idiom has them."""
    work = Work(*(NETWORKS | MIXING)[name], dtype)
    states = train(work.procedure(), work.start())
    for state, plain in zip(states, work.checkpoints, strict=True):
        assert list(state.params) == list(plain)
        for key, value in plain.items():
            assert state.params[key].dtype == value.dtype
            found, expected = (determined(key, tensor) for tensor in (state.params[key], value))
            assert relative_error(found, expected) < TOLERANCE[dtype]


def determined(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Return a parameter without the bias of attention's keys.

    Its gradient is 0 but for rounding, of which Adam takes steps: they differ between processors.
    """
    if not name.endswith("in_proj_bias"):
        return tensor
    queries, _, values = tensor.chunk(3)
    return torch.cat([queries, values])


@DTYPES
@pytest.mark.parametrize("name", NETWORKS)
def test_leave_one_out_by_weights(name: str, dtype: torch.dtype):
    work = Work(*NETWORKS[name], dtype)
    check_leave_one_out(work, dtype, taken_out=False, together=None, chunk_size=3)


@DTYPES
@pytest.mark.parametrize("together", [None, True, False])
@pytest.mark.parametrize("name", MIXING)
def test_leave_one_out_by_taking_out(name: str, together: bool | None, dtype: torch.dtype):
    work = Work(*MIXING[name], dtype)
    if name == "batch norm with cumulative averages" and together:
        together = None  # it looks at a counter's value, which a batch over members cannot
    check_leave_one_out(work, dtype, taken_out=True, together=together, chunk_size=3)


@pytest.mark.parametrize("chunk_size", [1, 100])
def test_chunks_in_which_no_or_every_member_has_the_full_batch(chunk_size: int):
    """Of one member the generator goes on as if the batch were full."""
    work = Work(*MIXING["batch norm and dropout"], torch.float64)
    check_leave_one_out(work, torch.float64, taken_out=True, together=None, chunk_size=chunk_size)


SOLVERS: dict[str, tuple[Solver, Callable[..., Tensor]]] = {
    "lissa": (
        Lissa(scale=100.0),
        lambda *data: reference.influence_lissa(*data, scale=100.0),
    ),
    "cg": (
        ConjugateGradient(damp=5.0, tolerance=1e-12),
        lambda *data: reference.influence_cg(*data, damp=5.0),
    ),
    "exact": (Exact(damp=1.0), lambda *data: reference.influence_exact(*data, damp=1.0)),
}


# What is one of its kind for training alone: not a second time here.
@pytest.mark.parametrize(
    "name", [n for n in NETWORKS | MIXING if n not in ("gru", "rnn", "transformer")]
)
def test_other_methods(name: str):
    """GD, GC, IF by all solvers, and ATS, at a state with running statistics of its own."""
    work = Work(*(NETWORKS | MIXING)[name], torch.float64)
    loss, state, model = work.loss(), work.checkpoints[-1], work.plain[-1].model
    some = work.train[0][:N_SOME], work.train[1][:N_SOME]
    train_samples, test_samples = samples(some), samples(work.test)
    pairs = [(j, z) for j in range(N_SOME) for z in range(N_TEST)]

    def check(found: Tensor, naive: Callable[..., Tensor]) -> None:
        with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
            expected = naive(model, some, work.test, pairs).unflatten(0, (N_SOME, N_TEST))
        assert relative_error(found, expected) < 1e-9

    dot, cosine = gradient_similarity(loss, state, train_samples, test_samples, chunk_size=3)
    check(dot, reference.grad_dot)
    check(cosine, reference.grad_cos)
    steps = additional_step(
        loss, [state], train_samples, test_samples, optimizer=ADAM, chunk_size=3
    )
    check(torch.cat([*steps], 1)[0], reference.ats)
    for solver, naive in SOLVERS.values():
        scores, _ = influence(loss, state, train_samples, test_samples, solver, chunk_size=3)
        check(scores, naive)


@pytest.mark.slow
def test_resnet18():
    """Torchvision's, on 12 images of 32x32: training, LOO of two samples, GD, GC and ATS."""
    from torchvision.models import resnet18

    def build() -> nn.Module:
        return resnet18(num_classes=3)

    images, labels = torch.randn(12, 3, 32, 32), torch.arange(12) % 3
    data, test = samples((images, labels)), samples((images[:2] + 0.1, labels[:2]))
    loss = PerSampleLoss(fuse(build()))
    procedure = Procedure(loss, data, ADAM, batch_size=6, n_epochs=2)
    states = [state.params for state in train(procedure, Draw(1, 1).start(build))]
    plain = reference.train(build, (images, labels), 1, 2, 6)[-1].model.state_dict()
    # Adam divides rounding by itself where gradients cancel, so in the norm (see test_checkpoints).
    for name in ("bn1.running_mean", "layer4.1.bn2.running_var", "fc.weight"):
        assert (states[-1][name] - plain[name]).norm() < 1e-3 * plain[name].norm()
    assert states[-1]["bn1.num_batches_tracked"] == 4
    chunks = leave_one_out(
        procedure,
        states[-1:],
        retrain(lambda: Draw(1, 1).start(build), (1,)),
        [0, 11, NOTHING],
        test,
        chunk_size=3,
    )
    (scores,) = torch.cat([*chunks], 1)
    assert scores[-1].abs().max() <= 1e-4 * scores[:-1].abs().max()
    model = build()
    model.load_state_dict(states[-1])
    model.double()  # gradients of confident samples lose their digits in the naive ones
    pairs = [(j, z) for j in range(2) for z in range(2)]
    some = samples((images[:2], labels[:2]))
    naive = (model, (images.double(), labels), (test.images.double(), test.labels), pairs)
    dot, cosine = gradient_similarity(loss, states[-1], some, test, chunk_size=3)
    assert relative_error(dot.flatten(), reference.grad_dot(*naive)) < 1e-4
    assert relative_error(cosine.flatten(), reference.grad_cos(*naive)) < 1e-4
    steps = additional_step(loss, states[-1:], some, test, optimizer=ADAM, chunk_size=2)
    assert relative_error(next(steps).flatten(), reference.ats(*naive)) < 1e-3
