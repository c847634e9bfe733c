"""Leave-one-out against one retraining per left-out sample."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from src.ensemble.draws import Draw
from src.ensemble.retraining import Retraining, retrain
from src.errors import DivergedError
from src.tda.loo import (
    NOTHING,
    continue_training,
    leave_one_out,
    left_out_weights,
)
from tests import reference
from tests.conftest import Case
from tests.tools import TOLERANCE, relative_error, samples


def scores_of(
    case: Case,
    retrainings: list[Retraining],
    left_out: list[int],
    *,
    chunk_size: int,
    together: bool = False,
) -> Tensor:
    """Return scores (C, len(left_out), n_test)."""
    chunks = list(
        leave_one_out(
            case.procedure(case.loss(together=together)),
            case.checkpoints,
            retrainings,
            left_out,
            case.test,
            chunk_size=chunk_size,
        )
    )
    assert max(chunk.shape[1] for chunk in chunks) <= chunk_size
    return torch.cat(chunks, 1)


def retrained(case: Case) -> list[Retraining]:
    """Return the retraining from the case's initialisation."""
    draw = Draw(case.seed, case.seed)
    return retrain(lambda: draw.start(case.build), case.kept_epochs)


def expected_scores(case: Case) -> Tensor:
    """Return the naive scores (C, n_train, n_test) of the retraining protocol."""
    return case.matrix(
        reference.loo(
            case.build,
            *case.data,
            case.pairs,
            case.seed,
            case.n_epochs,
            list(case.kept_epochs),
            case.batch_size,
        )
    )


@pytest.fixture(scope="module")
def expected(case: Case) -> Tensor:
    """The naive scores, once per case."""
    return expected_scores(case)


def test_retraining(case: Case, expected: Tensor, chunk_size: int, together: bool):
    everyone = list(range(case.n_train))
    found = scores_of(case, retrained(case), everyone, chunk_size=chunk_size, together=together)
    assert relative_error(found, expected) < TOLERANCE[case.dtype]


@pytest.fixture(scope="module")
def expected_continued(case: Case) -> Tensor:
    """The naive scores of the published protocol, once per case."""
    return case.matrix(
        reference.loo_continued(
            case.models, *case.data, case.pairs, 724, case.n_epochs, case.batch_size
        )
    )


def test_continued_training(
    case: Case, expected_continued: Tensor, chunk_size: int, together: bool
):
    retrainings = continue_training(case.checkpoints, 724, case.n_epochs)
    everyone = list(range(case.n_train))
    found = scores_of(case, retrainings, everyone, chunk_size=chunk_size, together=together)
    assert relative_error(found, expected_continued) < TOLERANCE[case.dtype]


def test_chosen_samples_come_in_the_given_order(case: Case, expected: Tensor):
    chosen = [case.n_train - 1, 0]
    found = scores_of(case, retrained(case), chosen, chunk_size=2)
    assert relative_error(found, expected[:, chosen]) < TOLERANCE[case.dtype]


def test_the_floor_is_rounding(case: Case, expected: Tensor, together: bool):
    left_out = [0, NOTHING]
    found = scores_of(case, retrained(case), left_out, chunk_size=2, together=together)
    assert found[:, 1].abs().max() < TOLERANCE[case.dtype] * expected.abs().max()
    assert found[:, 0].abs().max() > 0


def test_checkpoints_are_compared_epoch_by_epoch():
    """Swapped checkpoints give other scores: an epoch is compared with itself only."""
    case = Case(4, 3)
    swapped = scores_of(
        case, [replace(retrained(case)[0], compared_epochs=(0, 2))], [NOTHING], chunk_size=1
    )
    assert swapped.abs().max() > 1e-4


def test_weights():
    assert left_out_weights([1, NOTHING], 3).tolist() == [[1, 0, 1], [1, 1, 1]]


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("chunk_size", [1, 3, 100])
def test_members_with_dropout_share_the_masks_of_a_run_alone(together: bool, chunk_size: int):
    case = Case(7, 5, dropout=0.3)
    everyone = list(range(case.n_train))
    found = scores_of(case, retrained(case), everyone, chunk_size=chunk_size, together=together)
    assert relative_error(found, expected_scores(case)) < 1e-9


def test_a_member_that_diverges_is_named():
    case = Case(5, 3)
    assert case.checkpoints  # trained before the image is spoilt
    inputs, labels = case.data[0]
    inputs[2] = torch.nan
    found = leave_one_out(
        replace(case.procedure(), samples=samples((inputs, labels))),
        case.checkpoints,
        retrained(case),
        [3, NOTHING],
        case.test,
        chunk_size=2,
    )
    says = (
        "2 of 2 members trained together diverged, the first is the one without training sample 3"
    )
    with pytest.raises(DivergedError, match=says):
        next(found)
