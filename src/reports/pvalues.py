"""The report of `run_pvalues.py` on one experiment: how far its scores can be told from noise."""

from __future__ import annotations

import numpy as np
import pandas as pd

from src.analysis.bootstrap import LEVEL, interval, mean_pvalue_errors
from src.analysis.draws_needed import POWER, power_table, stability
from src.analysis.pairs import Influences, distinct_pairs, influences
from src.analysis.significance import significance_table
from src.analysis.variance import variance_components_table
from src.errors import UserError
from src.experiments import Experiment, Paths
from src.plots.draws import stability_by_draws
from src.plots.pairs import Pictures, influence_sheet, pair_sheet
from src.plots.pvalues import mean_against_std, mean_pvalue_by_checkpoints, pvalue_histograms
from src.plots.style import METHOD_LABELS
from src.plots.variance import share_between_seeds
from src.predictions import load_predictions
from src.report import Report
from src.reports.reading import largest, listed, of_methods
from src.results import ExperimentScores, load_images, pvalue_tables, save_pvalues
from src.stats import mean_under_noise

N_PAIRS = 5  # on each side of a sheet
N_INFLUENCES = 5  # proponents, and opponents


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
    last, samples = means.index[-1], scores.samples()
    report.table(
        f"mean_pvalues{suffix}",
        means,
        "Mean p-value by number of checkpoints",
        f"Averaged over {last} checkpoints, the mean p-value over all pairs is "
        f"{of_methods(means.loc[last], '.3f')}; pure noise would give "
        f"{mean_under_noise(test, scores.n_draws):.2f}." + _remark_on_batches(scores.experiment),
    )
    intervals = mean_pvalue_intervals(scores, means, test)
    report.table(
        f"mean_pvalue_intervals{suffix}",
        intervals,
        f"Confidence intervals ({LEVEL:.0%}) of the mean p-values",
        "From resampled seeds: how far the mean p-value would move with another ten seeds.",
    )
    report.figure(
        f"mean_pvalue_by_checkpoints{suffix}",
        mean_pvalue_by_checkpoints(means, intervals),
        "What averaging checkpoints does",
        _reading_of_checkpoints(means),
    )
    report.table(
        f"significant_fraction{suffix}",
        fractions,
        f"Fraction of pairs with p < {alpha:g}",
        f"Averaged over {last} checkpoints: {of_methods(fractions.loc[last], '.0%')}.",
    )
    report.figure(
        f"pvalue_histograms{suffix}",
        pvalue_histograms(p, alpha),
        "P-values of all pairs",
        f"{largest(means.loc[last])} has the largest p-values; equal bars would be pure noise."
        if test == "ttest"
        else f"{largest(means.loc[last])} has the largest p-values.",
    )
    table = significance_table(samples, test, alpha, alpha)
    report.table(
        f"significance{suffix}",
        table,
        "Significance of many tests at once",
        f"Pure noise would call {table['expected_of_noise'].iloc[0]:.2%} significant; with the "
        f"false discovery rate held at {alpha:.0%} there remain "
        f"{of_methods(table['benjamini_hochberg'], '.0%')}; the exact sign-flip test agrees with "
        f"this one on {table['agreement'].min():.0%} of pairs or more.",
    )
    report.figure(
        f"mean_against_std{suffix}",
        mean_against_std(samples, alpha),
        "Mean and standard deviation of every pair",
        "Pairs below the dashed lines are significant by the t-test: their mean is large for "
        "their noise.",
    )
    report.file(
        f"pvalues{suffix}.pt",
        lambda path: save_pvalues(path, scores, p, test),
        "P-value, mean and standard deviation of every pair, as tensors",
        "By method, train samples in rows and test samples in columns (`torch.load`).",
    )
    return means, p


def _remark_on_batches(experiment: Experiment) -> str:
    if experiment.randomness != "batch" or not experiment.has_one_batch:
        return ""
    return (
        f" But one batch of {experiment.batch_size} holds all {experiment.n_train} training "
        "samples: the batch order changes nothing but rounding, and that is all the noise here."
    )


def mean_pvalue_intervals(scores: ExperimentScores, means: pd.DataFrame, test: str) -> pd.DataFrame:
    """Return the confidence limits of the mean p-values, columns (method, "low" or "high")."""
    rows = []
    for k in means.index:
        row = {}
        for method, samples in scores.samples(k).items():
            error = mean_pvalue_errors(samples, (test,))[test]
            row[method, "low"], row[method, "high"] = interval(
                means.loc[k, method], error, 0.0, 1.0
            )
        rows.append(row)
    return pd.DataFrame(rows, means.index)


def _reading_of_checkpoints(means: pd.DataFrame) -> str:
    change = means.iloc[-1] - means.iloc[0]
    falls = [METHOD_LABELS[m] for m in means.columns if change[m] < 0]
    rises = [METHOD_LABELS[m] for m in means.columns if change[m] >= 0]
    parts = [f"lowers it for {listed(falls)}"] if falls else []
    parts += [f"does not for {listed(rises)}"] if rises else []
    return f"Averaging {means.index[-1]} checkpoints instead of 1 {' and '.join(parts)}."


