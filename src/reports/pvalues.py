"""The report of `run_pvalues.py` on one experiment: how far its scores can be told from noise."""

from __future__ import annotations

import numpy as np
import pandas as pd

from src.analysis.bootstrap import (
    LEVEL,
    Estimate,
    clearly_largest,
    difference_table,
    pair_means,
)
from src.analysis.draws_needed import MOST_DRAWS, POWER, power_table, stability
from src.analysis.pairs import Influences, distinct_pairs, influences
from src.analysis.significance import (
    MOST_SIGN_CHOICES,
    least_sign_flip_pvalue,
    significance_table,
)
from src.analysis.stats import mean_under_noise
from src.analysis.variance import variance_components_table
from src.ensemble.predictions import load_predictions
from src.errors import UserError
from src.experiments import Experiment, Paths
from src.plots.draws import stability_by_draws
from src.plots.exhibits import Pictures
from src.plots.pairs import influence_sheet, pair_sheet
from src.plots.pvalues import mean_against_std, mean_pvalue_by_checkpoints, pvalue_histograms
from src.plots.style import METHOD_LABELS, pvalue_text
from src.plots.variance import share_between_seeds
from src.reports.draws import DrawsReport
from src.reports.page import Report
from src.reports.reading import (
    counted,
    decimals,
    of_methods,
    percent,
    reading_of_left_out,
    told,
    words_of_intervals,
)
from src.reports.scores import ExperimentScores, pvalue_tables, save_pvalues

N_PAIRS = 5  # on each side of a sheet
N_INFLUENCES = 5  # proponents, and opponents

VARIANCE_TITLE = "Variance between seeds, of the rest, and between epochs"


