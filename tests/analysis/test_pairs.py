"""Which pairs and which train samples are chosen, on scores with a known order."""

import numpy as np
import pytest
import scipy.stats

from src.analysis.pairs import distinct_pairs, influences, told_of
from src.analysis.significance import false_discovery_rates
from src.analysis.stats import pvalues


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


def test_what_is_told_of_a_test_sample_are_its_rows_of_the_pair_table():
    """By the q over all pairs, in helpful sign and order; a method that tells nothing has none."""
    rng = np.random.default_rng(0)
    means = np.array([3.0, -2, 0, 9, -7, 0])
    planted = 0.1 * rng.normal(size=(6, 6, 4))
    planted -= planted.mean(axis=0)
    planted[:, :, 2] += means
    either_way = np.array([-1.0, 1, -2, 2, -3, 3])[:, None, None] + np.zeros((6, 6, 4))
    samples = {"if": -planted, "gd": either_way}
    found_p = {method: pvalues(values) for method, values in samples.items()}
    found_q = {method: false_discovery_rates(values) for method, values in found_p.items()}
    told = told_of(samples, found_p, found_q, 2, np.arange(10, 16), 0.05)
    assert told["method"].unique().tolist() == ["if"]
    assert told["train_index"].tolist() == [13, 10, 11, 14]
    assert told["effect"].tolist() == ["helps", "helps", "harms", "harms"]
    assert told["mean"].tolist() == pytest.approx([9, 3, -2, -7])
    p = scipy.stats.ttest_1samp(planted, 0).pvalue
    q = scipy.stats.false_discovery_control(p.ravel()).reshape(p.shape)
    assert told["p"].to_numpy() == pytest.approx(p[[3, 0, 1, 4], 2], rel=1e-9)
    assert told["q"].to_numpy() == pytest.approx(q[[3, 0, 1, 4], 2], rel=1e-9)
    assert told["std"].to_numpy() == pytest.approx(planted[:, [3, 0, 1, 4], 2].std(0, ddof=1))
    assert (told["sign"] == 1).all()
    assert told_of(samples, found_p, found_q, 2, np.arange(10, 16), 1e-12).empty


def test_influences_among_some():
    samples = np.array([[1.0, 2, -1, -3], [1.5, 2.5, -1.5, -3.5]])
    found = influences(samples, "gd", 5, 0.05, np.array([True, False, False, True]))
    assert found.train.tolist() == [0, 3]
    assert found.n_proponents == 1
