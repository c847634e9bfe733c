"""Models on subsets against one plain training for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from src.data.samples import Samples
from src.ensemble.draws import Draw
from src.ensemble.members import PerSampleLoss, State
from src.ensemble.procedure import Procedure
from src.ensemble.retraining import Retraining
from src.errors import DivergedError, UserError
from src.kernels.fuse import fuse
from src.subsets.training import subset_losses
from tests import reference
from tests.conftest import Case
from tests.tda.test_any_network import BATCH_SIZE, MIXING, N_EPOCHS, SEED, Work
from tests.tools import TOLERANCE, relative_error, samples


def masks_of(n_train: int) -> Tensor:
    """Return random subsets, then the empty one, the whole one and one of a single sample."""
    drawn = torch.rand(4, n_train, generator=torch.Generator().manual_seed(3)) < 0.5
    single = torch.arange(n_train) == n_train // 2
    return torch.stack([*drawn, torch.zeros_like(single), torch.ones_like(single), single])


def inside(mask: Tensor) -> list[int]:
    return mask.nonzero().flatten().tolist()


def found_losses(
    case: Case, masks: Tensor, train: Samples, chunk_size: int, **loss: bool
) -> Tensor:
    draw = Draw(case.seed, case.seed)
    chunks = subset_losses(
        replace(case.procedure(case.loss(**loss)), samples=train),
        Retraining(lambda: draw.start(case.build), case.kept_epochs),
        masks,
        case.test,
        chunk_size=chunk_size,
    )
    return torch.cat([*chunks], 1)


def expected_losses(case: Case, masks: Tensor) -> Tensor:
    given = case.seed, case.n_epochs, list(case.kept_epochs), case.batch_size
    each = [reference.subset_losses(case.build, *case.data, inside(m), *given) for m in masks]
    return torch.stack(each, 1)


@pytest.fixture(scope="module")
def expected(case: Case) -> Tensor:
    """The naive losses, once per case."""
    return expected_losses(case, masks_of(case.n_train))


def test_against_plain_trainings(case: Case, expected: Tensor, chunk_size: int, together: bool):
    masks = masks_of(case.n_train)
    found = found_losses(case, masks, case.train, chunk_size, together=together)
    assert relative_error(found, expected) < TOLERANCE[case.dtype]


def test_with_dropout():
    case = Case(7, 5, dropout=0.3)
    masks = masks_of(7)
    found = found_losses(case, masks, case.train, 3)
    assert relative_error(found, expected_losses(case, masks)) < 1e-9


def test_a_model_that_diverges_is_named():
    case = Case(5, 3)
    inputs, labels = case.data[0]
    inputs[2] = torch.nan
    with pytest.raises(DivergedError, match="the first is trained on a subset of 4 samples"):
        found_losses(case, torch.arange(5)[None] != 0, samples((inputs, labels)), 2)


def found_of(work: Work, loss: PerSampleLoss, start: Callable[[], State], masks: Tensor) -> Tensor:
    chunks = subset_losses(
        work.procedure(loss),
        Retraining(start, (0, 1)),
        masks,
        samples(work.test),
        chunk_size=3,
    )
    return torch.cat([*chunks], 1)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("name", ["batch norm", "running statistics of samples"])
def test_where_samples_see_each_other(name: str, together: bool):
    """What is out leaves the batch, of which nothing may be left."""
    work = Work(*MIXING[name], torch.float64)
    masks = masks_of(len(work.train[1]))
    found = found_of(work, work.loss(together=together), work.start, masks)
    given = SEED, N_EPOCHS, [0, 1], BATCH_SIZE
    expected = [
        reference.subset_losses(
            work.build, work.train, work.test, inside(m), *given, taken_out=True
        )
        for m in masks
    ]
    assert relative_error(found, torch.stack(expected, 1)) < 1e-9


def test_too_little_of_a_batch_for_the_network():
    """Batch normalisation has no statistics of one number."""
    case = Case(7, 3)

    def build() -> nn.Module:
        layers = nn.Flatten(), nn.Linear(64, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)
        return nn.Sequential(*layers).double()

    chunks = subset_losses(
        Procedure(PerSampleLoss(fuse(build())), case.train, case.optimizer, 7, n_epochs=1),
        Retraining(lambda: Draw(0, 0).start(build), (0,)),
        torch.arange(7)[None] == 2,
        case.test,
        chunk_size=1,
    )
    with pytest.raises(UserError, match="a random subset leaves too little of a batch of 7"):
        next(chunks)