def report_pvalues(
    report: Report, scores: ExperimentScores, test: str, alpha: float
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Write the tables and figures of the p-values.

    Args:
        report: Takes the tables and figures.
        scores: The scores.
        test: "ttest" or "snr"; the names of the latter's files end with it.
        alpha: Significance level, and false discovery rate.

    Returns:
        The mean p-values, a row for each number of checkpoints and a column for each method, and
        the p-values (n_train, n_test) at all checkpoints, by method.
    """
    suffix = "" if test == "ttest" else f"_{test}"
    means, fractions, p = pvalue_tables(scores, test, alpha)
    report = DrawsReport(report, scores.n_draws)
    last, samples = means.index[-1], scores.samples()
    estimates = mean_pvalue_estimates(scores, test)
    report.table(
        f"mean_pvalues{suffix}",
        means,
        "Mean p-value by number of checkpoints",
        " ".join(
            [
                f"Averaged over {counted(last, 'checkpoint')}, the mean p-value over all pairs is "
                f"{of_methods(means.loc[last], pvalue_text)}; pure noise would give "
                f"{mean_under_noise(test, scores.n_draws):.2f}.",
                *_remark_on_batches(scores.experiment),
                reading_of_left_out(scores.unused),
            ]
        ).strip(),
    )
    intervals = mean_pvalue_intervals(estimates)
    report.table(
        f"mean_pvalue_intervals{suffix}",
        intervals,
        f"Confidence intervals ({LEVEL:.0%}) of the mean p-values",
        f"{words_of_intervals(scores.n_draws)}, for the mean p-value that sets of "
        f"{scores.n_draws} seeds have on average.",
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
        f"{words_of_intervals(scores.n_draws)}.",
    )
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
    return means, p


def _remark_on_batches(experiment: Experiment) -> list[str]:
    if experiment.randomness != "batch" or not experiment.has_one_batch:
        return []
    return [
        f"But one batch of {experiment.batch_size} holds all {experiment.n_train} training "
        "samples: the batch order changes nothing but rounding, and that is all the noise here."
    ]


def mean_pvalue_estimates(scores: ExperimentScores, test: str) -> dict[int, dict[str, Estimate]]:
    """Return the mean p-value over pairs by method, by number of checkpoints."""
    return {
        k: {
            method: pair_means(samples, (test,))[f"mean_pvalue_{test}"]
            for method, samples in scores.samples(k).items()
        }
        for k in range(1, scores.n_checkpoints + 1)
    }


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
    noise = f"Of pairs of pure noise {100 * table['expected_of_noise'].iloc[0]:.2g}%"
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
        f"{noise} would be significant. With the false discovery rate held at {alpha:.2g} there "
        f"remain {of_methods(table['benjamini_hochberg'], percent)}. "
    ) + (
        f"The sign-flip test cannot answer: with {counted(n_draws, 'seed')} its p-value is "
        f"{least:.2g} at least."
        if least >= alpha
        else f"The sign-flip test{choices} agrees with the t-test beyond chance by a kappa of "
        f"{of_methods(table['kappa'], decimals)}."
    )


def reading_of_variance(n_draws: int) -> str:
    """Return how a table of variance components reads."""
    return (
        "Averaged over pairs, in squared units of each method's score. Between seeds (between) and "
        "within a training (residual) it is random; what an epoch does to all seeds alike (epoch) "
        f"is not, and is no part of share_between. {words_of_intervals(n_draws)}."
    )


def report_draws(report: Report, scores: ExperimentScores, alpha: float) -> None:
    """Write where the variance comes from and how many draws an answer takes (t-test).

    Args:
        report: Takes the tables and figures.
        scores: The scores.
        alpha: Significance level.
    """
    report = DrawsReport(report, scores.n_draws)
    components = variance_components_table(scores.scores)
    report.table(
        "variance_components", components, VARIANCE_TITLE, reading_of_variance(scores.n_draws)
    )
    report.figure(
        "variance_components",
        share_between_seeds(components),
        "Share of the random variance that lies between seeds",
        f"{of_methods(components['share_between'], percent)}: the rest is scatter between the last "
        f"{scores.n_checkpoints} checkpoints of one training, less what an epoch does to all seeds "
        "alike."
        if scores.n_checkpoints > 1
        else "One checkpoint cannot tell the two apart.",
    )
    by_method = {m: stability(values, alpha) for m, values in scores.scores.items()}
    report.table(
        "stability",
        pd.concat(by_method, names=["method"]).reset_index(level=0).reset_index(drop=True),
        "Stability by number of seeds and checkpoints",
        "Mean over random subsets of the seeds; rank_correlation is Spearman's between the mean "
        "scores of two disjoint halves of them (of an odd number, one half has one more).",
        index=False,
    )
    final = pd.Series({m: frame["rank_correlation"].iloc[-1] for m, frame in by_method.items()})
    report.figure(
        "stability",
        stability_by_draws(by_method),
        "What more seeds and checkpoints do",
        f"Ranks from two halves of all seeds correlate by {of_methods(final, decimals)}.",
    )
    needed = power_table({**scores.samples()}, alpha)
    report.table(
        "draws_needed",
        needed,
        f"Seeds for {POWER:.0%} power at the observed effect sizes",
        "For half of the pairs suffice "
        f"{of_methods(needed['draws_for_50%'].drop('noise'), _number_of_seeds)} seeds; pure noise "
        f"would seem to need {_number_of_seeds(needed.loc['noise', 'draws_for_50%'])}. Where the "
        "observed effect is noise, so is its number.",
    )


def _number_of_seeds(n: float) -> str:
    return f"{n:.0f}" if n < MOST_DRAWS else f"{MOST_DRAWS} or more"


def report_pairs(
    report: Report,
    scores: ExperimentScores,
    p: dict[str, np.ndarray],
    images: dict[str, dict],
    paths: Paths,
    alpha: float,
    test_index: int | None,
    suffix: str,
) -> None:
    """Write sheets of single pairs with their images, texts or numbers.

    Args:
        report: Takes the figures.
        scores: The scores.
        p: P-values (n_train, n_test), by method.
        images: Tensors of the samples, as `src.reports.scores.load_images` returns them.
        paths: Every path below the root.
        alpha: Significance level.
        test_index: Index, in its full split, of a test sample whose proponents and opponents are
            wanted.
        suffix: Of the sheets' names.
    """
    report = DrawsReport(report, scores.n_draws)
    samples = scores.samples()
    sheets = {method: _sides(values) for method, values in p.items()}
    found: dict[str, Influences] = {}
    if test_index is not None:
        test_position = scores.test_position(test_index)
        found = {
            m: influences(values[:, :, test_position], m, N_INFLUENCES, alpha)
            for m, values in samples.items()
        }
        found = {m: chosen for m, chosen in found.items() if len(chosen.train)}
    shown = [pair for sides in sheets.values() for pairs in sides.values() for pair in pairs]
    pictures = _pictures(
        scores,
        images,
        paths,
        {train for train, _ in shown},
        {test for _, test in shown} | ({test_position} if found else set()),
    )
    if found:
        report.figure(
            f"influences_{test_index}",
            influence_sheet(found, pictures, test_position, alpha),
            f"Proponents and opponents of test sample {test_index}",
            " ".join([_reading_of_influences(found, scores, alpha), *pictures.readings()]),
        )
    for method, sides in sheets.items():
        report.figure(
            f"{method}_pairs{suffix}",
            pair_sheet(samples[method], p[method], sides, pictures, method),
            f"Most and least reliable pairs by {METHOD_LABELS[method]}",
            " ".join(
                [
                    _reading_of_sheet(samples[method], p[method], sides),
                    "No sample is shown twice on a side.",
                    *pictures.readings(),
                ]
            ),
        )


def _sides(p: np.ndarray) -> dict[str, list[tuple[int, int]]]:
    """Return the pairs of lowest and of highest p-value."""
    return {
        title: distinct_pairs(np.argsort(keys, axis=None, kind="stable"), p.shape, N_PAIRS)
        for title, keys in (("lowest p-values", p), ("highest p-values", -p))
    }


def _reading_of_sheet(
    samples: np.ndarray, p: np.ndarray, sides: dict[str, list[tuple[int, int]]]
) -> str:
    parts = []
    for name, pairs in zip(("Left", "Right"), sides.values(), strict=True):
        shown = np.array([samples[:, i, j] for i, j in pairs])
        either = int(((shown > 0).any(axis=1) & (shown < 0).any(axis=1)).sum())
        low, high = (pvalue_text(bound([p[pair] for pair in pairs])) for bound in (min, max))
        reach = f"p = {low}" if low == high else f"p from {low} to {high}"
        parts.append(
            f"{name}, {counted(len(pairs), 'pair')} with {reach}, {either} of them with scores of "
            "either sign."
        )
    return " ".join(parts)


def _reading_of_influences(
    found: dict[str, Influences], scores: ExperimentScores, alpha: float
) -> str:
    first = pd.Series(
        {m: scores.train_idx[c.train[0]] for m, c in found.items() if c.n_proponents > 0}
    )
    strongest = f"strongest {of_methods(first, str)}" if len(first) else "none"
    marked = sum(int((chosen.pvalue < alpha).sum()) for chosen in found.values())
    n_shown = sum(len(chosen.train) for chosen in found.values())
    return (
        f"Train samples whose bar goes to the right helped ({strongest}). Of the scores shown "
        f"{marked} of {n_shown} are significant by the t-test (star); the lines are "
        f"{100 * (1 - alpha):g}% confidence intervals."
    )


def _pictures(
    scores: ExperimentScores,
    images: dict[str, dict],
    paths: Paths,
    train: set[int],
    test: set[int],
) -> Pictures:
    """Return the images and, where the checkpoints are there, the predictions."""
    experiment = scores.experiment
    seeds = next(iter(scores.seeds.values()))
    try:
        predictions = load_predictions(
            paths,
            experiment,
            {seed: scores.checkpoints[seed] for seed in seeds},
            {int(scores.train_idx[position]) for position in train},
            {int(scores.test_idx[position]) for position in test},
        )
    except UserError as error:
        # Scores may have come here without the checkpoints that they were computed from.
        print(f"pairs are shown without predictions: {error}")
        predictions = None
    return Pictures(images, experiment.task, predictions)
