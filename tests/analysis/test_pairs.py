"""Which pairs and which train samples are chosen, on scores with a known order."""

import numpy as np
import pytest
import scipy.stats

from src.analysis.pairs import distinct_pairs, influences


def test_distinct_pairs_share_no_sample():
    values = np.array([[9.0, 8, 7], [6, 5, 4]])
    order = np.argsort(-values, axis=None)
    assert distinct_pairs(order, values.shape, 5) == [(0, 0), (1, 1)]
    assert distinct_pairs(order, values.shape, 1) == [(0, 0)]
    assert distinct_pairs(order[::-1], values.shape, 5) == [(1, 2), (0, 1)]


@pytest.mark.parametrize(("method", "sign"), [("loo", 1), ("ats", -1), ("if", -1), ("gc", 1)])
def test_proponents_help_and_opponents_harm(method, sign):
    noise = np.array([[-1.0], [0.5], [0.5]])
    means = np.array([3.0, -2, 0.5, 9, -7, 0])
    found = influences(sign * (means + noise), method, 2, 0.05)
    # 3 helps most, then 0; of the opponents 1 is the weaker; 5 has no direction.
    assert found.train.tolist() == [3, 0, 1, 4]
    assert found.n_proponents == 2
    assert found.mean == pytest.approx([9, 3, -2, -7])
    expected = scipy.stats.ttest_1samp(means[[3, 0, 1, 4]] + noise, 0)
    assert found.pvalue == pytest.approx(expected.pvalue)
    low, high = expected.confidence_interval(0.95)
    assert found.mean - found.reach == pytest.approx(low)
    assert found.mean + found.reach == pytest.approx(high)


def test_influences_of_one_kind_only():
    samples = np.array([[1.0, 2, 0], [1.5, 2.5, 0]])
    found = influences(samples, "gd", 5, 0.05)
    assert found.train.tolist() == [1, 0]
    assert found.n_proponents == 2
    assert influences(np.zeros((2, 3)), "gd", 5, 0.05).train.size == 0
