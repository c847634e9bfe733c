"""Stability on noise and signal, and power against simulation and tabulated values."""

import tracemalloc
from itertools import combinations

import numpy as np
import pytest
import scipy.stats

from src.analysis.draws_needed import (
    MOST_DRAWS,
    POWER,
    draws_for_power,
    numbers_of_draws,
    power,
    power_table,
    stability,
)
from src.analysis.stats import draw_samples, pvalues
from src.reports.reading import words_of_draws


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def row(table, draws, checkpoints):
    (result,) = table.query(f"draws == {draws} and checkpoints == {checkpoints}").itertuples()
    return result


def test_stability_has_a_row_for_each_number(rng):
    table = stability(rng.normal(size=(4, 3, 5, 6)), 0.05)
    keys = list(zip(table.draws, table.checkpoints, strict=True))
    assert keys == [(n, k) for k in (1, 2, 3) for n in (2, 3, 4)]


def test_stability_with_all_seeds_is_the_test_itself(rng):
    scores = rng.normal(size=(6, 3, 20, 30)) + 0.5
    table = stability(scores, 0.1)
    for k in (1, 2, 3):
        p = pvalues(draw_samples(scores, k))
        assert row(table, 6, k).mean_pvalue == pytest.approx(p.mean(), rel=1e-12)
        assert row(table, 6, k).significant == pytest.approx((p < 0.1).mean(), rel=1e-12)


def test_stability_with_one_seed_less_is_the_mean_over_all_subsets(rng):
    scores = rng.normal(size=(5, 1, 7, 8)) + 1
    p = [pvalues(scores[list(c), 0]) for c in combinations(range(5), 4)]
    result = row(stability(scores, 0.05), 4, 1)
    assert result.mean_pvalue == pytest.approx(np.mean(p), rel=1e-12)
    assert result.significant == pytest.approx((np.array(p) < 0.05).mean(), rel=1e-12)


def test_stability_on_noise(rng):
    n_pairs = 2500
    table = stability(rng.normal(size=(6, 2, 50, 50)), 0.05)
    # Each number averages at least one subset of independent pairs: 4 standard errors.
    assert table.mean_pvalue.to_numpy() == pytest.approx(0.5, abs=4 / np.sqrt(12 * n_pairs))
    error = 4 * np.sqrt(0.05 * 0.95 / n_pairs)
    assert table.significant.to_numpy() == pytest.approx(0.05, abs=error)
    assert table.rank_correlation.to_numpy() == pytest.approx(0, abs=4 / np.sqrt(n_pairs))


def test_stability_on_signal(rng):
    pairs = rng.normal(size=(30, 30))
    pairs += np.sign(pairs)  # none near 0
    table = stability(pairs + 0.01 * rng.normal(size=(5, 1, 30, 30)), 0.05)
    assert table.rank_correlation.min() > 0.999
    assert table[table.draws == 2].significant.item() > 0.95
    assert table[table.draws == 5].significant.item() == 1


