"""Losses with and without a training sample: against scipy, and on normals of known distance."""

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm, ttest_1samp, ttest_ind, ttest_rel

from src.analysis.distributions import (
    QUANTITIES,
    Distributions,
    both_tests,
    gaussian_influence,
    quantities,
    quantities_table,
    welch_pvalues,
)

MANY = 200_000


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("n_draws", [2, 3, 10])
@pytest.mark.parametrize("shape", [(1, 1), (5, 7)])
def test_both_tests_equal_scipy(rng, n_draws, shape):
    base = rng.normal(size=(n_draws, shape[1]))
    effect = rng.normal(size=(n_draws, *shape)) * np.linspace(0.1, 3, shape[1]) + 0.4
    found = Distributions.of(effect, base)
    without, trained_with = base[:, None] + effect, np.broadcast_to(base[:, None], effect.shape)
    np.testing.assert_allclose(found.paired, ttest_rel(without, trained_with).pvalue, rtol=1e-9)
    expected = ttest_ind(without, trained_with, equal_var=False).pvalue
    np.testing.assert_allclose(found.unpaired, expected, rtol=1e-9)


def test_samples_without_spread():
    """Equal ones cannot be told apart, others for certain; one with spread is a sample as any."""
    same, other = np.full((3, 1), 0.1), np.full((3, 1), 0.3)
    assert welch_pvalues(same, same) == 1
    assert welch_pvalues(same, other) == 0
    spread = np.array([[0.1], [0.2], [0.6]])
    expected = ttest_1samp(spread, 0.1).pvalue  # what Welch's test comes down to
    assert welch_pvalues(spread, same) == pytest.approx(expected, rel=1e-9)
    assert gaussian_influence(same, same) == 0
    assert gaussian_influence(same, other) == -np.inf
    assert gaussian_influence(other, same) == np.inf


def test_influence_is_the_gaussian_trade_off_of_equal_variances(rng):
    """At every threshold the errors of telling N(1, 2²) from N(0, 2²) are those of μ = 1/2."""
    with_, without = 2 * rng.normal(size=(2, MANY, 1)) + [[[0]], [[1]]]
    mu = gaussian_influence(without, with_)
    assert mu == pytest.approx(0.5, abs=0.01)
    for threshold in (-1.0, 0.0, 0.5, 2.0):
        alpha, beta = (with_ > threshold).mean(), (without <= threshold).mean()
        assert norm.ppf(1 - alpha) - norm.ppf(beta) == pytest.approx(mu, abs=0.02)


@pytest.mark.parametrize("shift", [-2.0, 0.7])
def test_influence_is_that_of_equal_errors_where_variances_differ(shift):
    """Of N(0, 1) and N(shift, 3²): the threshold with both errors alike, found numerically."""
    threshold = brentq(lambda c: norm.sf(c) - norm.cdf(c, shift, 3), -50, 50)
    alpha = norm.sf(threshold)
    expected = norm.ppf(1 - alpha) - norm.ppf(alpha)
    # Samples with exactly these means and standard deviations (T − 1).
    unit = np.array([[-1.0], [0.0], [1.0]])
    assert gaussian_influence(shift + 3 * unit, unit) == pytest.approx(expected, rel=1e-9)
    assert np.sign(expected) == np.sign(shift)


def test_distances_of_normals_are_the_known_ones(rng):
    """W2² of N(0, 1) and N(0.5, 2²) is 0.5² + (2 − 1)²; the variance rises by 3."""
    with_ = rng.normal(size=(MANY, 1))
    without = 0.5 + 2 * rng.normal(size=(MANY, 1))
    found = quantities(without, with_)
    assert found["wasserstein2"] == pytest.approx(np.sqrt(0.5**2 + 1), abs=0.02)
    assert found["variance_change"] == pytest.approx(3, abs=0.05)
    assert found["mean"] == pytest.approx(0.5, abs=0.02)
    assert found["mu"] == pytest.approx(0.5 / 1.5, abs=0.01)


def test_distance_of_few_samples_is_the_best_plan(rng):
    """Of three samples, the best of all six plans."""
    a, b = rng.normal(size=(2, 3, 4, 5))
    plans = np.array([[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]])
    costs = [((a - b[plan]) ** 2).mean(axis=0) for plan in plans]
    expected = np.sqrt(np.min(costs, axis=0))
    np.testing.assert_allclose(quantities(a, b)["wasserstein2"], expected, rtol=1e-9)


def test_what_a_seed_does_to_both_losses_is_noise_to_the_unpaired_test_alone(rng):
    """A certain small effect between seeds that differ much: the point of setting them beside."""
    base = 10 * rng.normal(size=(10, 20))
    effect = 0.1 + 0.01 * rng.normal(size=(10, 30, 20))
    table = both_tests(Distributions.of(effect, base), 0.05)
    assert table.loc["paired", "significant"] == 1
    assert table.loc["unpaired", "significant"] == 0
    assert table.loc["paired", "benjamini_hochberg"] == 1
    assert table.loc["unpaired", "mean_pvalue"] > 0.9


def test_independent_noise_is_noise_to_all(rng):
    base = rng.normal(size=(10, 2000))
    without = rng.normal(size=(10, 3, 2000))
    found = Distributions.of(without - base[:, None], base)
    tests, table = both_tests(found, 0.05), quantities_table(found)
    assert tests["significant"].to_numpy() == pytest.approx([0.05, 0.05], abs=0.015)
    # Dealing out at random changes nothing of samples of one distribution.
    np.testing.assert_allclose(table["median_size"], table["median_size_same"], rtol=0.1)
    assert table.drop("wasserstein2")["above_0"].to_numpy() == pytest.approx(0.5, abs=0.05)
    assert table.loc["wasserstein2", "above_0"] == 1


def test_columns_of_pairs_are_what_is_not_among_them_yet(rng):
    found = Distributions.of(rng.normal(size=(4, 3, 2)), rng.normal(size=(4, 2)))
    assert [*found.pair_columns] == ["p_unpaired", *(q for q in QUANTITIES if q != "mean")]
    assert all(values.shape == (3, 2) for values in found.pair_columns.values())
