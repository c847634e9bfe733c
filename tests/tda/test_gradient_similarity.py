"""Grad-dot and grad-cos against one backward pass for each sample of each pair."""

from __future__ import annotations

import pytest
import torch

from src.tda.gradient_similarity import gradient_similarity
from tests import reference
from tests.conftest import Case
from tests.tools import TOLERANCE, relative_error


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