def test_rank_correlation_of_halves_is_the_planted_one(rng):
    """Means of n/2 seeds correlate as signal / (signal + noise / (n/2)): Spearman and Brown."""
    scores = rng.normal(size=(60, 60)) + 2 * rng.normal(size=(8, 1, 60, 60))
    table = stability(scores, 0.05)
    for n in (2, 4, 8):
        pearson = 1 / (1 + 4 / (n // 2))
        spearman = 6 / np.pi * np.arcsin(pearson / 2)  # of normal scores
        assert row(table, n, 1).rank_correlation == pytest.approx(spearman, abs=4 / 60)
    # Of an odd number one half has one more.
    pearson = 1 / np.sqrt((1 + 4) * (1 + 4 / 2))
    expected = 6 / np.pi * np.arcsin(pearson / 2)
    assert row(table, 3, 1).rank_correlation == pytest.approx(expected, abs=4 / 60)


@pytest.mark.parametrize("n_draws", [2, 5, 6])
def test_rank_correlations_are_those_of_every_rotation(rng, n_draws):
    scores = rng.normal(size=(n_draws, 2, 7, 8)) + rng.normal(size=(7, 8))
    order = np.random.default_rng(0).permutation(n_draws)
    for result in stability(scores, 0.05).itertuples():
        samples = draw_samples(scores, result.checkpoints)
        expected = []
        for shift in range(n_draws):
            seeds = np.roll(order, -shift)[: result.draws]
            halves = (samples[half].mean(axis=0).ravel() for half in np.array_split(seeds[::-1], 2))
            expected.append(scipy.stats.spearmanr(*halves).statistic)
        assert result.rank_correlation == pytest.approx(np.mean(expected), rel=1e-12)


@pytest.mark.parametrize(
    ("most", "numbers"),
    [
        (2, [2]),
        (10, [*range(2, 11)]),
        (11, [*range(2, 12)]),
        (12, [*range(2, 11), 12]),
        (37, [*range(2, 11), 12, 15, 20, 25, 30, 37]),
        (100, [*range(2, 11), 12, 15, 20, 25, 30, 40, 50, 60, 80, 100]),
        (101, [*range(2, 11), 12, 15, 20, 25, 30, 40, 50, 60, 80, 100, 101]),
    ],
)
def test_numbers_of_draws(most, numbers):
    assert numbers_of_draws(most) == numbers
    assert numbers_of_draws(10 * most)[-1] == 10 * most


@pytest.mark.parametrize("n_draws", [11, 37, 100])
def test_many_seeds_are_read_in_ten_rotations(rng, n_draws):
    scores = rng.normal(size=(n_draws, 2, 3, 4)) + rng.normal(size=(3, 4))
    order = np.random.default_rng(0).permutation(n_draws).tolist()
    table = stability(scores, 0.05)
    assert table["draws"].tolist() == 2 * numbers_of_draws(n_draws)
    for result in table.itertuples():
        samples, expected = draw_samples(scores, result.checkpoints), []
        for k in range(10):
            start = k * n_draws // 10
            seeds = (order[start:] + order[:start])[: result.draws]
            half = result.draws // 2
            p = scipy.stats.ttest_1samp(samples[seeds], 0).pvalue
            halves = (samples[half].mean(axis=0).ravel() for half in (seeds[:half], seeds[half:]))
            rank_correlation = scipy.stats.spearmanr(*halves).statistic
            expected.append((p.mean(), (p < 0.05).mean(), rank_correlation))
        found = result.mean_pvalue, result.significant, result.rank_correlation
        assert found == pytest.approx(np.mean(expected, axis=0), rel=1e-9)


def test_stability_of_many_seeds_takes_little_memory(rng):
    scores = rng.normal(size=(100, 1, 40, 50))
    tracemalloc.start()
    try:
        stability(scores, 0.05)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 8 * scores.nbytes


def test_every_seed_counts_alike(rng):
    """A pair that one seed alone decides: significant in as many subsets as hold that seed."""
    rows = []
    for special in range(5):
        scores = np.ones((5, 1, 1, 1)) + 1e-6 * rng.normal(size=(5, 1, 1, 1))
        scores[special] = -5
        rows.append(row(stability(scores, 0.05), 2, 1).significant)
    # Two rotations out of five begin with a pair that holds the seed, and it is not significant.
    assert rows == pytest.approx([3 / 5] * 5)


@pytest.mark.parametrize(("value", "p"), [(0.0, 1), (0.1, 0)])
def test_stability_of_constants(value, p):
    table = stability(np.full((3, 2, 2, 3), value), 0.05)
    assert (table.mean_pvalue == p).all()
    assert (table.significant == 1 - p).all()
    assert table.rank_correlation.isna().all()


def test_stability_of_two_seeds_and_one_checkpoint(rng):
    scores = rng.normal(size=(2, 1, 4, 5)).astype(np.float32)
    (result,) = stability(scores, 0.05).itertuples()
    assert (result.draws, result.checkpoints) == (2, 1)
    expected = scipy.stats.spearmanr(scores[0, 0].ravel(), scores[1, 0].ravel()).statistic
    assert result.rank_correlation == pytest.approx(expected)


@pytest.mark.parametrize(
    ("effect", "n_draws", "alpha"),
    [(0, 2, 0.05), (0, 10, 0.3), (1, 2, 0.05), (20, 2, 0.05), (1, 10, 0.05), (0.5, 30, 0.01)],
)
def test_power_is_that_of_simulated_samples(rng, effect, n_draws, alpha):
    n_pairs = 50_000
    found = (pvalues(rng.normal(size=(n_draws, n_pairs)) + effect) < alpha).mean()
    expected = power(effect, n_draws, alpha)
    error = 4 * np.sqrt(expected * (1 - expected) / n_pairs)
    assert found == pytest.approx(expected, abs=error)


def test_power_of_published_tables():
    """Sizes for 80 % by G*Power and statsmodels: d = 0.2, 0.5, 0.8 take 199, 34 and 15."""
    for effect, n_draws in ((0.2, 199), (0.5, 34), (0.8, 15)):
        assert power(effect, n_draws, 0.05) >= 0.8 > power(effect, n_draws - 1, 0.05)
    assert power(0.5, 34, 0.05) == pytest.approx(0.8078, abs=0.0001)


@pytest.mark.parametrize("n_draws", [2, 3, 10, 50])
def test_power_equals_the_noncentral_t(n_draws):
    critical = scipy.stats.t.isf(0.025, n_draws - 1)
    for effect in (0.1, 0.5, 1, 2) if n_draws > 2 else (0.5, 2, 10):
        t = scipy.stats.nct(n_draws - 1, np.sqrt(n_draws) * effect)
        expected = t.sf(critical) + t.cdf(-critical)
        assert power(effect, n_draws, 0.05) == pytest.approx(expected, rel=1e-6)


def test_power_of_huge_effects():
    assert power(np.inf, 2, 0.05) == power(1e100, 10, 0.05) == 1
    # Two samples whose mean is sure: |mean| / |half their difference| > t, Student's t being 6e4.
    for effect, rel in ((7.0e3, 1e-6), (7.1e3, 1e-6), (1e5, 1e-9)):
        critical = scipy.stats.t.isf(0.5e-5, 1)
        expected = scipy.stats.halfnorm.cdf(np.sqrt(2) * effect / critical)
        assert power(effect, 2, 1e-5) == pytest.approx(expected, rel=rel)


@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_draws_for_power_is_the_least_number(alpha):
    effects = np.array([0.35, 0.45, 0.5, 0.7, 0.94, 1.0, 1.7, 3.0, 7.0, 20.0])
    for effect, needed in zip(effects, draws_for_power(effects, alpha), strict=True):
        enough = [n for n in range(2, 51) if power(effect, n, alpha) >= POWER]
        if enough:
            assert needed == enough[0]
        else:
            assert needed > 50


@pytest.mark.parametrize("effect", [0.05, 0.1, 0.2, 0.35])
def test_draws_for_power_beyond_fifty_is_at_most_a_step_too_large(effect):
    (needed,) = draws_for_power(np.array([effect]), 0.05)
    assert needed > 50
    assert power(effect, needed, 0.05) >= POWER > power(effect, int(needed / 1.05) - 1, 0.05)


def test_stronger_effects_need_no_more_draws():
    needed = draws_for_power(np.geomspace(0.01, 20, 2000).reshape(40, 50), 0.05)
    assert needed.shape == (40, 50)
    assert needed.dtype == np.int64
    assert (np.diff(needed.ravel()) <= 0).all()
    assert set(range(3, 51)) <= set(needed.ravel())


@pytest.mark.parametrize("alpha", [1e-5, 0.05, 0.5, 0.79])
def test_effects_without_end_and_without_size(alpha):
    needed = draws_for_power(np.array([np.inf, 1e9, 0.0, 1e-9]), alpha)
    assert needed.tolist() == [2, 2, MOST_DRAWS, MOST_DRAWS]


@pytest.mark.parametrize("alpha", [0.8, 0.9])
def test_a_level_above_the_power_finds_noise(alpha):
    assert draws_for_power(np.array([0.0, 1.0]), alpha).tolist() == [2, 2]


def test_power_table_of_planted_effects(rng):
    # Three seeds with these deviations have a standard deviation of 1 around their mean.
    deviations = np.array([-1.0, 0, 1])[:, None, None]
    # 0.5 takes 34 seeds, 1 takes 10, 0.8 takes 15: a quarter of the pairs 10, half 15, the rest 34.
    effects = np.array([[1.0, -1, 0.8, 0.8, -0.8, 0.5, 0.5, -0.5]])
    result = power_table({"loo": deviations + effects, "gd": deviations - effects}, 0.05)
    assert result.index.tolist() == ["loo", "gd", "noise"]
    for method in ("loo", "gd"):
        found = result.loc[method]
        assert found.median_effect == pytest.approx(0.8)
        assert found["draws_for_25%"] == 10  # two of eight
        assert found["draws_for_50%"] == 15
        assert found["draws_for_75%"] == 34
        assert found.found_by_10 == 0.25
        assert found.found_by_50 == 1


@pytest.mark.parametrize("n_draws", [2, 10])
def test_power_table_says_what_noise_would_show(rng, n_draws):
    samples = {"loo": rng.normal(size=(n_draws, 100, 100)), "gc": rng.normal(size=(3, 4, 5))}
    table = power_table(samples, 0.05)
    loo, noise = table.loc["loo"], table.loc["noise"]
    # |t| / √T, of which the median is known; 4 standard errors of a median, 1 / (2 √n density).
    t = scipy.stats.t(n_draws - 1)
    middle = t.isf(0.25)
    error = 4 / (2 * np.sqrt(10_000) * 2 * t.pdf(middle)) / np.sqrt(n_draws)
    for line in (loo, noise):
        assert line.median_effect == pytest.approx(middle / np.sqrt(n_draws), abs=error)
    # The difference of two shares of 10,000.
    assert loo.found_by_50 == pytest.approx(noise.found_by_50, abs=4 * np.sqrt(0.5 / 10_000))


def test_half_of_the_pairs_is_half_of_them():
    """Of the others nothing is known but that they need more."""
    samples = np.zeros((7, 2, 3))
    samples[:, 0] = 0.1
    row = power_table({"loo": samples}, 0.05).loc["loo"]
    assert row["draws_for_50%"] == 2
    assert row["found_by_10"] == 0.5
    assert row["draws_for_75%"] == MOST_DRAWS
    assert words_of_draws(row["draws_for_50%"]) == "2"
    assert words_of_draws(row["draws_for_75%"]) == f"{MOST_DRAWS} or more"


@pytest.mark.parametrize(("value", "needed"), [(0.0, MOST_DRAWS), (0.1, 2), (-3.0, 2)])
def test_power_table_of_constants(value, needed):
    table = power_table({"loo": np.full((7, 2, 3), value)}, 0.05)
    for share in ("25%", "50%", "75%"):
        assert table.loc["loo", f"draws_for_{share}"] == needed
    assert table.loc["loo", "found_by_10"] == (needed == 2)
    assert not table.isna().any(axis=None)
