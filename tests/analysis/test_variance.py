"""Variance components and ratios on planted ones, and against loops."""

import numpy as np
import pytest
from scipy.stats import t as student_t

from src.analysis.bootstrap import seed_resamples
from src.analysis.variance import (
    variance_by_source,
    variance_components,
    variance_components_table,
)

NAMES = ("between", "residual", "epoch", "share_between")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def planted(rng, between, residual, shape, epoch=1.0):
    """Scores (T, C, n_train, n_test) of these variances, a trend over epochs and a mean a pair."""
    t, c, j, z = shape
    seeds = np.sqrt(between) * rng.normal(size=(t, 1, j, z))
    trend = np.zeros(c) if c == 1 else np.arange(c) / np.arange(c).std(ddof=1)
    noise = np.sqrt(residual) * rng.normal(size=(t, c, j, z))
    common = 5 * rng.normal(size=(j, z)) + np.sqrt(epoch) * trend[:, None, None]
    return common + seeds + noise


def naive_components(scores):
    """Two-way analysis of variance by its sums of squares, pair by pair; averaged over pairs."""
    n_draws, n_checkpoints = scores.shape[:2]
    found = []
    for j, z in np.ndindex(scores.shape[2:]):
        table = scores[:, :, j, z].astype(np.float64)
        grand = sum(table[t, c] for t, c in np.ndindex(table.shape)) / table.size
        of_seed = [sum(row) / n_checkpoints for row in table]
        of_epoch = [sum(column) / n_draws for column in table.T]
        ms_seed = n_checkpoints * sum((m - grand) ** 2 for m in of_seed) / (n_draws - 1)
        ms_epoch = n_draws * sum((m - grand) ** 2 for m in of_epoch) / (n_checkpoints - 1)
        ms_residual = sum(
            (table[t, c] - of_seed[t] - of_epoch[c] + grand) ** 2
            for t, c in np.ndindex(table.shape)
        ) / ((n_draws - 1) * (n_checkpoints - 1))
        found.append(
            [
                (ms_seed - ms_residual) / n_checkpoints,
                ms_residual,
                (ms_epoch - ms_residual) / n_draws,
            ]
        )
    return np.mean(found, axis=0)


def test_what_an_epoch_does_to_all_seeds_is_no_scatter(rng):
    """Seeds of variance 1, a common trend of variance 1, noise 0.01: the share is 1 / 1.01."""
    result = variance_components(planted(rng, 1, 0.01, (10, 5, 50, 60), epoch=1))
    assert result["share_between"] == pytest.approx(1 / 1.01, abs=1e-3)
    assert result["epoch"] == pytest.approx(1, abs=0.01)
    assert result["residual"] == pytest.approx(0.01, rel=0.05)
    without = variance_components(planted(rng, 1, 0.01, (10, 5, 50, 60), epoch=0))
    assert without["share_between"] == pytest.approx(1 / 1.01, abs=1e-3)
    assert without["epoch"] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("shape", [(10, 5, 3, 4), (2, 2, 3, 1), (3, 4, 1, 1), (4, 3, 6, 5)])
@pytest.mark.parametrize("offset", [0, 1e6])
@pytest.mark.parametrize("at_once", [7, 4096])
def test_components_equal_the_analysis_of_variance(rng, shape, offset, at_once, monkeypatch):
    monkeypatch.setattr("src.analysis.variance._PAIRS_AT_ONCE", at_once)
    scores = planted(rng, 2, 3, shape) + offset
    between, residual, epoch = naive_components(scores)
    result = variance_components(scores)
    rel = 1e-9 if offset == 0 else 1e-6
    assert result["between"] == pytest.approx(max(between, 0), rel=rel)
    assert result["residual"] == pytest.approx(residual, rel=rel)
    assert result["epoch"] == pytest.approx(max(epoch, 0), rel=rel)
    share = max(between / (between + residual), 0)
    assert result["share_between"] == pytest.approx(share, rel=rel)


def test_float32_scores_are_computed_in_float64(rng):
    scores = (planted(rng, 1e-3, 1e-3, (10, 5, 4, 5)) + 100).astype(np.float32)
    between, residual, _ = naive_components(scores)
    result = variance_components(scores)
    assert result["between"] == pytest.approx(between, rel=1e-6)
    assert result["residual"] == pytest.approx(residual, rel=1e-6)


