"""Sentences of reports at the edges of what can come: nothing, everything, ties, one of many."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from src.analysis.distributions import Distributions
from src.experiments import parse_experiment
from src.reports.accuracy import report_accuracy
from src.reports.comparison.correlations import report_correlation_comparison
from src.reports.comparison.sources import report_sources
from src.reports.correlations import report_agreement, report_correlations
from src.reports.distributions import report_distributions
from src.reports.draws import DrawsReport
from src.reports.pairs import _reading_of_sheet, _sides
from src.reports.pvalues import report_pvalues
from src.reports.reading import kappa_text, words_of_rows
from tests.reports.test_accuracy import N_TEST, N_TRAIN, losses_of
from tests.reports.test_readings import Collected, made


def same(scores, values):
    """Return scores whose methods all have these, (T, C, n_train, n_test)."""
    return replace(scores, scores={m: values[m].astype(np.float32) for m in scores.scores})


def test_all_pairs_in_opposite_directions_are_all():
    scores = made("constant", 3, ("loo", "if"), (30, 300))  # 0.1 helps by LOO, and harms by IF
    report = Collected()
    report_agreement(report, scores, 0.05)
    reading = report.reading("figure", "agreement_confusions")
    assert "in opposite directions for IF 100% of pairs" in reading


def test_signs_are_said_of_the_methods_that_are_there():
    for methods, says in (
        (("ekfac", "if"), "Where a train sample helps, scores of EK-FAC and IF are negative."),
        (("if", "ats"), "scores of IF and ATS are negative."),
        (("loo", "if"), "helps, scores of LOO are positive and scores of IF are negative."),
    ):
        report = Collected()
        report_correlations(report, made("noise", 3, methods, (4, 6)))
        assert says in report.reading("table", "correlations")


def test_clusters_without_a_last_joint():
    scores = made("noise", 3, ("loo", "gd", "gc", "trak"), (4, 6))
    report = Collected()
    report_correlations(report, same(scores, dict.fromkeys(scores.scores, scores.scores["gd"])))
    assert "joined last cannot be told" in report.reading("figure", "clusters")


def of_comparison(*of_experiments):
    loaded = {scores.experiment: scores for scores in of_experiments}
    report = Collected()
    report_correlation_comparison(report, lambda e: loaded[e], list(loaded), 0.05)
    return report


def test_agreement_of_experiments_is_named_by_experiment_and_only_if_there_is_any():
    whole = made("noise", 10, ("loo", "gd"), (4, 6), "cnn2_mnist_all")
    some = made("noise", 10, ("loo", "gd"), (4, 6), "cnn2_mnist3_10pc_init")
    sign = np.where(np.arange(24).reshape(4, 6) % 2, 9, -9) + whole.scores["gd"]
    agreeing = same(some, {"loo": sign, "gd": sign})
    reading = of_comparison(whole, agreeing).reading("table", "agreement")
    assert reading.endswith("a kappa of 1.00, is that of GD in cnn2_mnist3_10pc_init.")
    opposite = {"loo": sign, "gd": -sign}
    reading = of_comparison(same(whole, opposite), same(some, opposite)).reading(
        "table", "agreement"
    )
    assert reading == "No method's answers agree with leave-one-out's more than by chance."


def test_one_correlation_is_no_range():
    scores = made("noise", 3, ("loo", "gd"), (4, 6))
    reading = of_comparison(scores).reading("figure", "correlations")
    assert " to " not in reading


def test_noise_of_the_unpaired_test_is_not_on_the_diagonal():
    """Losses that a sample changes by noise alone, but a seed by much more."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=(10, 6))
    found = Distributions.of(0.1 * rng.normal(size=(10, 40, 6)), base)
    assert found.paired.mean() == pytest.approx(0.5, abs=0.1)
    assert found.unpaired.mean() > 0.8
    report = Collected()
    report_distributions(report, made("noise", 10, ("loo",), (40, 6)), found, 0.05)
    assert "the unpaired test's are larger" in report.reading("figure", "distributions")


@pytest.mark.parametrize(("alpha", "noise"), [(0.05, "5"), (0.125, "12.5"), (0.996, "99.6")])
def test_levels_have_all_their_digits(tmp_path, alpha, noise):
    report = Collected()
    report_pvalues(report, made("noise", 3, ("gd",), (4, 6)), "ttest", alpha)
    reading = report.reading("table", "significance")
    assert f"Of pairs of pure noise {noise}% would" in reading
    assert f"held at {alpha:g} " in reading


def test_two_seeds_have_no_intervals_of_anything():
    report = Collected()
    report_pvalues(report, made("noise", 2, ("gd",), (4, 6)), "ttest", 0.05)
    reading = report.reading("table", "mean_pvalue_intervals")
    assert reading == "2 seeds are too few for confidence intervals."


def accuracy_of(methods, n_draws=3):
    scores = made("noise", n_draws, methods, (N_TRAIN, N_TEST))
    report = Collected()
    seconds = dict.fromkeys(scores.scores, np.nan)
    report_accuracy(report, scores, losses_of(scores, "noise"), seconds, 0.05)
    return report


def test_accuracy_of_one_method_and_without_leave_one_out():
    report = accuracy_of(("gd",))
    assert report.reading("figure", "accuracy_by_cost") == "There is one method."
    assert "`loo`" not in report.reading("table", "accuracy")
    assert "`loo`" in accuracy_of(("loo", "gd")).reading("table", "accuracy")


def test_rows_of_experiments_of_which_one_scores_all():
    scores = made("noise", 3, ("gd",), (4, 6))
    some = replace(scores, n_scored_of=9).rows
    assert words_of_rows([scores.rows, some]).startswith("all training samples or random samples")
    assert words_of_rows([scores.rows]) == ""


def test_a_kappa_is_1_only_if_all_answers_are_the_same():
    assert [kappa_text(k) for k in (1.0, 0.9972, 0.5, -0.001)] == ["1.00", ">0.99", "0.50", "0.00"]


def test_a_batch_order_without_variance_is_told():
    names = ("cnn2_digits3_50pc", "cnn2_digits3_50pc_init", "cnn2_digits3_50pc_batch")
    loaded = {parse_experiment(n): made("noise", 7, ("gd",), (4, 6), n) for n in names}
    batch = parse_experiment(names[2])
    loaded[batch] = same(loaded[batch], {"gd": np.full((7, 5, 4, 6), 0.1)})
    report = Collected()
    report_sources(DrawsReport(report, 7, []), lambda e: loaded[e], list(loaded))
    reading = report.reading("figure", f"sources_{names[0]}")
    assert "batch order alone gives GD 0%" in reading
    assert "initialisation for GD" in reading
    table = report.tables["sources_of_randomness"]
    assert isinstance(table, pd.DataFrame)
    assert (table["variance_batch"] == 0).all()


def test_no_pair_of_equal_p_values_is_on_both_sides():
    p = np.full((30, 40), 0.5)
    low, high = _sides(p).values()
    assert len(low) == len(high) == 5
    assert not {*low} & {*high}
    samples = np.ones((3, *p.shape))
    reading = _reading_of_sheet(samples, p, _sides(p))
    assert reading.startswith("All pairs have the same p-value, so that none is more reliable.")
    p[0, 0] = 0.4
    assert _sides(p)["lowest p-values"][0] == (0, 0)
    assert not _reading_of_sheet(samples, p, _sides(p)).startswith("All pairs")
