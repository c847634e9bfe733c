"""Recording of an experiment: what its scores come down to, in the tables that `Measured` reads."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from src.analysis.accuracy import Accuracy
from src.analysis.agreement import agreement_table, agreements
from src.analysis.bootstrap import pair_means
from src.analysis.distributions import both_tests, loo_distributions, quantities_table
from src.analysis.draws_needed import power_table, stability
from src.analysis.extension import FEW, compare_few_with_many
from src.analysis.fit import Fit
from src.analysis.floor import floor_table
from src.analysis.mislabelled import detection_table, detections
from src.analysis.scores import ExperimentScores
from src.analysis.significance import significance_table
from src.analysis.stats import COEFFICIENTS, TESTS
from src.analysis.summary import pvalue_summary
from src.analysis.top_samples import consistency_table
from src.analysis.variance import variance_by_source, variance_components_table
from src.ensemble.draws import numbers_of_seeds, seed_ids_of
from src.experiments import N_SEEDS, TRUTH, Experiment, Paths, parse_experiment
from src.paper.measured import FOLDER, write_tables
from src.reports.accuracy import with_subsets
from src.reports.checks import TEN
from src.reports.correlations import correlations_of
from src.reports.mislabelled import labels_of, with_self_influence
from src.reports.pvalues import mean_pvalue_estimates, mean_pvalue_intervals
from src.reports.revision import library_versions
from src.reports.scores import load_scores
from src.tda.estimators import estimator_of
from src.tda.timing import mean_seconds

# Of the first so many seeds the p-values are kept, too, since experiments of different numbers of
# draws are compared by the first that both have.
_FIRST = (3, 5, 10)
# Limits of what is in squared units of each method stand on pages alone.
_COMPONENTS = (
    *("draws", "between", "residual", "epoch"),
    *("share_between", "share_between_low", "share_between_high"),
)


def record(
    experiment: Experiment,
    paths: Paths,
    seed_ids: list[int] | None,
    alpha: float,
    folder: Path = FOLDER,
    *,
    allow_missing: bool = False,
) -> Path:
    """Write what an experiment's scores come down to, and return the folder.

    Args:
        experiment: The experiment.
        paths: Every path below the root.
        seed_ids: Numbers of the seeds; None: the ten.
        alpha: Significance level, and false discovery rate.
        folder: Where the experiments' folders are.
        allow_missing: Whether to go on with the seeds and methods that are there.

    Raises:
        UserError: Scores are missing or not sound.
    """
    scores = load_scores(paths, experiment, seed_ids or TEN, allow_missing=allow_missing)
    tables = {
        **dict(_tables(scores, alpha)),
        **_sources(scores, paths),
        **_accuracy(scores, paths, alpha),
        **_mislabelled(scores, paths),
        "fit": Fit.of(paths, scores).by_seed.reset_index(),
    }
    return write_tables(folder / _name(scores), tables, _about(scores, alpha))


def _name(scores: ExperimentScores) -> str:
    """Return what the folder is called: the experiment, and what its name does not say.

    That are random crops, another way of computing a method than the default one, by name, and, so
    that fewer do not replace more, or others: the number of training samples that are scored, where
    those are a random sample, and the number of draws where it is not ten.
    """
    options = next(iter(scores.options.values()))
    crops = "_random_crop" if options.get("random_crop") else ""
    ways = "".join(
        f"_{method}_{own[key]}"
        for method, own in scores.options.items()
        for key, usual in estimator_of(method).settings().items()
        if isinstance(usual, str) and own.get(key, usual) != usual
    )
    rows = "" if scores.rows.are_all else f"_{scores.rows.n_scored}rows"
    draws = f"_{scores.n_draws}draws" if scores.n_draws != N_SEEDS else ""
    return f"{scores.experiment.name}{crops}{ways}{rows}{draws}"


def _about(scores: ExperimentScores, alpha: float) -> dict[str, object]:
    options = {m: o for m, o in scores.options.items() if o}
    return {
        "experiment": scores.experiment.name,
        "draws": scores.n_draws,
        "seed_id": seed_ids_of(scores.common_seeds),
        "train_samples": scores.n_train,
        "train_samples_scored": scores.rows.n_scored,
        "test_samples": len(scores.test_idx),
        "checkpoints": scores.n_checkpoints,
        "alpha": alpha,
        "date": datetime.date.today().isoformat(),
        "scores computed with": "; ".join(scores.machines),
        **library_versions(),
        **{f"settings: {name}": value for name, value in scores.training_settings().items()},
        **{f"settings of {method}": value for method, value in options.items()},
    }


def _tables(scores: ExperimentScores, alpha: float) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the tables of an experiment, by name."""
    samples, n_draws = scores.samples(), scores.n_draws
    summaries, resamples = [], []
    firsts = [*(n for n in _FIRST if n < n_draws), n_draws]
    for first in firsts:
        of_first = {m: values[:first] for m, values in samples.items()}
        means = {m: pair_means(values, TESTS, scores.rows) for m, values in of_first.items()}
        summaries.append(pvalue_summary(of_first, means, alpha).reset_index())
        resamples.append(
            pd.DataFrame(
                [
                    {"draws": first, "method": m}
                    | {f"resample_{k}": v for k, v in enumerate(own["mean_pvalue_ttest"].drawn)}
                    for m, own in means.items()
                ]
            )
        )
    yield "pvalues", pd.concat(summaries)
    yield "resamples", pd.concat(resamples)
    yield "significance", significance_table(samples, "ttest", alpha, alpha).reset_index()
    estimates = mean_pvalue_estimates(scores, "ttest")
    limits = mean_pvalue_intervals(estimates)
    yield (
        "checkpoints",
        pd.DataFrame(
            [
                {"checkpoints": k, "method": m, "mean_pvalue": own.value}
                | {end: limits[m, end].loc[k] for end in ("low", "high")}
                for k, of_methods in estimates.items()
                for m, own in of_methods.items()
            ]
        ),
    )
    yield "correlations", correlations_of(samples)[1]
    yield "variance", variance_components_table(scores.scores)[[*_COMPONENTS]].reset_index()
    yield "draws_needed", power_table(samples, alpha).reset_index()
    by_method = {m: stability(values, alpha) for m, values in scores.scores.items()}
    yield "stability", pd.concat(by_method, names=["method"]).reset_index(level=0)
    if found := agreements(samples, alpha):
        yield "agreement", agreement_table(found).rename_axis("method").reset_index()
        by_seed = {
            c: pd.DataFrame({m: own.of_seeds[c] for m, own in found.items()}, scores.common_seeds)
            for c in COEFFICIENTS
        }
        yield "agreement_by_seed", pd.concat(by_seed, names=["coefficient", "seed"]).reset_index()
    yield "size_by_seed", _sizes(scores)
    yield "top_samples", consistency_table(samples)
    if (distributions := loo_distributions(scores)) is not None:
        yield "distribution_tests", both_tests(distributions, alpha).reset_index()
        yield "distributions", quantities_table(distributions).reset_index()
    if scores.floors:
        seeds = scores.common_seeds
        floors = {n: floor_table(scores.at_seeds(seeds[:n]), alpha) for n in firsts}
        yield "floor", pd.concat(floors, names=["draws"]).reset_index()
    if n_draws >= 2 * FEW:
        few = {m: compare_few_with_many(values, FEW, alpha) for m, values in samples.items()}
        yield "few_against_many", pd.concat(few, names=["method"]).reset_index()


