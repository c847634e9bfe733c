"""Ranks of many rows at once, and their products, against scipy's coefficient."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from src.analysis.mean_ranks import target_ranks, unit_ranks


@pytest.mark.parametrize("n", [2, 3, 8, 9, 100])
@pytest.mark.parametrize("ties", [False, True])
def test_products_are_spearmans_correlations(n, ties):
    rng = np.random.default_rng(n)
    a, b = rng.integers(0, 4, (2, 3, 5, n)) if ties else rng.normal(size=(2, 3, 5, n))
    found = (unit_ranks(a) * unit_ranks(b)).sum(axis=-1)
    for at in np.ndindex(a.shape[:-1]):
        if len(set(a[at])) > 1 and len(set(b[at])) > 1:
            assert found[at] == pytest.approx(spearmanr(a[at], b[at]).statistic, abs=1e-12)
        else:
            assert found[at] == 0


def test_what_is_equal_but_for_rounding_is_equal():
    tenths = np.array([0.1 + 0.2, 0.3, 0.5])
    assert tenths[0] != tenths[1]
    ranked = unit_ranks(tenths)
    assert ranked[0] == ranked[1] < ranked[2]
    assert unit_ranks(1e-30 * tenths) == pytest.approx(ranked)
    # A difference of single precision is a difference.
    close = np.array([1, 1 + np.finfo(np.float32).eps, 1 - np.finfo(np.float32).eps])
    assert np.argsort(unit_ranks(close)).tolist() == [2, 0, 1]


def test_of_what_is_constant_predictions_count_as_nothing_and_targets_not_at_all():
    values = np.stack([np.full(4, 0.1), np.zeros(4), np.arange(4)])
    assert (unit_ranks(values)[:2] == 0).all()
    assert np.isnan(target_ranks(values)[:2]).all()
    assert np.isfinite(target_ranks(values)[2]).all()
    assert np.isnan(target_ranks(np.ones((1, 1)))).all()
