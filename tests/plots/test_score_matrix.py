"""The matrix of all mean scores: its order, and where its colours end."""

from __future__ import annotations

import numpy as np
import pytest

from src.plots.score_matrix import ScoreMatrix


def test_rows_and_columns_are_ordered_by_class():
    scores = np.arange(6.0).reshape(3, 2)
    matrix = ScoreMatrix.of(scores, np.array([1, 0, 1]), np.array([2, 0]))
    assert matrix.scores.tolist() == [[3, 2], [1, 0], [5, 4]]
    assert matrix.train_labels.tolist() == [0, 1, 1]
    assert matrix.test_labels.tolist() == [0, 2]


@pytest.mark.parametrize("scale", [1e-12, 0.9996, 1.0, 237.0, 3e9])
def test_the_limit_is_what_is_said_of_it(scale):
    """Of cosines of at most 1, none lies beyond ±1."""
    scores = scale * np.linspace(-1, 1, 20_000).reshape(100, 200)
    matrix = ScoreMatrix.of(scores, np.zeros(100), np.zeros(200))
    assert float(f"{matrix.limit:.2g}") == pytest.approx(matrix.limit, rel=1e-12)
    assert matrix.limit <= np.quantile(np.abs(scores), 0.99)
    assert matrix.share_beyond == (np.abs(scores) > matrix.limit).mean()


def test_scores_that_are_all_zero():
    matrix = ScoreMatrix.of(np.zeros((2, 3)), np.zeros(2), np.zeros(3))
    assert (matrix.limit, matrix.share_beyond) == (1.0, 0.0)
