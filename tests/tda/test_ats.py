"""The additional training step against a copy of the model and one step of its own Adam."""

from __future__ import annotations

import pytest
import torch

from src.tda.ats import additional_step
from tests import reference
from tests.conftest import Case
from tests.tools import TOLERANCE, relative_error


def scores_of(case: Case, *, chunk_size: int, together: bool = False) -> torch.Tensor:
    """Return scores (C, n_train, n_test)."""
    loss = case.loss(together=together)
    loss.model.train()  # the step is taken in eval mode all the same
    chunks = list(
        additional_step(
            loss,
            case.checkpoints,
            case.train,
            case.test,
            optimizer=case.optimizer,
            chunk_size=chunk_size,
        )
    )
    assert max(chunk.shape[1] for chunk in chunks) <= chunk_size
    return torch.cat(chunks, 1)


def expected_scores(case: Case) -> torch.Tensor:
    """Return the naive scores (C, n_train, n_test)."""
    return torch.stack(
        [case.matrix(reference.ats(model, *case.data, case.pairs)) for model in case.models]
    )


@pytest.fixture(scope="module")
def expected(case: Case) -> torch.Tensor:
    """The naive scores, once per case."""
    return expected_scores(case)


def test_all_pairs(case: Case, expected: torch.Tensor, chunk_size: int, together: bool):
    found = scores_of(case, chunk_size=chunk_size, together=together)
    # A score is the difference of two losses, each a thousand times larger and itself rounded.
    largest_loss = max(
        case.loss()(p, case.test.images, case.test.labels).max() for p in case.checkpoints
    )
    rounding = 2 * torch.finfo(case.dtype).eps * largest_loss / expected.abs().max()
    assert relative_error(found, expected) < TOLERANCE[case.dtype] + rounding


def test_the_step_is_taken_without_dropout(together: bool):
    case = Case(7, 5, dropout=0.5)
    found = scores_of(case, chunk_size=3, together=together)
    assert relative_error(found, expected_scores(case)) < 1e-9


def test_checkpoints_are_left_as_they_were():
    case = Case(4, 3)
    before = [{name: p.clone() for name, p in params.items()} for params in case.checkpoints]
    scores_of(case, chunk_size=2)
    for params, old in zip(case.checkpoints, before, strict=True):
        assert all(torch.equal(params[name], old[name]) for name in old)
        assert not any(p.requires_grad for p in params.values())


def test_a_step_on_the_test_sample_itself_lowers_its_loss():
    case = Case(6, 6)
    chunks = additional_step(
        case.loss(),
        case.checkpoints,
        case.train,
        case.train,
        optimizer=case.optimizer,
        chunk_size=6,
    )
    assert (next(chunks).diagonal(dim1=1, dim2=2) < 0).all()
