"""The p-values of one experiment: how far its scores can be told from noise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from src.analysis.bootstrap import (
    LEAST_DRAWS,
    LEVEL,
    Estimate,
    clearly_largest,
    difference_table,
    pair_means,
)
from src.analysis.scores import ExperimentScores
from src.analysis.significance import (
    MOST_SIGN_CHOICES,
    least_sign_flip_pvalue,
    significance_table,
)
from src.analysis.stats import mean_under_noise, moments, pvalues
from src.plots.pvalues import mean_against_std, mean_pvalue_by_checkpoints, pvalue_histograms
from src.plots.style import METHOD_LABELS, pvalue_text
from src.reports.draws import DrawsReport
from src.reports.reading import (
    counted,
    decimals,
    of_methods,
    percent,
    reading_of_left_out,
    told,
    words_of_intervals,
)
from src.reports.report import Report
from src.storage.files import save


def report_pvalues(
    report: Report, scores: ExperimentScores, test: str, alpha: float
) -> pd.DataFrame:
    """Write the tables and figures of the p-values.

    Args:
        report: Takes the tables and figures.
        scores: The scores.
        test: "ttest" or "snr"; the names of the latter's files end with it.
        alpha: Significance level, and false discovery rate.

    Returns:
        The mean p-values, a row for each number of checkpoints and a column for each method.
    """
    suffix = "" if test == "ttest" else f"_{test}"
    estimates, fractions, p = pvalue_tables(scores, test, alpha)
    report = DrawsReport(report, scores.n_draws, [scores.rows])
    means = _values(estimates)
    last, samples = means.index[-1], scores.samples()
    report.table(
        f"mean_pvalues{suffix}",
        means,
        "Mean p-value by number of checkpoints",
        " ".join(
            [
                f"Averaged over {counted(last, 'checkpoint')}, the mean p-value over "
                f"{_all_pairs(scores)} is {of_methods(means.loc[last], pvalue_text)}; pure noise "
                f"would give {mean_under_noise(test, scores.n_draws):.2f}.",
                *_remark_on_batches(scores),
                reading_of_left_out(scores),
            ]
        ).strip(),
    )
    _report_by_checkpoints(report, scores, estimates, suffix)
    report.table(
        f"significant_fraction{suffix}",
        fractions,
        f"Fraction of pairs with p < {alpha:g}",
        f"Averaged over {counted(last, 'checkpoint')}: {of_methods(fractions.loc[last], percent)}.",
    )
    report.figure(
        f"pvalue_histograms{suffix}",
        pvalue_histograms(p, alpha),
        "P-values of all pairs",
        _reading_of_histograms(estimates[last], test),
    )
    table = significance_table(samples, test, alpha, alpha)
    report.table(
        f"significance{suffix}",
        table,
        "Significance of many tests at once",
        _reading_of_significance(table, test, alpha),
    )
    report.figure(
        f"mean_against_std{suffix}",
        mean_against_std(samples, alpha),
        "Mean and standard deviation of every pair",
        f"Pairs below the dashed lines have p < {alpha:g} by the t-test: their mean is large for "
        "their noise. A percentage beside a method's name says how many of its pairs are outside.",
    )
    report.file(
        f"pvalues{suffix}.pt",
        lambda path: save_pvalues(path, scores, p, test),
        "P-value, mean and standard deviation of every pair, as tensors",
        "By method, train samples in rows and test samples in columns; torch.load reads it.",
    )
    return means


def report_checkpoints(report: DrawsReport, scores: ExperimentScores) -> None:
    """Write what averaging more checkpoints does to the mean p-value by the t-test.

    Args:
        report: Takes the tables and the figure.
        scores: The scores.
    """
    _report_by_checkpoints(report, scores, mean_pvalue_estimates(scores, "ttest"), "")


def _report_by_checkpoints(
    report: DrawsReport,
    scores: ExperimentScores,
    estimates: dict[int, dict[str, Estimate]],
    suffix: str,
) -> None:
    means = _values(estimates)
    last = means.index[-1]
    intervals = mean_pvalue_intervals(estimates)
    report.table(
        f"mean_pvalue_intervals{suffix}",
        intervals,
        f"Confidence intervals ({LEVEL:.0%}) of the mean p-values",
        f"{words_of_intervals(scores.n_draws, [scores.rows])}. What they hold is the mean p-value "
        f"that sets of {scores.n_draws} seeds have on average."
        if scores.n_draws >= LEAST_DRAWS
        else f"{words_of_intervals(scores.n_draws)}.",
    )
    changes = {m: estimates[last][m] - own for m, own in estimates[1].items()}
    report.figure(
        f"mean_pvalue_by_checkpoints{suffix}",
        mean_pvalue_by_checkpoints(means, intervals),
        "What averaging checkpoints does",
        _reading_of_checkpoints(changes, last, scores.n_draws),
    )
    report.table(
        f"mean_pvalue_changes{suffix}",
        difference_table(changes, ["method"]),
        f"Mean p-value over {counted(last, 'checkpoint')}, less that of the last one alone",
        f"{words_of_intervals(scores.n_draws, [scores.rows])}.",
    )


def _values(estimates: dict[int, dict[str, Estimate]]) -> pd.DataFrame:
    rows = [{m: own.value for m, own in of_methods.items()} for of_methods in estimates.values()]
    return pd.DataFrame(rows, pd.Index(estimates, name="checkpoints"))


def _all_pairs(scores: ExperimentScores) -> str:
    return "all pairs" + ("" if scores.rows.are_all else " of the scored training samples")


def _remark_on_batches(scores: ExperimentScores) -> list[str]:
    experiment = scores.experiment
    if experiment.randomness != "batch" or not experiment.has_one_batch(scores.n_train):
        return []
    return [
        f"But one batch of {experiment.batch_size} holds all {scores.n_train} training "
        "samples: the batch order changes nothing but rounding, and the noise here is that of what "
        "a training draws besides, as dropout, or rounding alone."
    ]


def pvalue_tables(
    scores: ExperimentScores, test: str, alpha: float
) -> tuple[dict[int, dict[str, Estimate]], pd.DataFrame, dict[str, np.ndarray]]:
    """Return what the p-values come down to, and those of every pair.

    Args:
        scores: The scores.
        test: "ttest" or "snr".
        alpha: Significance level.

    Returns:
        The mean p-values by method, by number of checkpoints 1..C; the fraction of pairs below
        alpha, a row for each number and a column for each method; and the p-values
        (n_train, n_test) at C checkpoints, by method.
    """
    estimates, fractions = {}, []
    for k, p, means in _by_checkpoints(scores, test):
        estimates[k] = means
        fractions.append({m: (values < alpha).mean() for m, values in p.items()})
    return estimates, pd.DataFrame(fractions, pd.Index(estimates, name="checkpoints")), p


def _by_checkpoints(
    scores: ExperimentScores, test: str
) -> Iterator[tuple[int, dict[str, np.ndarray], dict[str, Estimate]]]:
    """Yield numbers of checkpoints with the p-values over them and their means, by method."""
    for k in range(1, scores.n_checkpoints + 1):
        samples = scores.samples(k)
        p = {m: pvalues(values, test) for m, values in samples.items()}
        yield (
            k,
            p,
            {
                m: pair_means(values, (test,), scores.rows, [p[m]])[f"mean_pvalue_{test}"]
                for m, values in samples.items()
            },
        )


def save_pvalues(path: Path, scores: ExperimentScores, p: dict[str, np.ndarray], test: str) -> None:
    """Save p-values, means and standard deviations of every pair at C checkpoints."""
    both = {m: moments(samples) for m, samples in scores.samples().items()}
    content = {m: torch.from_numpy(values) for m, values in p.items()}
    content["mean"] = {m: torch.from_numpy(mean) for m, (mean, _) in both.items()}
    content["std"] = {m: torch.from_numpy(std) for m, (_, std) in both.items()}
    content["train_idx"] = torch.from_numpy(scores.train_idx)
    content["test_idx"] = torch.from_numpy(scores.test_idx)
    content["settings"] = {
        "experiment": scores.experiment.name,
        "test": test,
        "seeds": scores.seeds,
        **{f"{split}_samples": value for split, value in scores.digests.items()},
    }
    save(path, content)


def mean_pvalue_estimates(scores: ExperimentScores, test: str) -> dict[int, dict[str, Estimate]]:
    """Return the mean p-value over pairs by method, by number of checkpoints."""
    return {k: means for k, _, means in _by_checkpoints(scores, test)}


def mean_pvalue_intervals(estimates: dict[int, dict[str, Estimate]]) -> pd.DataFrame:
    """Return the confidence limits of the mean p-values, columns (method, "low" or "high")."""
    rows = {
        k: {
            (method, end): limit
            for method, estimate in of_methods.items()
            for end, limit in zip(("low", "high"), estimate.interval(0.0, 1.0), strict=True)
        }
        for k, of_methods in estimates.items()
    }
    return pd.DataFrame(rows.values(), pd.Index(rows, name="checkpoints"))


def _reading_of_checkpoints(changes: dict[str, Estimate], last: int, n_draws: int) -> str:
    if last == 1:
        return "There is one checkpoint."
    words = {1: "raises it", -1: "lowers it", 0: "cannot be told"}
    does = told({method: words[change.sign] for method, change in changes.items()}, n_draws)
    return f"What averaging {last} checkpoints instead of 1 does to the mean p-value: {does}."


def _reading_of_histograms(estimates: dict[str, Estimate], test: str) -> str:
    parts = ["Pure noise would give equal bars."] if test == "ttest" else []
    largest = clearly_largest(estimates)
    if largest is not None:
        parts.append(
            f"{METHOD_LABELS[largest]} has the largest mean p-value; the confidence intervals of "
            "its differences from the others lie above 0."
        )
    elif len(estimates) > 1:
        parts.append("Which method has the largest mean p-value cannot be told.")
    return " ".join(parts) or "The values of one method."


def _reading_of_significance(table: pd.DataFrame, test: str, alpha: float) -> str:
    noise = f"Of pairs of pure noise {100 * table['expected_of_noise'].iloc[0]:.3g}%"
    if test == "snr":
        return (
            f"{noise} have a value below {alpha:g}, of these pairs "
            f"{of_methods(table['below_alpha'], percent)}. The values are not uniform under noise, "
            "so no false discovery rate can be controlled by them."
        )
    n_draws = table["draws"].iloc[0]
    least = least_sign_flip_pvalue(n_draws)
    choices = "" if 1 / least < MOST_SIGN_CHOICES else f", by {MOST_SIGN_CHOICES} choices of signs,"
    return (
        f"{noise} would be significant. With the false discovery rate held at {alpha:g} there "
        f"remain {of_methods(table['benjamini_hochberg'], percent)}. "
    ) + (
        f"The sign-flip test cannot answer: with {counted(n_draws, 'seed')} its p-value is "
        f"{least:g} at least."
        if least >= alpha
        else f"The sign-flip test{choices} agrees with the t-test beyond chance by a kappa of "
        f"{of_methods(table['kappa'], decimals)}."
    )
