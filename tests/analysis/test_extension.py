"""Few draws held against many: naive loops, and planted answers."""

import numpy as np
import pytest
from scipy.stats import spearmanr, ttest_1samp

from src.analysis.extension import compare_few_with_many, few_of


def drawn(n_draws, n_pairs, effect, seed=0):
    rng = np.random.default_rng(seed)
    return effect + rng.normal(size=(n_draws, n_pairs, 1))


def naive(samples, group):
    """What one group of seeds says, a pair at a time."""
    others = [t for t in range(len(samples)) if t not in group]
    kept, rest, n_significant = [], [], 0
    for pair in np.ndindex(samples.shape[1:]):
        values = samples[(list(group), *pair)]
        same = (values.mean() > 0) == (samples[(others, *pair)].mean() > 0)
        significant = ttest_1samp(values, 0).pvalue < 0.05
        n_significant += significant
        (kept if significant else rest).append(same)
    means = [samples[list(g)].mean(axis=0).ravel() for g in (group, others)]
    return {
        "significant": n_significant / samples[0].size,
        "sign_kept": np.mean(kept),
        "sign_kept_rest": np.mean(rest),
        "rank_correlation": spearmanr(*means).statistic,
    }


@pytest.mark.parametrize(("n_draws", "few"), [(12, 4), (13, 4), (8, 4), (7, 3)])
def test_each_group_is_held_against_all_other_seeds(n_draws, few):
    rng = np.random.default_rng(1)
    samples = drawn(n_draws, 60, rng.normal(size=(60, 1)))
    found = compare_few_with_many(samples, few, 0.05)
    assert list(found.index) == [*range(1, n_draws // few + 1), "all"]
    for k in range(n_draws // few):
        expected = naive(samples, range(k * few, (k + 1) * few))
        for name, value in expected.items():
            assert found.loc[k + 1, name] == pytest.approx(value), name
    p = ttest_1samp(samples, 0, axis=0).pvalue
    assert found.loc["all", "mean_pvalue"] == pytest.approx(p.mean())
    assert found.loc["all", "draws"] == n_draws
    assert np.isnan(found.loc["all", "sign_kept"])


def test_significant_again_is_asked_of_the_next_group():
    samples = drawn(9, 200, 0.8)
    found = compare_few_with_many(samples, 3, 0.05)
    significant = [ttest_1samp(samples[k : k + 3], 0, axis=0).pvalue < 0.05 for k in (0, 3, 6)]
    for k in range(3):
        expected = significant[(k + 1) % 3][significant[k]].mean()
        assert found.loc[k + 1, "significant_again"] == pytest.approx(expected)


def test_of_noise_the_sign_is_kept_by_chance_and_of_an_effect_always():
    noise = compare_few_with_many(drawn(100, 4000, 0.0), 10, 0.05).drop(index="all").mean()
    assert noise["sign_kept"] == pytest.approx(0.5, abs=0.04)
    assert noise["significant"] == pytest.approx(0.05, abs=0.01)
    assert noise["rank_correlation"] == pytest.approx(0, abs=0.02)
    effect = compare_few_with_many(drawn(100, 500, 3.0), 10, 0.05).drop(index="all").mean()
    assert effect["sign_kept"] == 1
    assert effect["significant"] == 1
    assert np.isnan(effect["sign_kept_rest"])


def test_ten_are_few_or_half_of_what_there_is():
    assert [few_of(n) for n in (4, 7, 19, 20, 100)] == [2, 3, 9, 10, 10]
    with pytest.raises(ValueError, match="5 of 9 seeds"):
        compare_few_with_many(drawn(9, 2, 0.0), 5, 0.05)