def _sizes(scores: ExperimentScores) -> pd.DataFrame:
    """Return the root mean square of each method's scores, by seed."""
    sizes = {
        m: np.sqrt(np.mean(values.astype(np.float64) ** 2, axis=(1, 2, 3)))
        for m, values in scores.scores.items()
    }
    return pd.DataFrame({"seed": scores.common_seeds, **sizes})


def _seed_ids(scores: ExperimentScores) -> list[int]:
    """Return the numbers of the seeds that scores are of."""
    numbers = numbers_of_seeds()
    return [numbers[seed] for seed in scores.common_seeds]


def _sources(scores: ExperimentScores, paths: Paths) -> dict[str, pd.DataFrame]:
    """Return the variance by source of randomness, where its variants' scores are there, too."""
    experiment = scores.experiment
    if experiment.randomness:
        return {}
    samples = {"both": scores.samples()}
    for source in ("init", "batch"):
        variant = parse_experiment(f"{experiment.name}_{source}")
        files = (paths.scores(variant, m, s) for m in scores.scores for s in scores.common_seeds)
        if all(file.exists() for file in files):
            found = load_scores(paths, variant, _seed_ids(scores), allow_missing=False)
            samples[source] = found.samples()
    if len(samples) == 1:
        return {}
    return {"sources": variance_by_source(samples).rename_axis("method").reset_index()}


def _accuracy(scores: ExperimentScores, paths: Paths, alpha: float) -> dict[str, pd.DataFrame]:
    """Return what accuracy comes down to, where models were trained on subsets by all seeds."""
    experiment = scores.experiment
    if not scores.rows.are_all or not all(
        paths.subsets(experiment, TRUTH, seed).exists() for seed in scores.common_seeds
    ):
        return {}
    scores, losses = with_subsets(paths, scores)
    accuracy = Accuracy.of(scores, losses)
    seconds = {m: mean_seconds(paths, experiment, m, scores.common_seeds) for m in scores.scores}
    by_draws = accuracy.by_draws(scores.trainings(), seconds)
    return {
        "accuracy_by_method": accuracy.by_method(alpha)
        .assign(subsets=len(losses.masks))
        .reset_index(),
        "accuracy": accuracy.with_limits(),
        "accuracy_by_draws": by_draws.rename(columns={"draws": "draws_averaged"}),
    }


def _mislabelled(scores: ExperimentScores, paths: Paths) -> dict[str, pd.DataFrame]:
    """Return how well flipped labels are found, where there are any and what finds them."""
    experiment, at = scores.experiment, Paths(paths.root, on_itself=True)
    files = (at.scores(experiment, m, s) for m in scores.scores for s in scores.common_seeds)
    if not experiment.label_noise or not all(file.exists() for file in files):
        return {}
    scores, own = with_self_influence(paths, scores, _seed_ids(scores), allow_missing=False)
    labels, true_labels = labels_of(paths, scores)
    found = detections(scores.samples(), own.samples(), labels != true_labels)
    return {"mislabelled": detection_table(found).reset_index()}
