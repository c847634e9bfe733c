"""How well scores find training samples whose labels were flipped.

Two numbers of a training sample say that it may be mislabelled:

- self: its score on itself in helpful sign. Only the sample itself teaches a network a wrong label,
  so a mislabelled one is to itself most helpful (Pruthi et al. 2020, section 4.1);
- test: minus the mean over test samples of its score in helpful sign, as it harms these.

How well a number finds them is the area under the ROC curve: the chance that a flipped sample has
more of it than one that is not flipped, a tie counting half. It is 1/2 of noise, and of a method to
which all samples are alike. Numbers that are equal to five digits are ties, as those of grad-cos,
whose score of a sample on itself is 1 but for rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from src.analysis.stats import ranks
from src.experiments import METHODS

BY = ("self", "test")
_DIGITS = 5


def area_under_curve(values: np.ndarray, flipped: np.ndarray) -> float:
    """Return the chance that a flipped sample has a larger value than another, a tie counting half.

    Args:
        values: Numbers (n,).
        flipped: Which samples are flipped, bool (n,).

    Returns:
        NaN if all samples are flipped, or none.
    """
    n_flipped, n_others = int(flipped.sum()), int((~flipped).sum())
    if not n_flipped or not n_others:
        return np.nan
    above = ranks(_rounded(values))[flipped].sum() - n_flipped * (n_flipped + 1) / 2
    return float(above / (n_flipped * n_others))


def _rounded(values: np.ndarray) -> np.ndarray:
    """Return numbers (n,) to five significant digits; written out, equal ones are equal."""
    return np.array([float(f"{value:.{_DIGITS - 1}e}") for value in values])


@dataclass(frozen=True)
class Detection:
    """How well one method finds flipped samples by one of BY.

    Attributes:
        suspicion: Mean over T draws of the number that is large of a flipped sample, (n_scored,).
        of_draws: Area under the curve of each draw's numbers, (T,).
        of_mean: That of the mean over draws.
    """

    suspicion: np.ndarray
    of_draws: np.ndarray
    of_mean: float

    @classmethod
    def of(cls, suspicions: np.ndarray, flipped: np.ndarray) -> Detection:
        """Hold numbers (T, n_scored) against which samples are flipped, bool (n_scored,)."""
        mean = suspicions.mean(axis=0)
        areas = np.array([area_under_curve(own, flipped) for own in suspicions])
        return cls(mean, areas, area_under_curve(mean, flipped))


def detections(
    on_test: dict[str, np.ndarray], on_itself: dict[str, np.ndarray], flipped: np.ndarray
) -> dict[tuple[str, str], Detection]:
    """Return how well each method finds flipped samples, by (method, one of BY).

    Args:
        on_test: Samples (T, n_scored, n_test), by method.
        on_itself: Samples (T, n_scored, n_scored) of the training samples on each other.
        flipped: Which of them are flipped, bool (n_scored,).
    """
    found = {}
    for method in METHODS:
        sign = METHODS[method].helpful_sign
        if method in on_itself:
            own = sign * on_itself[method].diagonal(axis1=1, axis2=2)
            found[method, "self"] = Detection.of(own, flipped)
        if method in on_test:
            harm = -sign * on_test[method].mean(axis=2)
            found[method, "test"] = Detection.of(harm, flipped)
    return found


def detection_table(found: dict[tuple[str, str], Detection]) -> pd.DataFrame:
    """Return the areas under the curves, a row for each method and one of BY.

    Returns:
        `draws`, T; `one_draw`, the mean over draws, beside the `least` and the `largest`;
        `mean_of_draws`, that of the mean over draws.
    """
    rows = {
        key: {
            "draws": len(own.of_draws),
            "one_draw": own.of_draws.mean(),
            "least": own.of_draws.min(),
            "largest": own.of_draws.max(),
            "mean_of_draws": own.of_mean,
        }
        for key, own in found.items()
    }
    frame = pd.DataFrame.from_dict(rows, orient="index")
    return frame.set_axis(pd.MultiIndex.from_tuples(rows, names=["method", "by"]))


def ranking_table(
    found: dict[tuple[str, str], Detection],
    train_idx: np.ndarray,
    labels: np.ndarray,
    true_labels: np.ndarray,
) -> pd.DataFrame:
    """Return where each training sample stands, by each method.

    Args:
        found: What `detections` returns.
        train_idx: Index of each scored training sample, (n_scored,).
        labels: The label that was trained on, (n_scored,).
        true_labels: Its true label.

    Returns:
        `train_index`, `label`, `true_label` and, by each key, the rank of the mean over draws, 1
        for the most suspicious, ties sharing their mean; the flipped samples first.
    """
    columns = {"train_index": train_idx, "label": labels, "true_label": true_labels}
    for (method, by), own in found.items():
        columns[f"{method}_{by}"] = ranks(-_rounded(own.suspicion))
    frame = pd.DataFrame(columns)
    is_flipped = frame["label"] != frame["true_label"]
    return frame.iloc[np.argsort(~is_flipped, kind="stable")]
