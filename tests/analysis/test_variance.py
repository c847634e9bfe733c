"""Variance components and ratios on planted ones, and against loops."""

import numpy as np
import pytest

from src.analysis.bootstrap import seed_resamples
from src.analysis.variance import (
    variance_by_source,
    variance_components,
    variance_components_table,
)

NAMES = ("between", "within", "share_between")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def planted(rng, between, within, shape):
    """Scores (T, C, n_train, n_test) with these variances, and a mean for each pair."""
    t, c, j, z = shape
    seeds = np.sqrt(between) * rng.normal(size=(t, 1, j, z))
    return 5 * rng.normal(size=(j, z)) + seeds + np.sqrt(within) * rng.normal(size=(t, c, j, z))


def naive_components(scores):
    """One-way analysis of variance by its sums of squares, pair by pair; averaged over pairs."""
    n_draws, n_checkpoints = scores.shape[:2]
    between, within = [], []
    for j, z in np.ndindex(scores.shape[2:]):
        table = scores[:, :, j, z].astype(np.float64)
        grand = sum(table[t, c] for t, c in np.ndindex(table.shape)) / table.size
        ss_between = ss_within = 0.0
        for t in range(n_draws):
            mean = sum(table[t]) / n_checkpoints
            ss_between += n_checkpoints * (mean - grand) ** 2
            ss_within += sum((value - mean) ** 2 for value in table[t])
        ms_within = ss_within / (n_draws * (n_checkpoints - 1))
        within.append(ms_within)
        between.append((ss_between / (n_draws - 1) - ms_within) / n_checkpoints)
    return np.mean(between), np.mean(within)


@pytest.mark.parametrize("shape", [(10, 5, 3, 4), (2, 2, 3, 1), (3, 4, 1, 1), (4, 3, 6, 5)])
@pytest.mark.parametrize("offset", [0, 1e6])
def test_components_equal_the_analysis_of_variance(rng, shape, offset):
    scores = planted(rng, 2, 3, shape) + offset
    between, within = naive_components(scores)
    assert between > 0
    result = variance_components(scores)
    rel = 1e-9 if offset == 0 else 1e-6
    assert result["between"] == pytest.approx(between, rel=rel)
    assert result["within"] == pytest.approx(within, rel=rel)
    assert result["share_between"] == pytest.approx(between / (between + within), rel=rel)


def test_float32_scores_are_computed_in_float64(rng):
    scores = (planted(rng, 1e-3, 1e-3, (10, 5, 4, 5)) + 100).astype(np.float32)
    between, within = naive_components(scores)
    result = variance_components(scores)
    assert result["between"] == pytest.approx(between, rel=1e-6)
    assert result["within"] == pytest.approx(within, rel=1e-6)


