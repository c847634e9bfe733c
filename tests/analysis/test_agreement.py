"""Agreement with leave-one-out on planted distributions, and distances against scipy's."""

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import cohen_kappa_score

from src.analysis.agreement import (
    ANSWERS,
    agreement,
    agreement_table,
    agreements,
    answers,
    confusion_table,
    overlap,
    standardised,
    wasserstein,
)
from src.experiments import PAPER_METHODS


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("method", PAPER_METHODS)
def test_standardised_scores_are_positive_where_the_sample_helps(rng, method):
    """ATS and IF are losses after less leaving out, LOO and the similarities the other way."""
    samples = 1e-4 * rng.normal(size=(5, 3, 4)) + 1e-3
    scaled = standardised(samples, method)
    assert np.sqrt((scaled**2).mean()) == pytest.approx(1, rel=1e-12)
    sign = -1 if method in ("ats", "if") else 1
    assert (np.sign(scaled) == sign * np.sign(samples)).all()
    np.testing.assert_allclose(scaled / samples, (scaled / samples)[0, 0, 0])  # one scale for all


def test_zero_stays_zero_when_standardised():
    for method in PAPER_METHODS:
        assert (standardised(np.zeros((3, 2, 2)), method) == 0).all()
    assert standardised(np.array([[0.0, 3.0]]), "ats")[0, 0] == 0


@pytest.mark.parametrize("n_draws", [1, 2, 3, 10])
@pytest.mark.parametrize("ties", [False, True])
def test_distances_equal_scipy(rng, n_draws, ties):
    a, b = rng.normal(size=(2, n_draws, 12, 10))
    b += np.linspace(-2, 2, 10)
    if ties:  # within and between the methods, in tenths
        a, b = np.round(a * 2) / 10, np.round(b * 2) / 10
    distance, common = wasserstein(a, b), overlap(a, b)
    assert distance.shape == common.shape == (12, 10)
    for j, z in np.ndindex(12, 10):
        x, y = a[:, j, z], b[:, j, z]
        assert distance[j, z] == pytest.approx(scipy.stats.wasserstein_distance(x, y), abs=1e-12)
        assert common[j, z] == pytest.approx(1 - scipy.stats.ks_2samp(x, y).statistic, abs=1e-12)


def test_distances_of_known_samples():
    a = np.array([0.0, 1, 2, 3])[:, None]
    assert wasserstein(a, a[::-1]) == 0
    assert overlap(a, a[::-1]) == 1
    assert wasserstein(a, a + 10) == 10
    assert overlap(a, a + 10) == 0
    assert wasserstein(a, a + 1) == 1
    assert overlap(a, a + 1) == 0.75
    constant = np.full((4, 1), 0.1)
    assert (wasserstein(constant, constant), overlap(constant, constant)) == (0, 1)
    assert overlap(constant, 2 * constant) == 0


def test_zeros_of_either_sign_are_equal():
    assert overlap(np.array([[0.0], [-0.0]]), np.array([[-0.0], [0.0]])) == 1


def test_overlap_is_the_common_area_of_two_densities(rng):
    """Of two normals of standard deviation 1 at distance 2: 2 Φ(−1)."""
    a = rng.normal(size=(100_000, 1))
    b = rng.normal(size=(100_000, 1)) + 2
    expected = 2 * scipy.stats.norm.cdf(-1)
    # The supremum of the difference of distribution functions: within 4 / sqrt(2 n).
    assert overlap(a, b)[0] == pytest.approx(expected, abs=0.009)
    assert wasserstein(a, b)[0] == pytest.approx(2, abs=0.02)


def test_answers_of_planted_pairs(rng):
    noise = 0.1 * rng.normal(size=(10, 6))
    samples = noise - noise.mean(axis=0) + [-1, 0, 1, -1, 0, 1]
    samples[:, 3:] = -0.1, 0, 0.1
    said = answers(samples, 0.05)
    assert said.dtype == np.int64
    assert [ANSWERS[i] for i in said] == ["harmful", "not significant", "helpful"] * 2


