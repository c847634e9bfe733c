"""Resampled seeds against seeds that are repeated, and how often intervals hold the truth."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student_t

from src.analysis import bootstrap
from src.analysis import rows as rows_module
from src.analysis.bootstrap import (
    LEAST_DRAWS,
    Estimate,
    clearly_largest,
    correlation_intervals,
    difference_table,
    pair_means,
    resampled_moments,
    seed_resamples,
)
from src.analysis.rows import N_RESAMPLES, Rows, some_pairs
from src.analysis.stats import TESTS, correlation_matrices, moments, pvalues, pvalues_of_moments
from src.reports.correlations import pair_statistics


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def statistics_of(samples):
    mean, std = moments(samples)
    return {"mean": mean, "std": std, "pvalue": pvalues(samples)}


def estimates_of(samples):
    return correlation_matrices({m: statistics_of(v) for m, v in samples.items()})


@pytest.mark.parametrize("n_draws", [2, 3, 10])
def test_resamples_draw_as_many_seeds_as_there_are(n_draws):
    counts = seed_resamples(n_draws)
    assert counts.shape == (N_RESAMPLES, n_draws)
    assert (counts.sum(axis=1) == n_draws).all()
    assert (counts >= 0).all()
    assert ((counts > 0).sum(axis=1) > 1).all()
    np.testing.assert_array_equal(counts, seed_resamples(n_draws))


def test_every_seed_is_as_likely():
    counts = seed_resamples(10, 20_000)
    # Binomial of 10 draws with chance 1/10: mean 1, variance 0.9, covariance -0.1.
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=4 * np.sqrt(0.9 / 20_000))
    np.testing.assert_allclose(np.cov(counts.T), np.eye(10) - 0.1, atol=0.05)


def test_two_seeds_with_spread_have_one_resample():
    assert (seed_resamples(2) == 1).all()


@pytest.mark.parametrize("n_draws", [2, 3, 10])
@pytest.mark.parametrize(
    ("offset", "scale"), [(0, 1), (1e6, 1), (-3, 1e-6), (0, 1e9), (1e-9, 1e-12)]
)
def test_moments_of_resamples_are_those_of_repeated_seeds(rng, n_draws, offset, scale):
    samples = offset + scale * rng.normal(size=(n_draws, 3, 4))
    counts = seed_resamples(n_draws)
    for count in counts:
        mean, std = resampled_moments(samples)(count)
        repeated = np.repeat(samples, count, axis=0)
        np.testing.assert_allclose(mean, np.mean(repeated, axis=0), rtol=1e-12, atol=1e-12 * scale)
        np.testing.assert_allclose(std, np.std(repeated, axis=0, ddof=1), rtol=1e-8)


def test_seeds_nearly_equal_but_far_from_one_that_is_not_drawn(rng):
    samples = 1 + 1e-8 * rng.normal(size=(10, 50))
    samples[0] = 1e3
    counts = seed_resamples(10)
    for count in counts:
        mean, std = resampled_moments(samples)(count)
        repeated = np.repeat(samples, count, axis=0)
        np.testing.assert_allclose(mean, np.mean(repeated, axis=0), rtol=1e-12)
        np.testing.assert_allclose(std, np.std(repeated, axis=0, ddof=1), rtol=1e-5)


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize("n_draws", [3, 7, 10])
def test_resamples_without_spread(test, n_draws):
    """Pairs whose seeds are equal, or equal but for one: exact, and without a warning."""
    samples = np.zeros((n_draws, 5))
    samples[:, 1:4] = 0.1, -1e9, 1 / 3
    samples[-1, 3:] = 5, 1 / 3
    counts = seed_resamples(n_draws)
    without_last = 0
    with np.errstate(divide="raise", over="raise", invalid="raise"):
        for count in counts:
            mean, std = resampled_moments(samples)(count)
            p = pvalues_of_moments(mean, std, n_draws, test)
            repeated = np.repeat(samples, count, axis=0)
            np.testing.assert_allclose(p, pvalues(repeated, test), rtol=1e-9, atol=1e-200)
            without_last += p[4] == 1
    assert without_last == (counts[:, -1] == 0).sum() > 0


@pytest.mark.parametrize("n_draws", [3, 10])
def test_errors_are_those_of_repeated_seeds(rng, n_draws):
    samples = rng.normal(size=(n_draws, 6, 7)) + 0.3
    found = pair_means(samples, TESTS)
    of = {f"mean_pvalue_{test}": lambda s, t=test: pvalues(s, t) for test in TESTS} | {
        "mean_std": lambda s: s.std(axis=0, ddof=1),
        "mean_abs_mean": lambda s: np.abs(s.mean(axis=0)),
    }
    assert list(found) == list(of)
    for name, function in of.items():
        assert found[name].value == pytest.approx(function(samples).mean(), rel=1e-12)
        repeated = [np.repeat(samples, count, axis=0) for count in seed_resamples(n_draws)]
        expected = [function(again).mean() for again in repeated]
        np.testing.assert_allclose(found[name].drawn, expected, rtol=1e-9)
        reach = student_t.isf(0.025, n_draws - 1) * np.std(expected, ddof=1)
        low, high = found[name].interval()
        assert high - low == pytest.approx(2 * reach, rel=1e-6)


def test_two_seeds_have_no_errors(rng):
    assert LEAST_DRAWS == 3
    for estimate in pair_means(rng.normal(size=(2, 3, 4)), TESTS).values():
        assert np.isfinite(estimate.value)
        assert np.isnan(estimate.interval()).all()
        assert (estimate - Estimate(9.0, estimate.drawn, 2)).sign == 0


@pytest.mark.parametrize("value", [0.0, 0.1, -7.0])
def test_constants_have_no_error(value):
    found = pair_means(np.full((7, 2, 3), value), TESTS)
    for test in TESTS:
        estimate = found[f"mean_pvalue_{test}"]
        assert estimate.interval() == (estimate.value, estimate.value)


def test_seeds_shared_by_both_are_no_part_of_a_difference(rng):
    """Two numbers that move together by what a seed does to both are told apart all the same."""
    samples = rng.normal(size=(10, 20, 30)) + 3 * rng.normal(size=(10, 1, 1))
    own = pair_means(samples, ("ttest",))["mean_pvalue_ttest"]
    shifted = Estimate(own.value + 0.01, own.drawn + 0.01, 10)
    assert (shifted - own).sign == 1
    assert (own - shifted).sign == -1
    assert (own - own).sign == 0
    low, high = own.interval()
    assert high - low > 0.1  # apart, their intervals would overlap
    table = difference_table({("loo", "a", "b"): shifted - own}, ["method", "one", "less"])
    assert table.index.names == ["method", "one", "less"]
    assert table.iloc[0].tolist() == pytest.approx([0.01] * 3)


@pytest.mark.parametrize("n_draws", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_of_equal_methods_a_difference_is_seldom_told(rng, n_draws):
    """Mean p-values of two sets of noise; pairs vary together by common factors."""
    n_runs, wrong = 150, 0
    loadings = rng.normal(size=(5, 100)) / 2
    for _ in range(n_runs):
        a, b = (
            pair_means(
                rng.normal(size=(n_draws, 5)) @ loadings + rng.normal(size=(n_draws, 100)),
                ("ttest",),
            )["mean_pvalue_ttest"]
            for _ in range(2)
        )
        wrong += (a - b).sign != 0
    # 5 %, with 4 standard errors of 150 runs.
    assert wrong / n_runs <= 0.05 + 4 * np.sqrt(0.05 * 0.95 / n_runs)


def test_the_largest_is_told_only_where_all_differences_are(rng):
    noise = rng.normal(size=100)
    a, b, c = (Estimate(v, v + s * noise, 10) for v, s in ((0.5, 0.01), (0.1, 0.01), (0.49, 0.05)))
    assert clearly_largest({"a": a, "b": b}) == "a"
    assert clearly_largest({"a": a, "b": b, "c": c}) is None
    assert clearly_largest({"a": a, "b": a}) is None  # equal
    assert clearly_largest({"a": a}) is None  # nothing to compare


@pytest.mark.parametrize("signal", [0.0, 0.9])
def test_normal_intervals_hold_the_mean_p_value_and_percentiles_do_not(rng, signal):
    """Pairs vary together by ten common factors, which make up half of their variance."""
    n_draws, n_pairs, n_runs = 10, 150, 100
    loadings = 0.3 * rng.normal(size=(10, n_pairs))
    means = signal * rng.normal(size=n_pairs)

    def draw():
        common = rng.normal(size=(n_draws, 10)) @ loadings
        return means + common + rng.normal(size=(n_draws, n_pairs))

    truth = 0.5 if signal == 0 else np.mean([pvalues(draw()).mean() for _ in range(1000)])
    counts = seed_resamples(n_draws)
    estimates, held, errors, by_percentiles = [], [], [], []
    for _ in range(n_runs):
        samples = draw()
        estimates.append(pvalues(samples).mean())
        estimate = pair_means(samples, ("ttest",))["mean_pvalue_ttest"]
        errors.append(np.std(estimate.drawn, ddof=1))
        low, high = estimate.interval(0.0, 1.0)
        held.append(low <= truth <= high)
        moments_of = resampled_moments(samples)
        resampled = [pvalues_of_moments(*moments_of(c), n_draws).mean() for c in counts]
        low, high = np.quantile(resampled, [0.025, 0.975])
        by_percentiles.append(low <= truth <= high)
    assert np.mean(held) >= 0.88
    # Not by being wide: of 100 runs a standard deviation is known within 4 * 7 %.
    assert 0.72 < np.mean(errors) / np.std(estimates) < 2
    if signal == 0:
        assert np.mean(by_percentiles) < 0.3


def test_interval_by_hand():
    drawn = np.array([0.4, 0.6]) + np.array([1, -1]) * (0.1 - 0.1 / np.sqrt(2))  # deviation 0.1
    estimate = Estimate(0.5, drawn, 10)
    assert estimate.interval() == pytest.approx((0.5 - 0.2262157, 0.5 + 0.2262157))
    assert estimate.interval(0.3, 0.6) == (0.3, 0.6)


def test_what_is_not_known_has_no_interval():
    for value, drawn in ((0.5, [0.4, np.nan]), (np.nan, [0.4, 0.6])):
        estimate = Estimate(value, np.array(drawn), 3)
        assert np.isnan(estimate.interval(0.0, 1.0)).all()
        assert estimate.sign == 0


def test_another_number_of_seeds_is_not_compared(rng):
    with pytest.raises(ValueError, match="10 seeds cannot be compared with 3"):
        Estimate(0.5, rng.normal(size=5), 10) - Estimate(0.5, rng.normal(size=5), 3)


def test_correlation_intervals_are_those_of_repeated_seeds(rng):
    common = rng.normal(size=(5, 6))
    samples = {m: common + rng.normal(size=(10, 5, 6)) for m in ("loo", "gd", "if")}
    estimates = estimates_of(samples)
    limits = correlation_intervals(samples, estimates)
    assert limits.keys() == estimates.keys()
    drawn = {key: [] for key in estimates}
    for count in seed_resamples(10):
        repeated = {m: np.repeat(v, count, axis=0) for m, v in samples.items()}
        for key, matrix in estimates_of(repeated).items():
            drawn[key].append(matrix)
    for key, (low, high) in limits.items():
        for a, b in (("loo", "gd"), ("gd", "if"), ("if", "loo")):
            error = np.std([np.arctanh(m.loc[a, b]) for m in drawn[key]], ddof=1)
            centre = np.arctanh(estimates[key].loc[a, b])
            reach = 2.262157 * error  # Student's t of 9 degrees of freedom
            assert low.loc[a, b] == pytest.approx(np.tanh(centre - reach), abs=1e-6)
            assert high.loc[a, b] == pytest.approx(np.tanh(centre + reach), abs=1e-6)


def test_correlation_limits_are_correlations(rng):
    common = rng.normal(size=(4, 5))
    noise = {
        m: size * rng.normal(size=(5, 4, 5)) for m, size in (("a", 0.01), ("b", 0.01), ("c", 9))
    }
    samples = {m: common + values for m, values in noise.items()}
    samples["d"] = -samples["a"]
    estimates = estimates_of(samples)
    for key, (low, high) in correlation_intervals(samples, estimates).items():
        assert isinstance(low, pd.DataFrame)
        assert list(low.index) == list(high.columns) == list("abcd")
        assert (low >= -1).all(axis=None)
        assert (high <= 1).all(axis=None)
        assert (low <= estimates[key] + 1e-9).all(axis=None)
        assert (high >= estimates[key] - 1e-9).all(axis=None)
        np.testing.assert_allclose(np.diag(low), 1)
        np.testing.assert_allclose(low, low.T)
    low, high = correlation_intervals(samples, estimates)["mean", "pearson"]
    assert high.loc["a", "d"] == pytest.approx(-1)
    assert high.loc["a", "c"] - low.loc["a", "c"] > 0.2
    assert low.loc["a", "b"] > 0.99


@pytest.mark.slow
def test_correlation_intervals_hold_what_ten_seeds_show(rng, monkeypatch):
    """Two methods whose means correlate by 0.6; noise with common factors blurs them to less."""
    monkeypatch.setattr(bootstrap, "N_RESAMPLES", 40)
    monkeypatch.setattr(rows_module, "N_RESAMPLES", 40)
    n_draws, n_pairs, n_runs = 10, 100, 40
    means = rng.normal(size=(2, n_pairs))
    means[1] = 0.6 * means[0] + 0.8 * means[1]
    loadings = 0.4 * rng.normal(size=(2, 3, n_pairs))

    def draw():
        common = rng.normal(size=(n_draws, 3))
        return {
            m: (means[i] + common @ loadings[i] + rng.normal(size=(n_draws, n_pairs)))[:, None]
            for i, m in enumerate(("loo", "gd"))
        }

    def correlation(samples):
        return np.corrcoef(*(v.mean(axis=0).ravel() for v in samples.values()))[0, 1]

    truth = np.mean([correlation(draw()) for _ in range(2000)])
    assert 0.2 < truth < np.corrcoef(means)[0, 1]
    held, widths, estimates = [], [], []
    for _ in range(n_runs):
        samples = draw()
        limits = correlation_intervals(samples, estimates_of(samples))["mean", "pearson"]
        low, high = (frame.loc["loo", "gd"] for frame in limits)
        held.append(low <= truth <= high)
        widths.append(high - low)
        estimates.append(correlation(samples))
    assert np.mean(held) >= 0.8  # 0.95 less 4 standard errors of 40 runs
    # Not by being wide: a standard deviation of 40 runs is known within 4 * 11 %.
    assert 0.6 < np.mean(widths) / (2 * 1.96 * np.std(estimates)) < 2


def test_correlations_with_two_seeds_have_no_interval(rng):
    for n_draws in (2, 3):
        samples = {m: rng.normal(size=(n_draws, 4, 5)) for m in ("loo", "ats")}
        for limits in correlation_intervals(samples, estimates_of(samples)).values():
            for frame in limits:
                assert frame.isna().all(axis=None) == (n_draws == 2)
                assert frame.isna().any(axis=None) == (n_draws == 2)


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_a_constant_method_has_no_correlation_interval(rng, value):
    samples = {"loo": rng.normal(size=(7, 4, 5)), "gd": np.full((7, 4, 5), value)}
    for low, high in correlation_intervals(samples, estimates_of(samples)).values():
        assert np.isnan([low.loc["loo", "gd"], high.loc["gd", "loo"]]).all()
        assert low.loc["loo", "loo"] == pytest.approx(1)


def rows_of(samples, n_train, seed=1):
    return Rows(samples.shape[1], n_train, seed)


def test_all_rows_add_nothing(rng):
    samples = rng.normal(size=(5, 6, 7))
    plain, found = pair_means(samples, TESTS), pair_means(samples, TESTS, rows_of(samples, 6))
    for name in plain:
        assert found[name].value == plain[name].value
        assert found[name].drawn.tolist() == plain[name].drawn.tolist()


@pytest.mark.parametrize(("n_scored", "n_train"), [(2, 3), (12, 40), (12, 60_000), (39, 40)])
def test_rows_add_the_variance_of_a_sample_without_replacement(rng, n_scored, n_train):
    """(1 − K / n) s² / K, of many more resamples than are drawn for an interval."""
    means = rng.normal(size=(n_scored, 2)) * [1, 100]
    drawn = [Rows(n_scored, n_train, seed).deviations(means) for seed in range(200)]
    assert all(one.shape == (N_RESAMPLES, 2) for one in drawn)
    expected = (1 - n_scored / n_train) * means.var(axis=0, ddof=1) / n_scored
    np.testing.assert_allclose(np.concatenate(drawn).var(axis=0), expected, rtol=0.06)


def test_a_single_row_does_not_tell(rng):
    samples = rng.normal(size=(5, 1, 7))
    found = pair_means(samples, TESTS, rows_of(samples, 30))
    for estimate in found.values():
        assert np.isfinite(estimate.value)
        assert np.isnan(estimate.interval()).all()
        assert (estimate - Estimate(9.0, np.zeros(N_RESAMPLES), 5)).sign == 0
    assert np.isfinite(pair_means(samples, TESTS, rows_of(samples, 1))["mean_std"].interval()).all()


def test_rows_that_both_have_are_no_part_of_a_difference(rng):
    """What other rows would change of both is paired; of other rows it is not."""
    samples = 9 + np.arange(12)[:, None] ** 2 + 0.01 * rng.normal(size=(5, 12, 7))
    own = pair_means(samples, TESTS, rows_of(samples, 90))["mean_abs_mean"]
    same = pair_means(samples + 1, TESTS, rows_of(samples, 90))["mean_abs_mean"]
    others = pair_means(samples + 1, TESTS, rows_of(samples, 90, seed=2))["mean_abs_mean"]
    assert (same - own).interval() == pytest.approx((1, 1), abs=0.01)
    assert (others - own).sign == 0


def test_intervals_hold_the_mean_over_rows_that_are_not_scored(rng):
    """Rows differ much in how far they are noise: without what they add most intervals miss."""
    n_draws, n_train, n_scored, n_runs = 10, 60, 12, 100
    signal = np.where(np.arange(n_train) % 3 == 0, 3.0, 0.0)[:, None]

    def draw():
        return signal + rng.normal(size=(n_draws, n_train, 8))

    truth = np.mean([pvalues(draw()).mean() for _ in range(200)])
    held = {True: 0, False: 0}
    for _ in range(n_runs):
        scored = rng.choice(n_train, n_scored, replace=False)
        samples = draw()[:, scored]
        for counted in held:
            rows = rows_of(samples, n_train, rng.integers(2**60)) if counted else None
            low, high = pair_means(samples, ("ttest",), rows)["mean_pvalue_ttest"].interval()
            held[counted] += low <= truth <= high
    assert held[True] >= 90
    assert held[False] < 80


def test_resamples_of_some_pairs_have_the_spread_of_all(monkeypatch):
    """Of pairs that vary together, as they do by a seed's scale, and each on its own."""
    rng = np.random.default_rng(0)
    scale = rng.lognormal(sigma=0.5, size=(10, 1, 1))
    samples = scale * (rng.normal(0.5, 1, size=(1, 60, 50)) + rng.normal(size=(10, 60, 50)))
    other = samples + rng.normal(size=samples.shape)
    everything = pair_means(samples, ("ttest",))["mean_pvalue_ttest"]
    of_both = {"loo": samples, "gd": other}
    estimates = correlation_matrices(pair_statistics(of_both))
    low, high = correlation_intervals(of_both, estimates)["mean", "spearman"]
    monkeypatch.setattr(rows_module, "MOST_PAIRS", 1000)
    some = pair_means(samples, ("ttest",))["mean_pvalue_ttest"]
    assert some.value == everything.value
    assert np.std(some.drawn) == pytest.approx(np.std(everything.drawn), rel=0.15)
    few_low, few_high = correlation_intervals(of_both, estimates)["mean", "spearman"]
    width, few_width = ((b - a).loc["loo", "gd"] for a, b in ((low, high), (few_low, few_high)))
    assert few_width == pytest.approx(width, rel=0.4)
    assert some_pairs(samples).shape == (10, 1000)