@pytest.mark.parametrize(("between", "within"), [(2, 3), (0.1, 4), (4, 0.1)])
@pytest.mark.parametrize("n_draws", [3, 10])
def test_planted_components_are_found(rng, between, within, n_draws):
    n_checkpoints, n_pairs = 5, 3000
    result = variance_components(
        planted(rng, between, within, (n_draws, n_checkpoints, 60, n_pairs // 60))
    )
    # Mean squares are independent multiples of chi-squares: variance 2 MS² / degrees of freedom.
    ms_within, df_within = within, n_draws * (n_checkpoints - 1)
    ms_between, df_between = within + n_checkpoints * between, n_draws - 1
    var_within = 2 * ms_within**2 / df_within / n_pairs
    var_between = (2 * ms_between**2 / df_between / n_pairs + var_within) / n_checkpoints**2
    assert result["within"] == pytest.approx(within, abs=4 * np.sqrt(var_within))
    assert result["between"] == pytest.approx(between, abs=4 * np.sqrt(var_between))
    share = between / (between + within)
    # To first order, and as if the two were fully dependent.
    slopes = (1 - share) * np.sqrt(var_between) + share * np.sqrt(var_within)
    assert result["share_between"] == pytest.approx(share, abs=4 * slopes / (between + within))


def test_noise_of_checkpoints_alone_is_within(rng):
    n_runs, clear = 40, 0
    for _ in range(n_runs):
        result = variance_components(planted(rng, 0, 1, (10, 5, 20, 25)))
        # See above: 4 standard errors of `between` are 4 * sqrt((2 / 9 + 2 / 40) / 500) / 5.
        assert 0 <= result["between"] < 0.019
        assert 0 <= result["share_between"] < 0.019
        clear += result["between_low"] == result["share_between_low"] == 0
        assert result["between_high"] < 0.1
    assert clear >= 0.84 * n_runs  # 0.975 less 4 standard errors, rounded down


def test_a_negative_estimate_counts_as_zero():
    # The means of both seeds are equal, so the plain estimate is -within / C.
    scores = np.array([[1.0, -1.0], [-1.0, 1.0], [2.0, -2.0]])[..., None, None]
    result = variance_components(scores)
    assert result["between"] == result["share_between"] == 0
    assert result["within"] == pytest.approx((2 + 2 + 8) / 3)


def test_equal_checkpoints_leave_all_between_seeds(rng):
    scores = np.repeat(rng.normal(size=(6, 1, 3, 4)), 5, axis=1)
    result = variance_components(scores)
    assert result["between"] == pytest.approx(scores[:, 0].var(axis=0, ddof=1).mean())
    assert result["within"] == pytest.approx(0, abs=1e-25)
    assert result["share_between"] == pytest.approx(1)
    assert result["share_between_high"] <= 1


@pytest.mark.parametrize("value", [0.0, 0.1, -1e6 / 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_components_of_constants(value, dtype):
    # The mean of seven times 0.1 is not quite 0.1.
    result = variance_components(np.full((7, 7, 2, 3), value, dtype=dtype))
    for name in ("between", "within"):
        assert result[name] == result[f"{name}_low"] == result[f"{name}_high"] == 0
    assert np.isnan([result[f"share_between{end}"] for end in ("", "_low", "_high")]).all()


@pytest.mark.parametrize("n_draws", [3, 10])
def test_limits_are_those_of_repeated_seeds(rng, n_draws):
    scores = planted(rng, 2, 3, (n_draws, 4, 5, 6))
    result = variance_components(scores)
    drawn = []
    for count in seed_resamples(n_draws):
        between, within = naive_components(np.repeat(scores, count, axis=0))
        drawn.append([between, within, between / (between + within)])
    for name, error, most in zip(NAMES, np.std(drawn, axis=0, ddof=1), (9e9, 9e9, 1), strict=True):
        reach = 1.959964 * error
        assert result[f"{name}_low"] == pytest.approx(max(result[name] - reach, 0), abs=1e-6)
        assert result[f"{name}_high"] == pytest.approx(min(result[name] + reach, most), abs=1e-6)


def test_limits_hold_the_planted_components(rng):
    """Five common factors make up half of the variance of the seeds' effects on pairs."""
    n_runs, held = 100, np.zeros(3)
    loadings = rng.normal(size=(5, 60))
    loadings /= np.sqrt((loadings**2).sum(axis=0))
    for _ in range(n_runs):
        seeds = rng.normal(size=(10, 5)) @ loadings + rng.normal(size=(10, 60))
        scores = seeds[:, None, None] + np.sqrt(3) * rng.normal(size=(10, 5, 1, 60))
        result = variance_components(scores)
        for k, (name, truth) in enumerate(zip(NAMES, (2, 3, 0.4), strict=True)):
            held[k] += result[f"{name}_low"] <= truth <= result[f"{name}_high"]
    assert (held / n_runs >= 0.86).all()  # 0.95 less 4 standard errors of 100 runs


def test_a_share_is_at_most_one(rng):
    result = variance_components(planted(rng, 2, 1, (3, 2, 1, 1)))
    assert result["share_between"] < result["share_between_high"] == 1


def test_two_seeds_have_estimates_but_no_limits(rng):
    result = variance_components(planted(rng, 2, 3, (2, 5, 3, 4)))
    for name in NAMES:
        assert np.isfinite(result[name])
        assert np.isnan([result[f"{name}_low"], result[f"{name}_high"]]).all()


def test_one_checkpoint_cannot_tell_the_two_apart(rng):
    scores = planted(rng, 2, 3, (10, 1, 40, 50))
    result = variance_components(scores)
    assert result["between"] == pytest.approx(scores[:, 0].var(axis=0, ddof=1).mean())
    # The sum of both, known within 4 * 5 * sqrt(2 / 9 / 2000).
    assert result["between"] == pytest.approx(5, abs=0.22)
    assert 0 < result["between_low"] < result["between"] < result["between_high"]
    for name in ("within", "share_between"):
        assert np.isnan([result[f"{name}{end}"] for end in ("", "_low", "_high")]).all()


def test_table_has_a_row_per_method_whatever_its_seeds(rng):
    scores = {"loo": planted(rng, 1, 1, (10, 5, 3, 4)), "gc": planted(rng, 1, 1, (2, 5, 3, 4))}
    table = variance_components_table(scores)
    assert table.index.name == "method"
    assert list(table.index) == ["loo", "gc"]
    assert list(table.columns) == [f"{n}{end}" for n in NAMES for end in ("", "_low", "_high")]
    for method, values in scores.items():
        expected = variance_components(values)
        np.testing.assert_array_equal(table.loc[method], [expected[c] for c in table.columns])


def test_planted_ratios_of_sources_are_found(rng):
    n_pairs = 2000
    variances = {"both": 4.0, "init": 3.0, "batch": 1.0}
    seeds = {"both": 10, "init": 10, "batch": 7}
    samples = {
        s: {"loo": 7 + np.sqrt(v) * rng.normal(size=(seeds[s], 40, 50))}
        for s, v in variances.items()
    }
    row = variance_by_source(samples).loc["loo"]
    error = {s: np.sqrt(2 / (seeds[s] - 1) / n_pairs) for s in variances}  # of the logarithm
    for s, variance in variances.items():
        assert row[f"variance_{s}"] == pytest.approx(variance, rel=4 * error[s])
    for s in ("init", "batch"):
        ratio = variances[s] / 4
        rel = 4 * np.hypot(error[s], error["both"])
        assert row[f"{s}_to_both"] == pytest.approx(ratio, rel=rel)
        assert row[f"{s}_to_both_low"] < ratio < row[f"{s}_to_both_high"]
    assert "both_to_both" not in row


def test_limits_of_ratios_are_those_of_repeated_seeds(rng):
    samples = {s: {"if": rng.normal(size=(n, 3, 4))} for s, n in (("both", 8), ("init", 5))}
    row = variance_by_source(samples).loc["if"]
    logs = {}
    for s, by_method in samples.items():
        drawn = [
            np.log(np.repeat(by_method["if"], count, axis=0).var(axis=0, ddof=1).mean())
            for count in seed_resamples(len(by_method["if"]))
        ]
        logs[s] = np.log(by_method["if"].var(axis=0, ddof=1).mean()), np.std(drawn, ddof=1)
    ratio = logs["init"][0] - logs["both"][0]
    reach = 1.959964 * np.hypot(logs["init"][1], logs["both"][1])
    assert row.init_to_both == pytest.approx(np.exp(ratio))
    assert row.init_to_both_low == pytest.approx(np.exp(ratio - reach), rel=1e-6)
    assert row.init_to_both_high == pytest.approx(np.exp(ratio + reach), rel=1e-6)


def test_sources_without_a_method_leave_it_out(rng):
    values = {m: rng.normal(size=(4, 2, 3)) for m in ("loo", "ats", "gd")}
    samples = {"both": values, "batch": {m: values[m] for m in ("gd", "loo", "ats") if m != "ats"}}
    table = variance_by_source(samples)
    assert list(table.index) == ["loo", "gd"]
    assert table.index.name == "method"
    np.testing.assert_allclose(table.batch_to_both, 1)
    assert not any(column.startswith("init") for column in table)


def test_sources_with_two_seeds_have_no_limits(rng):
    samples = {s: {"gd": rng.normal(size=(n, 2, 3))} for s, n in (("both", 10), ("init", 2))}
    row = variance_by_source(samples).loc["gd"]
    assert np.isfinite(row.init_to_both)
    assert np.isnan([row.init_to_both_low, row.init_to_both_high]).all()


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_a_constant_source_has_no_ratio(rng, value):
    samples = {
        "both": {"gd": rng.normal(size=(10, 2, 3))},
        "init": {"gd": np.full((7, 2, 3), value)},
    }
    row = variance_by_source(samples).loc["gd"]
    assert row.variance_init == 0
    assert np.isnan(row[["init_to_both", "init_to_both_low", "init_to_both_high"]]).all()
