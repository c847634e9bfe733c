"""Fractions of significant pairs on noise and planted signal, and tests against naive ones."""

from itertools import product

import numpy as np
import pytest

from src.analysis import significance
from src.analysis.significance import (
    expected_under_noise,
    false_discoveries_controlled,
    least_sign_flip_pvalue,
    sign_flip_pvalues,
    significance_table,
)
from src.analysis.stats import TESTS, pvalues

# Benjamini and Hochberg 1995, section 3.2: fifteen comparisons of two treatments after infarction.
# At 0.05 the first four are significant; Bonferroni's limit 0.0033 would keep three.
EXAMPLE = np.array(
    [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459]
    + [0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0000]
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def stepped_up(p, rate):
    """Benjamini and Hochberg's procedure as they state it: the largest i with p_(i) <= i/m q."""
    kept = 0
    for i, value in enumerate(sorted(p), 1):
        if value <= i / len(p) * rate:
            kept = i
    limit = sorted(p)[kept - 1] if kept else -1
    return [value <= limit for value in p]


def naive_sign_flip(values):
    observed = abs(sum(values))
    sums = [
        abs(sum(s * v for s, v in zip(signs, values, strict=True)))
        for signs in product((1, -1), repeat=len(values))
    ]
    return sum(s >= observed for s in sums) / len(sums)


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize("n_draws", [2, 3, 10])
@pytest.mark.parametrize("alpha", [0.05, 0.3])
def test_fraction_expected_of_noise_is_that_of_simulated_noise(rng, test, n_draws, alpha):
    n_pairs = 100_000
    fraction = (pvalues(rng.normal(size=(n_draws, n_pairs)), test) < alpha).mean()
    expected = expected_under_noise(test, alpha, n_draws)
    # A binomial share: 4 standard errors.
    error = 4 * np.sqrt(expected * (1 - expected) / n_pairs)
    assert fraction == pytest.approx(expected, abs=error)


def test_snr_keeps_nearly_none_of_noise():
    assert expected_under_noise("snr", 0.05, 10) == pytest.approx(0.00016, abs=0.00001)
    assert expected_under_noise("ttest", 0.05, 10) == 0.05


def test_worked_example_of_benjamini_and_hochberg(rng):
    assert false_discoveries_controlled(EXAMPLE, 0.05).tolist() == [True] * 4 + [False] * 11
    order = rng.permutation(15)
    shuffled = false_discoveries_controlled(EXAMPLE[order].reshape(3, 5), 0.05)
    np.testing.assert_array_equal(shuffled, (EXAMPLE[order] <= 0.0095).reshape(3, 5))


def test_step_up_keeps_a_p_value_above_its_own_line():
    # 0.03 > 1/2 * 0.05, but the second of the two is on its line.
    assert false_discoveries_controlled(np.array([0.03, 0.04]), 0.05).all()
    assert not false_discoveries_controlled(np.array([0.03, 0.06]), 0.05).any()


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_false_discovery_control_equals_the_step_up(rng, rate):
    for n_pairs in (1, 2, 7, 40):
        for power in (1, 2, 4):
            p = np.round(rng.uniform(size=n_pairs) ** power, 2) + 0.001  # with ties
            np.testing.assert_array_equal(
                false_discoveries_controlled(p, rate), stepped_up(p, rate)
            )


def test_p_values_of_zero_and_one():
    assert false_discoveries_controlled(np.zeros((2, 3)), 0.05).all()
    assert not false_discoveries_controlled(np.ones((2, 3)), 0.05).any()


def test_share_of_false_discoveries_is_the_rate_times_the_share_of_noise(rng):
    """Benjamini and Yekutieli 2001, theorem 5.1: m0/m q exactly, of independent tests."""
    n_runs, n_pairs, n_signal, rate = 400, 200, 50, 0.2
    shares, found = [], []
    for _ in range(n_runs):
        samples = rng.normal(size=(10, n_pairs))
        samples[:, :n_signal] += 1.5
        kept = false_discoveries_controlled(pvalues(samples), rate)
        shares.append(kept[n_signal:].sum() / max(kept.sum(), 1))
        found.append(kept[:n_signal].mean())
    # 4 standard errors, of the runs' own spread: about 0.01.
    error = 4 * np.std(shares) / np.sqrt(n_runs)
    assert error < 0.015
    assert np.mean(shares) == pytest.approx(rate * (n_pairs - n_signal) / n_pairs, abs=error)
    assert np.mean(found) > 0.9


def test_noise_alone_is_seldom_called_significant(rng):
    """Without signal every discovery is false, so any is made in a share `rate` of the runs."""
    n_runs, rate = 1000, 0.1
    made = [
        false_discoveries_controlled(pvalues(rng.normal(size=(5, 30))), rate).any()
        for _ in range(n_runs)
    ]
    assert np.mean(made) == pytest.approx(rate, abs=4 * np.sqrt(rate * (1 - rate) / n_runs))


@pytest.mark.parametrize("n_draws", [2, 3, 6])
def test_sign_flip_equals_all_choices_of_signs(rng, n_draws):
    noise = rng.normal(size=(n_draws, 4, 5))
    ties = rng.integers(-3, 4, size=(n_draws, 4, 5))
    cases = [(s, s) for s in (noise, noise + 1, noise * 1e-9, noise + 1e6)]
    # In tenths: 0.1 + 0.2 is not 0.3, but the sums of their integers are equal.
    for samples, exact in (*cases, (ties / 10, ties), (ties * 1e5 / 3, ties)):
        p = sign_flip_pvalues(samples)
        assert p.shape == (4, 5)
        for j, z in np.ndindex(4, 5):
            assert p[j, z] == naive_sign_flip(exact[:, j, z].tolist())


@pytest.mark.parametrize("n_pairs", [1, 7, 8, 15, 17])
def test_pairs_taken_some_at_once(rng, monkeypatch, n_pairs):
    samples = rng.normal(size=(5, n_pairs))
    monkeypatch.setattr(significance, "_PRODUCTS_AT_ONCE", 8 * 16)  # 16 choices
    expected = [naive_sign_flip(samples[:, i].tolist()) for i in range(n_pairs)]
    np.testing.assert_allclose(sign_flip_pvalues(samples), expected)


def test_more_pairs_than_are_taken_at_once(rng):
    n_pairs = significance._PRODUCTS_AT_ONCE // 8 + 903  # 8 choices
    samples = rng.normal(size=(4, n_pairs))
    p = sign_flip_pvalues(samples)
    np.testing.assert_array_equal(p[-903:], sign_flip_pvalues(samples[:, -903:]))
    for i in (0, n_pairs - 904, n_pairs - 903, n_pairs - 1):
        assert p[i] == naive_sign_flip(samples[:, i].tolist())


def test_sign_flip_at_ten_draws(rng):
    samples = rng.normal(size=(10, 3)) + [0, 1, 5]
    expected = [naive_sign_flip(samples[:, i].tolist()) for i in range(3)]
    np.testing.assert_allclose(sign_flip_pvalues(samples), expected)
    assert expected[2] == 2 / 2**10


def test_sign_flip_of_what_is_not_a_number(rng):
    samples = rng.normal(size=(10, 3))
    expected = sign_flip_pvalues(samples)
    samples[4, 1] = np.nan
    found = sign_flip_pvalues(samples)
    assert np.isnan(found[1])
    assert list(found[[0, 2]]) == list(expected[[0, 2]])


def test_sign_flip_of_constants():
    samples = np.zeros((10, 3))
    samples[:, 1:] = 0.1, -7
    np.testing.assert_array_equal(sign_flip_pvalues(samples), [1, 2 / 2**10, 2 / 2**10])


def test_sign_flip_is_exact_on_heavy_tails(rng):
    """Its p-values are multiples of 2/2^T, each as likely, whatever the symmetric distribution."""
    n_pairs = 20_000
    p = sign_flip_pvalues(rng.standard_cauchy(size=(6, n_pairs)))
    values, counts = np.unique(np.round(p * 32), return_counts=True)
    np.testing.assert_array_equal(values, np.arange(1, 33))
    # 4.5 standard errors of a binomial share of 1/32, as there are 32 of them.
    assert np.abs(counts / n_pairs - 1 / 32).max() < 4.5 * np.sqrt(1 / 32 / n_pairs)


def test_table_on_noise_and_on_signal(rng):
    noise = rng.normal(size=(10, 100, 100))
    signal = noise[:7].copy()
    signal[:, :30] += 5
    table = significance_table({"loo": noise, "gd": signal}, "ttest", 0.05, 0.1)
    assert table.index.tolist() == ["loo", "gd"]
    assert table.index.name == "method"
    assert table.pairs.tolist() == [10_000] * 2
    assert table.draws.tolist() == [10, 7]
    loo, gd = table.loc["loo"], table.loc["gd"]
    # 4 standard errors of a share of 5 % of 10,000 pairs are 0.009.
    assert loo.significant == pytest.approx(0.05, abs=0.009)
    assert loo.sign_flip == pytest.approx(0.05, abs=0.009)
    assert loo.benjamini_hochberg == loo.sign_flip_benjamini_hochberg == 0
    assert loo.agreement > 0.97
    assert gd.significant == pytest.approx(0.3 + 0.7 * 0.05, abs=0.009)
    # Of the significant ones the share 0.7 * 0.1 is false.
    assert gd.benjamini_hochberg == pytest.approx(0.3 / (1 - 0.07), abs=0.009)
    assert gd.sign_flip == pytest.approx(0.3 + 0.7 * 3 / 64, abs=0.009)
    # Of the values 1/64, 2/64, 3/64 that p takes, the second is the last within 0.1 times the share
    # of pairs up to it: 0.0313 of 0.0322, 0.0469 of 0.0333.
    assert gd.sign_flip_benjamini_hochberg == pytest.approx(0.3 + 0.7 * 2 / 64, abs=0.009)


def test_table_of_the_published_formula(rng):
    samples = {"ats": rng.normal(size=(10, 20, 30))}
    row = significance_table(samples, "snr", 0.3, 0.3).loc["ats"]
    # Its values are no p-values: what needs p-values is not there.
    assert list(row.index) == ["pairs", "draws", "expected_of_noise", "below_alpha"]
    assert row.expected_of_noise == expected_under_noise("snr", 0.3, 10)
    assert row.below_alpha == (pvalues(samples["ats"], "snr") < 0.3).mean()


def test_four_draws_are_too_few_for_sign_flips(rng):
    samples = {"loo": rng.normal(size=(4, 10, 20)) + 9}
    row = significance_table(samples, "ttest", 0.05, 0.1).loc["loo"]
    assert row.benjamini_hochberg == 1
    assert least_sign_flip_pvalue(4) == 2 / 2**4
    assert np.isnan(row[["sign_flip", "agreement", "kappa"]]).all()
    assert np.isnan(row.sign_flip_benjamini_hochberg)
    # At a rate of 0.2 its smallest p-value is enough, if all pairs have it.
    row = significance_table(samples, "ttest", 0.05, 0.2).loc["loo"]
    assert np.isnan(row.sign_flip)
    assert row.sign_flip_benjamini_hochberg == 1
    # A p-value that is not below alpha is no answer either.
    at = significance_table(samples, "ttest", 2 / 2**4, 0.01).loc["loo"]
    assert np.isnan(at[["sign_flip", "agreement", "kappa", "sign_flip_benjamini_hochberg"]]).all()


def test_many_draws_take_random_choices_of_signs(rng):
    samples = rng.normal(size=(20, 3000)) + np.repeat([0, 5], [2000, 1000])
    p = sign_flip_pvalues(samples)
    assert p.min() == least_sign_flip_pvalue(20) == 1 / significance.MOST_SIGN_CHOICES
    assert (p[2000:] == p.min()).all()
    # Uniform under noise: 4 standard errors.
    assert (p[:2000] < 0.1).mean() == pytest.approx(0.1, abs=4 * np.sqrt(0.09 / 2000))
    # As the t-test has it, to what 4,096 choices leave open.
    assert np.abs(p[:2000] - pvalues(samples)[:2000]).mean() < 0.01


def test_as_many_choices_as_are_taken_are_exact(rng):
    for n_draws in (65, np.int64(65), np.int64(100)):  # 2^64 and more are beyond numpy's integers
        assert least_sign_flip_pvalue(n_draws) == 1 / significance.MOST_SIGN_CHOICES
    assert least_sign_flip_pvalue(13) == 2 / 2**13 == 1 / significance.MOST_SIGN_CHOICES
    assert sign_flip_pvalues(np.ones((13, 1))) == 2 / 2**13


def test_table_of_one_pair_with_two_draws():
    table = significance_table({"gc": np.array([[[0.1]], [[0.1]]])}, "ttest", 0.05, 0.05)
    row = table.loc["gc"]
    assert (row.pairs, row.draws, row.significant) == (1, 2, 1)
    assert np.isnan(row[["sign_flip", "agreement", "kappa"]]).all()