def test_answers_depend_on_the_level():
    samples = np.array([[1.0], [2.0], [6.0]])  # p = 0.19
    assert ANSWERS[answers(samples, 0.15)[0]] == "not significant"
    assert ANSWERS[answers(samples, 0.25)[0]] == "helpful"
    assert ANSWERS[answers(-samples, 0.25)[0]] == "harmful"


@pytest.mark.parametrize(("method", "sign"), [("gd", 1), ("gc", 1), ("if", -1), ("ats", -1)])
def test_planted_answers_land_in_their_cells(rng, method, sign):
    """Of ten pairs with every combination of answers, as many as the combination says."""
    cells = {(0, 0): 2, (0, 2): 1, (1, 0): 1, (1, 1): 3, (2, 1): 2, (2, 2): 1}
    said_loo, said = np.array([cell for cell, n in cells.items() for _ in range(n)]).T
    noise = rng.normal(size=(2, 10, 2, 5))
    noise -= noise.mean(axis=1, keepdims=True)
    loo = noise[0] + 3.0 * (said_loo.reshape(2, 5) - 1)
    estimator = 1e3 * sign * (noise[1] + 3.0 * (said.reshape(2, 5) - 1))
    result = agreement(loo, estimator, method, 0.05)
    expected = np.zeros((3, 3))
    for cell, n in cells.items():
        expected[cell] = n / 10
    np.testing.assert_allclose(result.confusion, expected)
    # Observed agreement 0.6; by chance 0.3 * 0.3 + 0.4 * 0.5 + 0.3 * 0.2 = 0.35.
    assert result.kappa == pytest.approx((0.6 - 0.35) / (1 - 0.35))

    row = agreement_table({method: result}).loc[method]
    assert row.same_answer == pytest.approx(0.6)
    assert row.opposite_significant == pytest.approx(0.1)
    table = confusion_table({method: result})
    assert table.index.names == ["method", "loo says"]
    np.testing.assert_allclose(table.loc[method].loc[list(ANSWERS)].to_numpy(), expected)
    assert table.loc[(method, "harmful"), "estimator says helpful"] == pytest.approx(0.1)
    assert table.loc[(method, "helpful"), "estimator says harmful"] == 0


def test_both_opposite_answers_are_counted():
    noise = np.array([-0.1, 0, 0.1])[:, None]
    loo, estimator = noise + [1.0, -1, -1, 1], noise + [-1.0, 1, 1, 1]
    row = agreement_table({"gd": agreement(loo, estimator, "gd", 0.05)}).loc["gd"]
    assert row.opposite_significant == pytest.approx(0.75)
    assert row.same_answer == pytest.approx(0.25)


@pytest.mark.parametrize("shape", [(4, 6), (20, 7), (30, 300), (150, 900)])
def test_all_pairs_are_all(shape):
    """Thousands of equal fractions do not add up to 1."""
    samples = np.full((3, *shape), 0.1)
    row = agreement_table({"if": agreement(samples, samples, "if", 0.05)}).loc["if"]
    assert row.opposite_significant == 1
    assert row.same_answer == 0


def test_an_estimator_equal_to_loo_agrees_in_all(rng):
    loo = rng.normal(size=(10, 20, 30)) + rng.normal(size=(20, 30))
    # Powers of 2, so that the scales cancel without rounding.
    for method, factor in (("gd", 2**-10), ("if", -64.0), ("ats", -1.0)):
        result = agreement(loo, factor * loo, method, 0.05)
        assert (result.wasserstein == 0).all()
        assert (result.overlap == 1).all()
        assert result.kappa == 1
        assert np.trace(result.confusion) == pytest.approx(1)
        for coefficient in ("pearson", "spearman"):
            np.testing.assert_allclose(result.of_seeds[coefficient], np.ones(10))
            assert result.of_means[coefficient] == pytest.approx(1)


