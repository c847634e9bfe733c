"""Words for numbers, which the readings of tables and figures share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

import pandas as pd

from src.analysis.bootstrap import LEAST_DRAWS, LEVEL
from src.analysis.draws_needed import MOST_DRAWS
from src.analysis.rows import MOST_PAIRS, Rows
from src.analysis.scores import ExperimentScores
from src.plots.style import METHOD_LABELS


def listed(parts: Iterable[str]) -> str:
    """Return 'a', 'a and b' or 'a, b and c'."""
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


def counted(n: int, noun: str) -> str:
    """Return '1 seed' or '2 seeds'."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def labels(methods: Iterable[str]) -> str:
    """Return 'LOO, ATS and GC'."""
    return listed(METHOD_LABELS[m] for m in methods)


def percent(share: float) -> str:
    """Return a share in whole percents; 0% and 100% are none and all."""
    text = f"{share:.0%}"
    if text == "0%" and share > 0:
        return "<1%"
    return ">99%" if text == "100%" and share < 1 else text


def decimals(value: float) -> str:
    """Return a correlation or the like with two digits after the point."""
    return f"{value:.2f}".replace("-0.00", "0.00")


def kappa_text(value: float) -> str:
    """Return Cohen's kappa with two digits; 1.00 is the same answer for every pair."""
    text = decimals(value)
    return ">0.99" if text == "1.00" and value < 1 else text


def of_methods(values: pd.Series, form: Callable[[float], str]) -> str:
    """Return 'LOO 0.12, ATS 0.03 and GC not defined', of numbers by method."""
    return listed(
        f"{METHOD_LABELS[m]} {'not defined' if pd.isna(value) else form(value)}"
        for m, value in values.items()
    )


def words_of_draws(n_draws: float) -> str:
    """Return a number of seeds that suffices."""
    return f"{n_draws:.0f}" if n_draws < MOST_DRAWS else f"{MOST_DRAWS} or more"


def told(words: Mapping[str, str], n_draws: int) -> str:
    """Return 'rises for LOO and GD, falls for GC', of what is told of a difference by method.

    Args:
        words: What is said of each method, as far as the intervals of its differences tell.
        n_draws: T.
    """
    if n_draws < LEAST_DRAWS:
        return f"{counted(n_draws, 'seed')} are too few to tell"
    groups: dict[str, list[str]] = {}
    for method, word in words.items():
        groups.setdefault(word, []).append(method)
    return "; ".join(f"{word} for {labels(methods)}" for word, methods in groups.items())


def words_of_rows(rows: Collection[Rows]) -> str:
    """Return how many training samples are scored of how many; empty where these are all."""
    words = {own.words for own in rows}
    if words <= {""}:
        return ""
    if len(words) == 1:
        return words.pop()
    samples = "random samples of the training samples"
    return f"all training samples or {samples}" if "" in words else samples


def words_of_intervals(
    n_draws: int, rows: Collection[Rows] = (), *, of_all_pairs: bool = False
) -> str:
    """Return where confidence intervals come from, or why there are none.

    Args:
        n_draws: T.
        rows: The training samples that are scored, of each experiment, where intervals allow for
            these being a sample.
        of_all_pairs: Whether resamples are of all pairs, however many there are.
    """
    if n_draws < LEAST_DRAWS:
        return f"{counted(n_draws, 'seed')} are too few for confidence intervals"
    words = f"With {LEVEL:.0%} confidence intervals from resampled seeds"
    if words_of_rows(rows):
        words += " and training samples"
    if any(own.n_scored == 1 and not own.are_all for own in rows):
        words += ", none where a single training sample is scored"
    if not of_all_pairs:
        words += f" (resamples are of {MOST_PAIRS:,} random pairs where there are more)"
    return words


def reading_of_left_out(scores: ExperimentScores) -> str:
    """Return what scores there are that nothing rests on; empty if none."""
    sentences = []
    if more := scores.unused_of(shown=True):
        parts = (f"{counted(len(own), 'seed')} of {METHOD_LABELS[m]}" for m, own in more.items())
        sentences.append(
            "All methods are compared by the seeds that all of them have; left out: "
            f"{listed(parts)}."
        )
    if few := scores.unused_of(shown=False):
        parts = (f"{METHOD_LABELS[m]} ({counted(len(own), 'seed')})" for m, own in few.items())
        sentences.append(f"Not shown, since scores of other seeds are missing: {listed(parts)}.")
    return " ".join(sentences)
