"""What a GPU computes, run on a CPU: members as one batch, convolutions as products of patches.

It gives the scores that the CPU's own formulation gives, and it is as many operations for many
members as for few: on a GPU each operation is a launch of some microseconds, whatever its size.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from src.data.samples import Samples
from src.ensemble.evaluation import evaluate
from src.ensemble.members import Params, PerSampleLoss, repeat, trainable
from src.ensemble.optimizer import OptimizerSettings
from src.ensemble.procedure import Procedure
from src.ensemble.retraining import retrain
from src.ensemble.training import Trainer
from src.kernels import patches
from src.kernels.fuse import fuse
from src.kernels.library import without_kernels
from src.models.cnn import CNN2
from src.tda.ats import additional_step
from src.tda.gradient_similarity import gradient_similarity
from src.tda.hessian import Hessian
from src.tda.influence import influence
from src.tda.loo import NOTHING, leave_one_out
from src.tda.solvers.lissa import Lissa
from tests.tools import TOLERANCE, relative_error

# torch warns where it can only loop over what it should batch.
pytestmark = pytest.mark.filterwarnings("error::UserWarning")

ADAM = OptimizerSettings(learning_rate=1e-3, weight_decay=5e-3)


def images(n: int) -> Samples:
    inputs = torch.rand(n, 1, 28, 28, dtype=torch.float64)
    return Samples(
        inputs.to(memory_format=torch.channels_last), torch.arange(n) % 3, torch.arange(n)
    )


class Work:
    """A network, its checkpoint and samples."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = fuse(CNN2((1, 28, 28), 10).double())
        self.params = trainable(self.model)
        self.train, self.test = images(7), images(5)

    def start(self) -> Params:
        torch.manual_seed(1)
        return self.params

    def loo(self, loss: PerSampleLoss) -> Tensor:
        chunks = leave_one_out(
            Procedure(loss, self.train, ADAM, batch_size=4, n_epochs=2),
            [self.params],
            retrain(self.start, (1,)),
            [*range(7), NOTHING],
            self.test,
            chunk_size=5,
        )
        return torch.cat([*chunks], 1)

    def ats(self, loss: PerSampleLoss) -> Tensor:
        chunks = additional_step(
            loss, [self.params], self.train, self.test, optimizer=ADAM, chunk_size=5
        )
        return torch.cat([*chunks], 1)

    def influence(self, loss: PerSampleLoss) -> Tensor:
        solver = Lissa(batch_size=3)
        return influence(loss, self.params, self.train, self.test, solver, chunk_size=4)[0]

    def similarity(self, loss: PerSampleLoss) -> Tensor:
        found = gradient_similarity(loss, self.params, self.train, self.test, chunk_size=4)
        return torch.stack(found)


@pytest.fixture
def by_patches(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Return what has convolutions computed as on a GPU from then on."""

    with contextlib.ExitStack() as until_the_end:

        def start() -> None:
            monkeypatch.setattr(patches, "are_for", lambda _: True)
            until_the_end.enter_context(without_kernels())

        yield start


@pytest.mark.parametrize("method", [Work.loo, Work.ats, Work.influence, Work.similarity])
def test_scores(by_patches: Callable, method: Callable):
    work = Work()
    expected = method(work, PerSampleLoss(work.model, together=False))
    by_patches()
    found = method(work, PerSampleLoss(work.model, together=True))
    assert relative_error(found, expected) < TOLERANCE[torch.float64]


class Operations(TorchDispatchMode):
    """Counts the operations on tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.n = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
        self.n += 1
        return function(*args, **(kwargs or {}))


def train_on_one_batch(work: Work, loss: PerSampleLoss, n: int) -> None:
    trainer = Trainer(loss, repeat(work.params, n), work.train, ADAM, torch.ones(n, 7))
    trainer.step(torch.arange(4))


def evaluate_all(work: Work, loss: PerSampleLoss, n: int) -> None:
    evaluate(loss, repeat(work.params, n), work.test)


def multiply(work: Work, loss: PerSampleLoss, n: int) -> None:
    hessian = Hessian(loss, work.params, work.train, batch_size=4)
    size = sum(p.numel() for p in work.params.values())
    hessian.batch_product(0, torch.ones(n, size, dtype=torch.float64))


@pytest.mark.parametrize("run", [train_on_one_batch, evaluate_all, multiply])
def test_as_many_operations_for_many_as_for_few(by_patches: Callable, run: Callable):
    by_patches()
    work = Work()
    loss = PerSampleLoss(work.model, together=True)
    work.model.eval()
    run(work, loss, 2)  # measures once how large activations are
    counts = []
    for n in (2, 6):
        with Operations() as operations:
            run(work, loss, n)
        counts.append(operations.n)
    assert counts[0] == counts[1] > 10