def test_independent_estimators_agree_as_chance_would(rng):
    n_pairs = 5000
    loo, other = rng.normal(size=(2, 10, 50, 100)) + 0.7 * rng.normal(size=(2, 1, 50, 100))
    result = agreement(loo, other, "gd", 0.05)
    assert result.confusion.sum() == pytest.approx(1)
    assert result.confusion.min() > 0.02
    # Of independent answers kappa and the correlations have standard errors near 1 / √n.
    assert result.kappa == pytest.approx(0, abs=4 / np.sqrt(n_pairs))
    for coefficient in ("pearson", "spearman"):
        assert result.of_means[coefficient] == pytest.approx(0, abs=4 / np.sqrt(n_pairs))
        assert result.of_seeds[coefficient].shape == (10,)
        np.testing.assert_allclose(result.of_seeds[coefficient], 0, atol=4 / np.sqrt(n_pairs))


def test_correlations_are_those_of_the_pairs(rng):
    pairs = rng.normal(size=(4, 50))
    loo, other = (pairs + rng.normal(size=(5, 4, 50)) for _ in range(2))
    result = agreement(loo, -(other**3), "if", 0.05)
    row = agreement_table({"if": result}).loc["if"]
    for name, reference in (("pearson", scipy.stats.pearsonr), ("spearman", scipy.stats.spearmanr)):
        of_seeds = [reference(loo[t].ravel(), other[t].ravel() ** 3).statistic for t in range(5)]
        np.testing.assert_allclose(result.of_seeds[name], of_seeds)
        means = loo.mean(axis=0).ravel(), (other**3).mean(axis=0).ravel()
        assert result.of_means[name] == pytest.approx(reference(*means).statistic)
        assert row[f"{name}_of_seeds"] == pytest.approx(np.mean(of_seeds))
        assert row[f"{name}_of_means"] == pytest.approx(result.of_means[name])


def test_equal_distributions_are_as_far_apart_as_samples_dealt_out(rng):
    pairs = rng.normal(size=(50, 60))
    loo, other = (pairs + rng.normal(size=(10, 50, 60)) for _ in range(2))
    result = agreement(loo, other, "gc", 0.05)
    for name in ("wasserstein", "overlap"):
        own, dealt = getattr(result, name), getattr(result, f"{name}_same")
        assert own.shape == dealt.shape == (50, 60)
        error = 4 * np.sqrt((own.var() + dealt.var()) / own.size)
        assert own.mean() == pytest.approx(dealt.mean(), abs=error)
        assert (own != dealt).any()
    # What scipy's two-sample statistic is for ten normal samples each.
    x, y = rng.normal(size=(2, 10, 4000))
    expected = 1 - scipy.stats.ks_2samp(x, y, method="asymp").statistic
    error = 4 * np.sqrt(expected.var() / 4000 + result.overlap_same.var() / 3000)
    assert result.overlap_same.mean() == pytest.approx(expected.mean(), abs=error)


def test_distributions_apart_are_further_than_samples_dealt_out(rng):
    loo, other = rng.normal(size=(2, 10, 20, 30)) + np.array([5.0, -5.0])[:, None, None, None]
    result = agreement(loo, other, "gd", 0.05)
    assert (result.overlap == 0).all()
    assert result.wasserstein.min() > 1.5 > result.wasserstein_same.mean()
    assert result.overlap_same.mean() > 0.5
    row = agreement_table({"gd": result}).loc["gd"]
    assert row.wasserstein == np.median(result.wasserstein)
    assert row.wasserstein_same == np.median(result.wasserstein_same)
    assert row.overlap == 0
    assert row.overlap_same == result.overlap_same.mean()


def test_samples_are_dealt_out_anew_for_each_pair():
    ones = np.ones((10, 20, 30))
    result = agreement(ones, -ones, "gd", 0.05)
    # Of ten ones and ten minus ones, k ones go to the first hand: hypergeometric.
    hands = 1 - np.abs(2 * np.arange(11) - 10) / 10
    chances = scipy.stats.hypergeom(20, 10, 10).pmf(np.arange(11))
    mean = hands @ chances
    error = 4 * np.sqrt((hands**2 @ chances - mean**2) / 600)
    assert result.overlap_same.mean() == pytest.approx(mean, abs=error)
    assert len(np.unique(result.overlap_same)) > 3