@pytest.mark.parametrize(("between", "within"), [(2, 3), (0.1, 4), (4, 0.1)])
@pytest.mark.parametrize("n_draws", [3, 10])
def test_planted_components_are_found(rng, between, within, n_draws):
    n_checkpoints, n_pairs = 5, 3000
    result = variance_components(
        planted(rng, between, within, (n_draws, n_checkpoints, 60, n_pairs // 60))
    )
    # Mean squares are independent multiples of chi-squares: variance 2 MS² / degrees of freedom.
    ms_within, df_within = within, (n_draws - 1) * (n_checkpoints - 1)
    ms_between, df_between = within + n_checkpoints * between, n_draws - 1
    var_within = 2 * ms_within**2 / df_within / n_pairs
    var_between = (2 * ms_between**2 / df_between / n_pairs + var_within) / n_checkpoints**2
    assert result["residual"] == pytest.approx(within, abs=4 * np.sqrt(var_within))
    assert result["between"] == pytest.approx(between, abs=4 * np.sqrt(var_between))
    share = between / (between + within)
    # To first order, and as if the two were fully dependent.
    slopes = (1 - share) * np.sqrt(var_between) + share * np.sqrt(var_within)
    assert result["share_between"] == pytest.approx(share, abs=4 * slopes / (between + within))


def test_noise_of_checkpoints_alone_is_within(rng):
    n_runs, clear = 40, 0
    for _ in range(n_runs):
        result = variance_components(planted(rng, 0, 1, (10, 5, 20, 25)))
        # See above: 4 standard errors of `between` are 4 * sqrt((2 / 9 + 2 / 36) / 500) / 5.
        assert 0 <= result["between"] < 0.019
        assert 0 <= result["share_between"] < 0.019
        clear += result["between_low"] == result["share_between_low"] == 0
        assert result["between_high"] < 0.1
    assert clear >= 0.84 * n_runs  # 0.975 less 4 standard errors, rounded down


def test_a_negative_estimate_counts_as_zero():
    # The means of all seeds are equal, so the plain estimate is -residual / C.
    scores = np.array([[1.0, -1.0], [-1.0, 1.0], [2.0, -2.0]])[..., None, None]
    result = variance_components(scores)
    assert result["between"] == result["share_between"] == 0
    # Less the epochs' means of 2/3 and -2/3: deviations of 1/3, 5/3 and 4/3, each twice.
    assert result["residual"] == pytest.approx(2 * (1 + 25 + 16) / 9 / 2)


def test_equal_checkpoints_leave_all_between_seeds(rng):
    scores = np.repeat(rng.normal(size=(6, 1, 3, 4)), 5, axis=1)
    result = variance_components(scores)
    assert result["between"] == pytest.approx(scores[:, 0].var(axis=0, ddof=1).mean())
    assert result["residual"] == pytest.approx(0, abs=1e-25)
    assert result["epoch"] == pytest.approx(0, abs=1e-25)
    assert result["share_between"] == pytest.approx(1)
    assert result["share_between_high"] <= 1


@pytest.mark.parametrize("value", [0.0, 0.1, -1e6 / 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_components_of_constants(value, dtype):
    # The mean of seven times 0.1 is not quite 0.1.
    result = variance_components(np.full((7, 7, 2, 3), value, dtype=dtype))
    for name in ("between", "residual", "epoch"):
        assert result[name] == result[f"{name}_low"] == result[f"{name}_high"] == 0
    assert np.isnan([result[f"share_between{end}"] for end in ("", "_low", "_high")]).all()


@pytest.mark.parametrize("n_draws", [3, 10])
def test_limits_are_those_of_repeated_seeds(rng, n_draws):
    scores = planted(rng, 2, 3, (n_draws, 4, 5, 6))
    result = variance_components(scores)
    drawn = []
    for count in seed_resamples(n_draws):
        between, residual, epoch = naive_components(np.repeat(scores, count, axis=0))
        share = between / (between + residual)
        drawn.append([epoch, share, np.log(between + residual / 4), np.log(residual)])
    error_of_epoch, error_of_share, *errors = np.std(drawn, axis=0, ddof=1)
    t = student_t.isf(0.025, n_draws - 1)
    for name, error, most in (("epoch", error_of_epoch, 9e9), ("share_between", error_of_share, 1)):
        low, high = result[name] - t * error, result[name] + t * error
        assert result[f"{name}_low"] == pytest.approx(max(low, 0), abs=1e-6)
        assert result[f"{name}_high"] == pytest.approx(min(high, most), abs=1e-6)
    of_means, residual = result["between"] + result["residual"] / 4, result["residual"]
    (low, high), (least, most) = (
        (value * np.exp(-t * error), value * np.exp(t * error))
        for value, error in zip((of_means, residual), errors, strict=True)
    )
    assert result["residual_low"] == pytest.approx(least)
    assert result["residual_high"] == pytest.approx(most)
    down, up = (
        np.hypot(of_means - low, (most - residual) / 4),
        np.hypot(high - of_means, (residual - least) / 4),
    )
    assert result["between_low"] == pytest.approx(max(result["between"] - down, 0))
    assert result["between_high"] == pytest.approx(result["between"] + up)


@pytest.mark.parametrize("n_draws", [3, 5, 10])
@pytest.mark.parametrize("n_pairs", [1, 36])
def test_limits_hold_what_all_pairs_share(rng, n_draws, n_pairs):
    """Seeds and epochs do the same to all pairs, so that few numbers say how large it is."""
    n_runs, held = 100, np.zeros(2)
    for _ in range(n_runs):
        common = rng.normal(size=(n_draws, 1, 1, 1)) + rng.normal(size=(n_draws, 5, 1, 1))
        result = variance_components(common + 0.1 * rng.normal(size=(n_draws, 5, 1, n_pairs)))
        held[0] += result["between_low"] <= 1 <= result["between_high"]
        held[1] += result["residual_low"] <= 1.01 <= result["residual_high"]
    assert (held / n_runs >= 0.86).all()  # 0.95 less 4 standard errors of 100 runs


def test_limits_hold_the_planted_components(rng):
    """Five common factors make up half of the variance of the seeds' effects on pairs."""
    n_runs, held = 100, np.zeros(len(NAMES))
    trend = np.linspace(-1, 1, 5)[:, None, None]
    loadings = rng.normal(size=(5, 60))
    loadings /= np.sqrt((loadings**2).sum(axis=0))
    for _ in range(n_runs):
        seeds = rng.normal(size=(10, 5)) @ loadings + rng.normal(size=(10, 60))
        scores = seeds[:, None, None] + trend + np.sqrt(3) * rng.normal(size=(10, 5, 1, 60))
        result = variance_components(scores)
        truths = (2, 3, trend.var(ddof=1), 0.4)
        for k, (name, truth) in enumerate(zip(NAMES, truths, strict=True)):
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
    for name in ("residual", "epoch", "share_between"):
        assert np.isnan([result[f"{name}{end}"] for end in ("", "_low", "_high")]).all()


def test_table_has_a_row_per_method_whatever_its_seeds(rng):
    scores = {"loo": planted(rng, 1, 1, (10, 5, 3, 4)), "gc": planted(rng, 1, 1, (2, 5, 3, 4))}
    table = variance_components_table(scores)
    assert table.index.name == "method"
    assert list(table.index) == ["loo", "gc"]
    columns = [f"{n}{end}" for n in NAMES for end in ("", "_low", "_high")]
    assert list(table.columns) == ["draws", *columns]
    for method, values in scores.items():
        expected = {"draws": len(values)} | variance_components(values)
        np.testing.assert_array_equal(table.loc[method], [expected[c] for c in table.columns])


def test_planted_ratios_of_sources_are_found(rng):
    n_pairs = 2000
    variances = {"both": 4.0, "init": 3.0, "batch": 1.0}
    seeds = dict.fromkeys(variances, 10)
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
    assert row.init_to_batch == pytest.approx(row.init_to_both / row.batch_to_both)
    assert 1 < row.init_to_batch_low < row.init_to_batch < row.init_to_batch_high


def test_limits_of_ratios_are_those_of_repeated_seeds(rng):
    both = rng.normal(size=(8, 3, 4))
    samples = {"both": {"if": both}, "init": {"if": both + 0.5 * rng.normal(size=(8, 3, 4))}}
    row = variance_by_source(samples).loc["if"]

    def log_ratio(count):
        one, other = (np.repeat(samples[s]["if"], count, axis=0) for s in ("init", "both"))
        return np.log(one.var(axis=0, ddof=1).mean() / other.var(axis=0, ddof=1).mean())

    ratio = log_ratio(np.ones(8, dtype=int))
    # What a seed does under both sources alike is no part of it.
    reach = student_t.isf(0.025, 7) * np.std(
        [log_ratio(count) for count in seed_resamples(8)], ddof=1
    )
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
    samples = {s: {"gd": rng.normal(size=(2, 2, 3))} for s in ("both", "init")}
    row = variance_by_source(samples).loc["gd"]
    assert np.isfinite(row.init_to_both)
    assert np.isnan([row.init_to_both_low, row.init_to_both_high]).all()


@pytest.mark.parametrize("size", [0.0, 0.1, 1e6])
@pytest.mark.parametrize("n_draws", [2, 7, 10])
def test_sources_that_change_nothing(rng, size, n_draws):
    """Not even rounding is told from 0, and 0 of 0 is no ratio."""
    varied = rng.normal(size=(n_draws, 20, 30))
    # The mean of equal numbers is not always that number.
    constant = np.repeat(size * rng.normal(size=(1, 20, 30)), n_draws, axis=0)
    samples = {
        "both": {"gd": varied, "inputs": constant},
        "init": {"gd": varied, "inputs": constant},
        "batch": {"gd": constant, "inputs": constant},
    }
    table = variance_by_source(samples)
    assert (table.variance_batch == 0).all()
    assert table.loc["gd", "batch_to_both"] == 0
    assert table.loc["gd", "init_to_batch"] == np.inf
    limits = table.loc["gd", ["batch_to_both_high", "init_to_batch_low"]]
    if n_draws > 2:
        assert list(limits) == [0, np.inf]
    else:
        assert limits.isna().all()
    assert table.loc["inputs", "variance_both":].dropna().eq(0).all()
    assert table.loc["inputs", ["init_to_both", "batch_to_both", "init_to_batch"]].isna().all()
