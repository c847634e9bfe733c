"""Grad-dot and grad-cos against one backward pass for each sample of each pair."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from src.ensemble.members import PerSampleLoss
from src.tda.gradient_similarity import gradient_similarity
from tests import reference
from tests.conftest import Case
from tests.tools import TOLERANCE, relative_error, samples


def test_all_pairs(case: Case, chunk_size: int):
    for model, params in zip(case.models, case.checkpoints, strict=True):
        dot, cosine = gradient_similarity(
            case.loss(), params, case.train, case.test, chunk_size=chunk_size
        )
        expected_dot = case.matrix(reference.grad_dot(model, *case.data, case.pairs))
        expected_cosine = case.matrix(reference.grad_cos(model, *case.data, case.pairs))
        assert relative_error(dot, expected_dot) < TOLERANCE[case.dtype]
        assert relative_error(cosine, expected_cosine) < TOLERANCE[case.dtype]


def test_a_sample_is_like_itself():
    case = Case(6, 6)
    dot, cosine = gradient_similarity(
        case.loss(), case.checkpoints[0], case.train, case.train, chunk_size=4
    )
    assert (dot.diagonal() > 0).all()
    assert cosine.diagonal().tolist() == pytest.approx([1] * 6)
    assert torch.allclose(cosine, cosine.T)


def test_the_cosine_with_a_gradient_that_is_zero_is_zero():
    case = Case(3, 2)
    # A loss of exactly 0: the logits are too far apart for the others' probabilities to be any.
    params = {name: torch.zeros_like(p) for name, p in case.checkpoints[0].items()}
    dot, cosine = gradient_similarity(case.loss(), params, case.train, case.test, chunk_size=3)
    assert (dot == 0).all()
    assert (cosine == 0).all()


def test_cosines_of_confident_samples_keep_their_digits():
    """Of logits twenty apart p − 1 has no digit in float32, and all cosines would be 0."""
    params = {"weight": torch.eye(3), "bias": torch.zeros(3)}
    images = torch.tensor([[20.0, 0, 1], [20, 2, 0], [2, 22, 0], [0, 0, 25]])

    def cosines(dtype: torch.dtype) -> torch.Tensor:
        data = samples((images.to(dtype), torch.tensor([0, 0, 1, 2])))
        loss = PerSampleLoss(nn.Linear(3, 3).to(dtype))
        converted = {name: p.to(dtype) for name, p in params.items()}
        return gradient_similarity(loss, converted, data, data, chunk_size=3)[1]

    assert relative_error(cosines(torch.float32), cosines(torch.float64)) < 1e-4


def test_a_gradient_that_is_not_finite_has_no_cosine():
    """Where a norm overflows the quotient is 0, and where it is NaN it is not above 0."""
    params = {"weight": torch.eye(2), "bias": torch.zeros(2)}
    loss = PerSampleLoss(nn.Linear(2, 2), lambda outputs, _: outputs.sum(1))
    for value in (1e30, torch.nan):
        train = samples((torch.tensor([[value, 0.0]]), torch.tensor([0])))
        test = samples((torch.tensor([[0.0, 1.0]]), torch.tensor([0])))
        _, cosine = gradient_similarity(loss, params, train, test, chunk_size=1)
        assert cosine.isnan().all()
