"""Moments, tests and correlations on samples with known answers."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from src.analysis.stats import (
    correlation,
    correlations,
    draw_samples,
    mean_under_noise,
    method_linkage,
    moments,
    pvalues,
    ranks,
    student_pvalues,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_samples_are_means_over_the_last_checkpoints(rng):
    scores = rng.normal(size=(3, 5, 2, 4)).astype(np.float32)
    samples = draw_samples(scores, 2)
    for t in range(3):
        expected = (scores[t, 3].astype(np.float64) + scores[t, 4]) / 2
        np.testing.assert_allclose(samples[t], expected, rtol=1e-12)
    assert samples.dtype == np.float64
    np.testing.assert_array_equal(draw_samples(scores, 1), scores[:, 4])


@pytest.mark.parametrize("k", [0, 6])
def test_number_of_checkpoints_out_of_range(rng, k):
    with pytest.raises(ValueError, match="from 1 to 5"):
        draw_samples(rng.normal(size=(3, 5, 2, 4)), k)


def test_moments_divide_by_draws_minus_one():
    mean, std = moments(np.array([[1.0], [2.0], [6.0]]))
    assert mean[0] == 3
    assert std[0] == pytest.approx(np.sqrt((4 + 1 + 9) / 2))


def test_ttest_by_hand():
    samples = np.array([1.0, 2.0, 6.0])
    t = 3 / (np.sqrt(7) / np.sqrt(3))
    expected = 2 * scipy.stats.t(2).sf(t)
    assert pvalues(samples[:, None])[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n_draws", [2, 3, 10])
def test_ttest_equals_scipy(rng, n_draws):
    samples = rng.normal(size=(n_draws, 20, 30)) + rng.normal(size=(20, 30)) * 5
    expected = scipy.stats.ttest_1samp(samples, 0).pvalue
    np.testing.assert_allclose(pvalues(samples), expected, rtol=1e-10)


@pytest.mark.parametrize("freedom", [*range(1, 12), 49, 50, 99, 100, 101, 249])
def test_students_distribution_equals_scipy(rng, freedom):
    """From t near 0, where p is near 1, to where p is as small as floats can be."""
    t = np.concatenate([rng.standard_t(freedom, 2000), [0.0, np.inf, -np.inf, 1e200, -1e-200]])
    t = np.concatenate([t, 10 ** rng.uniform(-9, 9, 2000)])
    found = student_pvalues(t, freedom)
    # Of ν = 1 scipy has a few digits only.
    expected = 2 * scipy.stats.t(freedom).sf(np.abs(t))
    exact = 2 / np.pi * np.arctan2(1, np.abs(t)) if freedom == 1 else expected
    np.testing.assert_allclose(found, exact, rtol=1e-11, atol=1e-150)
    assert student_pvalues(np.array(2.0), freedom) == pytest.approx(
        2 * scipy.stats.t(freedom).sf(2)
    )
    assert np.isnan(student_pvalues(np.array([np.nan]), freedom))


def test_snr_by_hand():
    samples = np.array([1.0, 2.0, 6.0])
    expected = 2 * (1 - scipy.stats.norm.cdf(3 / np.sqrt(7)))
    assert pvalues(samples[:, None], "snr")[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n_draws", [2, 10])
def test_ttest_is_uniform_on_noise(rng, n_draws):
    p = pvalues(rng.normal(size=(n_draws, 200, 100)))
    assert scipy.stats.kstest(p.ravel(), "uniform").pvalue > 0.01
    assert p.mean() == pytest.approx(mean_under_noise("ttest", n_draws), abs=0.01)


def test_snr_is_not_uniform_on_noise(rng):
    """Design section 6: mean 0.790 at ten draws, and 0.014 % of pairs under 0.05."""
    p = pvalues(rng.normal(size=(10, 2000, 100)), "snr")
    assert p.mean() == pytest.approx(0.790, abs=0.002)
    assert mean_under_noise("snr", 10) == pytest.approx(0.790, abs=0.0005)
    assert (p < 0.05).mean() == pytest.approx(0.00014, abs=0.0001)


def test_planted_signal_is_found(rng):
    noise = rng.normal(size=(10, 50, 40))
    signal = np.zeros((50, 40))
    signal[:5] = 3
    p = pvalues(noise + signal)
    assert (p[:5] < 0.05).mean() > 0.99
    assert (p[5:] < 0.05).mean() == pytest.approx(0.05, abs=0.02)


@pytest.mark.parametrize("test", ["ttest", "snr"])
def test_pairs_without_noise(test):
    samples = np.array([[0.0, 0.1, -0.1, 1.0], [0.0, 0.1, -0.1, 2.0], [0.0, 0.1, -0.1, 1.5]])
    p = pvalues(samples, test)
    assert p[0] == 1
    assert p[1] == p[2] == 0
    assert 0 < p[3] < 1


def test_all_pairs_without_noise():
    np.testing.assert_array_equal(pvalues(np.zeros((4, 2, 3))), np.ones((2, 3)))


def test_one_draw_is_too_few():
    with pytest.raises(ValueError, match="at least 2"):
        pvalues(np.ones((1, 3)))


def test_unknown_test():
    with pytest.raises(ValueError, match="choose from ttest, snr"):
        pvalues(np.eye(3), "wilcoxon")


def test_correlations_equal_scipy(rng):
    a, b = rng.normal(size=(2, 30, 20))
    values = {"loo": a, "gd": a + b, "gc": np.exp(a)}
    for coefficient, reference in (
        ("pearson", scipy.stats.pearsonr),
        ("spearman", scipy.stats.spearmanr),
    ):
        matrix = correlations(values, coefficient)
        for m in values:
            for n in values:
                expected = reference(values[m].ravel(), values[n].ravel()).statistic
                assert matrix.loc[m, n] == pytest.approx(expected, rel=1e-9)
        assert correlation(a, a + b, coefficient) == pytest.approx(
            matrix.loc["loo", "gd"], rel=1e-12
        )
    assert correlations(values, "spearman").loc["loo", "gc"] == pytest.approx(1)


@pytest.mark.parametrize("n_values", [1, 2, 1000])
@pytest.mark.parametrize("n_kinds", [1, 3, 500, None])
def test_ranks_are_scipys(rng, n_values, n_kinds):
    values = rng.normal(size=n_values if n_kinds is None else n_kinds)
    if n_kinds is not None:
        values = rng.choice(values, n_values)
    assert np.array_equal(ranks(values), scipy.stats.rankdata(values))


def test_zeros_of_either_sign_share_their_rank():
    assert ranks(np.array([0.0, -0.0, -1.0])).tolist() == [2.5, 2.5, 1]


def test_nan_has_no_rank_and_leaves_none():
    assert np.isnan(ranks(np.array([2.0, np.nan, 1.0]))).all()


def test_ties_share_their_rank():
    values = {"a": np.array([1.0, 1, 2, 3]), "b": np.array([1.0, 2, 3, 3])}
    expected = scipy.stats.spearmanr(values["a"], values["b"]).statistic
    assert correlations(values, "spearman").loc["a", "b"] == pytest.approx(expected)


@pytest.mark.parametrize("coefficient", ["pearson", "spearman"])
def test_a_constant_has_no_correlation(rng, coefficient):
    # The mean of seven times 0.1 is not quite 0.1.
    matrix = correlations({"a": rng.normal(size=7), "b": np.full(7, 0.1)}, coefficient)
    assert np.isnan(matrix.loc["a", "b"])
    assert matrix.loc["a", "a"] == pytest.approx(1)


def test_unknown_coefficient():
    with pytest.raises(ValueError, match="choose from pearson, spearman"):
        correlations({"a": np.arange(3.0)}, "kendall")


def test_groups_of_methods_that_are_joined_last():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 500))
    values = {"loo": a, "ats": -b, "if": b + 0.1 * a, "gd": -a + 0.1 * b, "gc": b}
    correlations = pd.DataFrame(np.corrcoef([*values.values()]), [*values], [*values])
    tree, groups = method_linkage(correlations)
    assert groups == (["loo", "gd"], ["ats", "if", "gc"])
    assert tree.shape == (4, 4)
    # Average linkage, by its definition: the mean distance between the groups' members.
    distances = [1 - abs(correlations.loc[x, y]) for x in groups[0] for y in groups[1]]
    assert tree[-1, 2] == pytest.approx(np.mean(distances))