@pytest.mark.parametrize("shift", [0, 0.5])
def test_kappa_equals_scikit_learns(rng, shift):
    loo = rng.normal(size=(4, 20, 30)) + rng.choice([-2, 0, 2], (20, 30))
    estimator = loo + rng.normal(size=loo.shape) + shift
    said = [answers(standardised(v, "gd"), 0.05).ravel() for v in (loo, estimator)]
    expected = cohen_kappa_score(*said)
    assert agreement(loo, estimator, "gd", 0.05).kappa == pytest.approx(expected, rel=1e-12)


def test_kappa_without_two_kinds_of_answers():
    noise = np.array([-0.1, 0, 0.1])[:, None]
    always, mixed = noise + [1.0, 1, 1, 1], noise + [1.0, 0, 1, 1]
    assert np.isnan(agreement(always, always, "gd", 0.05).kappa)
    assert agreement(always, -always, "gd", 0.05).kappa == 0
    assert agreement(always, mixed, "gd", 0.05).kappa == 0


@pytest.mark.parametrize("value", [0.1, -7.0])
def test_agreement_of_constants(value):
    constant = np.full((7, 2, 3), value)
    for loo, other in ((constant, constant), (np.zeros((7, 2, 3)), np.zeros((7, 2, 3)))):
        result = agreement(loo, other, "gc", 0.05)
        assert (result.wasserstein == 0).all()
        assert (result.overlap == 1).all()
        assert np.isnan([result.kappa, *result.of_means.values()]).all()
        assert np.isnan(list(result.of_seeds.values())).all()
    result = agreement(constant, np.zeros((7, 2, 3)), "gc", 0.05)
    assert result.wasserstein == pytest.approx(np.ones((2, 3)))
    assert (result.overlap == 0).all()
    row = 2 if value > 0 else 0
    assert result.confusion[row, 1] == pytest.approx(1)


def test_agreement_of_two_draws(rng):
    loo, other = rng.normal(size=(2, 2, 3, 4))
    result = agreement(loo, other, "gd", 0.05)
    assert set(np.unique(result.overlap)) <= {0, 0.5, 1}
    assert result.confusion.sum() == pytest.approx(1)
    assert result.of_seeds["pearson"].shape == (2,)


@pytest.mark.filterwarnings("ignore:Degrees of freedom", "ignore:invalid value", "ignore:divide by")
def test_agreement_of_one_pair(rng):
    loo, other = rng.normal(size=(2, 5, 1, 1))
    result = agreement(loo, other, "gd", 0.05)
    assert result.wasserstein.shape == (1, 1)
    assert result.confusion.sum() == 1
    assert np.isnan(list(result.of_means.values())).all()


def test_every_estimator_is_compared_with_leave_one_out(rng):
    loo, other = rng.normal(size=(4, 3, 5)), rng.normal(size=(4, 3, 5))
    result = agreements({"loo": loo, "if": -other, "gd": other}, 0.05)
    assert list(result) == ["if", "gd"]
    for method, own in (("if", -other), ("gd", other)):
        expected = agreement(loo, own, method, 0.05)
        np.testing.assert_array_equal(result[method].wasserstein, expected.wasserstein)
    assert agreement_table(result).draws.tolist() == [4, 4]


def test_nothing_without_leave_one_out(rng):
    samples = {"gd": rng.normal(size=(3, 2, 2)), "gc": rng.normal(size=(3, 2, 2))}
    assert agreements(samples, 0.05) == {}
    assert agreements({"loo": samples["gd"]}, 0.05) == {}


def test_tables_have_a_row_per_estimator(rng):
    samples = {m: rng.normal(size=(4, 3, 5)) for m in PAPER_METHODS}
    result = agreements(samples, 0.05)
    table = agreement_table(result)
    assert table.index.name == "method"
    assert list(table.index) == [m for m in PAPER_METHODS if m != "loo"]
    assert len(confusion_table(result)) == 3 * 4
    np.testing.assert_allclose(confusion_table(result).groupby(level="method").sum().sum(axis=1), 1)