def report_draws(report: Report, scores: ExperimentScores, alpha: float) -> None:
    """Write where the variance comes from and how many draws an answer takes (t-test).

    Args:
        report: Takes the tables and figures.
        scores: The scores.
        alpha: Significance level.
    """
    components = variance_components_table(scores.scores)
    report.table(
        "variance_components",
        components,
        "Variance between seeds and within a seed (between its checkpoints)",
        "Averaged over pairs, in squared units of each method's score, with "
        f"{LEVEL:.0%} confidence intervals from resampled seeds.",
    )
    report.figure(
        "variance_components",
        share_between_seeds(components),
        "Share of the variance that lies between seeds",
        f"{of_methods(components['share_between'], '.0%')}: the rest is scatter between the last "
        f"{scores.n_checkpoints} checkpoints of one training.",
    )
    by_method = {m: stability(values, alpha) for m, values in scores.scores.items()}
    report.table(
        "stability",
        pd.concat(by_method, names=["method"]).reset_index(level=0).reset_index(drop=True),
        "Stability by number of seeds and checkpoints",
        "Mean over random subsets of the seeds; `rank_correlation` is Spearman's between the mean "
        "scores of two disjoint halves.",
        index=False,
    )
    final = pd.Series({m: frame["rank_correlation"].iloc[-1] for m, frame in by_method.items()})
    report.figure(
        "stability",
        stability_by_draws(by_method),
        "What more seeds and checkpoints do",
        f"Ranks from two halves of all seeds correlate by {of_methods(final, '.2f')}.",
    )
    needed = power_table({**scores.samples()}, alpha)
    report.table(
        "draws_needed",
        needed,
        f"Seeds for {POWER:.0%} power at the observed effect sizes",
        "For half of the pairs suffice "
        f"{of_methods(needed['draws_for_50%'].drop('noise'), 'd')} seeds; pure noise would seem to "
        f"need {needed.loc['noise', 'draws_for_50%']}.",
    )


def report_pairs(
    report: Report,
    scores: ExperimentScores,
    p: dict[str, np.ndarray],
    paths: Paths,
    alpha: float,
    test_index: int | None,
    suffix: str,
) -> None:
    """Write sheets of single pairs with their images.

    Args:
        report: Takes the figures.
        scores: The scores.
        p: P-values (n_train, n_test), by method.
        paths: Every path below the root.
        alpha: Significance level.
        test_index: Index, in its full split, of a test sample whose proponents and opponents are
            wanted.
        suffix: Of the sheets' names.

    Raises:
        UserError: The images are missing, or others than the scores were computed from.
    """
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
        paths,
        {train for train, _ in shown},
        {test for _, test in shown} | ({test_position} if found else set()),
    )
    if found:
        report.figure(
            f"influences_{test_index}",
            influence_sheet(found, pictures, test_position, alpha),
            f"Proponents and opponents of test sample {test_index}",
            _reading_of_influences(found, scores, alpha),
        )
    for method, sides in sheets.items():
        report.figure(
            f"{method}_pairs{suffix}",
            pair_sheet(samples[method], p[method], sides, pictures, method),
            f"Most and least reliable pairs by {METHOD_LABELS[method]}",
            "Left, scores that agree over seeds; right, scores of either sign, whose sign in a "
            "single training is chance. → is the label that most seeds predict. No sample is shown "
            "twice on a side.",
        )


def _sides(p: np.ndarray) -> dict[str, list[tuple[int, int]]]:
    """Return the pairs of lowest and of highest p-value."""
    return {
        title: distinct_pairs(np.argsort(keys, axis=None, kind="stable"), p.shape, N_PAIRS)
        for title, keys in (("lowest p-values", p), ("highest p-values", -p))
    }


def _reading_of_influences(
    found: dict[str, Influences], scores: ExperimentScores, alpha: float
) -> str:
    first = pd.Series(
        {m: scores.train_idx[c.train[0]] for m, c in found.items() if c.n_proponents > 0}
    )
    strongest = (
        f"Its strongest proponent is {of_methods(first, 'd')}" if len(first) else "No proponent"
    )
    marked = sum(int((chosen.pvalue < alpha).sum()) for chosen in found.values())
    n_shown = sum(len(chosen.train) for chosen in found.values())
    return (
        f"Bars to the right helped ({strongest}); {marked} of the {n_shown} scores shown are "
        "significant (star)."
    )


def _pictures(scores: ExperimentScores, paths: Paths, train: set[int], test: set[int]) -> Pictures:
    """Return the images and, where the checkpoints are there, the predictions."""
    experiment = scores.experiment
    splits = load_images(paths, scores)
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
    return Pictures(splits, experiment.task.class_names, predictions)
