"""The two parts of an experiment's page: reliability of the scores, and agreement of methods."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from src.analysis.distributions import loo_distributions
from src.analysis.scores import ExperimentScores
from src.analysis.stats import pvalues
from src.reports.all_pairs import report_all_pairs
from src.reports.beside import beside
from src.reports.correlations import report_agreement, report_correlations
from src.reports.distributions import report_distributions
from src.reports.overview import Page
from src.reports.pairs import Predict, report_pairs
from src.reports.pvalues import report_pvalues
from src.reports.report import Item, Report
from src.reports.variance import report_draws, report_top_samples

RELIABILITY = "Reliability of the scores"
AGREEMENT = "Agreement between methods"


def write_reliability(
    page: Page,
    scores: ExperimentScores,
    images: dict[str, dict],
    predict: Predict,
    *,
    test: str,
    alpha: float,
    test_index: int | None = None,
) -> tuple[pd.DataFrame, Path]:
    """Write the part on p-values.

    Args:
        page: The page.
        scores: The scores.
        images: Tensors of the samples, as `src.reports.scores.load_images` returns them.
        predict: Computes predictions.
        test: "ttest", or "snr": the published code's formula, which gets a part of its own.
        alpha: Significance level, and false discovery rate.
        test_index: Index, in its full split, of a test sample whose proponents and opponents are
            wanted.

    Returns:
        The mean p-values, a row for each number of checkpoints and a column for each method, and
        the page's path.

    Raises:
        UserError: A file cannot be written.
    """
    suffix = "" if test == "ttest" else f"_{test}"
    report = page.part(
        f"pvalues{suffix}",
        RELIABILITY + (", by the published formula" if suffix else ""),
        {"test": test, "alpha": alpha, **scores.settings()},
    )
    p = scores.pvalues
    if test != "ttest":
        p = {method: pvalues(samples, test) for method, samples in scores.samples().items()}
    distributions = loo_distributions(scores) if test == "ttest" else None

    def all_pairs(own: Report) -> None:
        if distributions is not None:
            report_distributions(own, scores, distributions, alpha)
        report_all_pairs(own, scores, images, distributions)

    parts = {"pvalues": _part(report, lambda own: report_pvalues(own, scores, test, alpha))}
    if test == "ttest":
        parts["all_pairs"] = _part(report, all_pairs)
        parts["draws"] = _part(report, lambda own: report_draws(own, scores, alpha))
        parts["top_samples"] = _part(report, lambda own: report_top_samples(own, scores))
    pairs = report.empty()
    with beside(*parts.values()) as parts_written:
        report_pairs(pairs, scores, p, images, predict, alpha, test_index, suffix)
        written = dict(zip(parts, parts_written(), strict=True))
    means, _ = written["pvalues"]
    for name in ("pvalues", "draws", "top_samples", "all_pairs"):  # as they stand on the page
        report.items += written[name][1] if name in written else []
    report.items += pairs.items
    return means, page.close(report)


def write_agreement(
    page: Page, scores: ExperimentScores, alpha: float
) -> tuple[dict[tuple[str, str], pd.DataFrame], Path]:
    """Write the part on correlations.

    Args:
        page: The page.
        scores: The scores.
        alpha: Significance level of the t-tests whose answers are compared.

    Returns:
        Frames of method by method, by (statistic, coefficient), and the page's path.

    Raises:
        UserError: A file cannot be written.
    """
    report = page.part("correlations", AGREEMENT, {"alpha": alpha, **scores.settings()})
    agreement = _part(report, lambda own: report_agreement(own, scores, alpha))
    with beside(agreement) as agreement_written:
        matrices = report_correlations(report, scores)
        ((_, items),) = agreement_written()
    report.items += items
    return matrices, page.close(report)


def _part(report: Report, write: Callable[[Report], Any]) -> Callable[[], tuple[Any, list[Item]]]:
    """Return a work that writes some of a report, and returns what `write` does, and the items."""

    def work() -> tuple[Any, list[Item]]:
        own = report.empty()
        return write(own), own.items

    return work
