"""How well predicted changes fit those that retraining made, and what seeds leave open of it."""

from __future__ import annotations

import numpy as np
from scipy.stats import t as student_t

from src.analysis.bootstrap import LEVEL
from src.analysis.stats import COEFFICIENTS, correlation, moments


def agreement(predicted: np.ndarray, actual: np.ndarray) -> dict[str, float]:
    """Return how the changes (K,) that are predicted for K samples fit those of retraining (K,).

    That is Pearson's and Spearman's correlation, the `slope` of the line through 0 that fits the
    actual changes by the predicted ones best, 1 where the scale is right, and `same_sign`, the
    share of samples whose changes have one sign.
    """
    predicted, actual = predicted.astype(np.float64), actual.astype(np.float64)
    found = {name: correlation(predicted, actual, name) for name in COEFFICIENTS}
    square = (predicted**2).sum()
    return {
        **found,
        "slope": float((predicted * actual).sum() / square) if square > 0 else np.nan,
        "same_sign": float((np.sign(predicted) == np.sign(actual)).mean()),
    }


def with_control(
    predicted: np.ndarray, actual: np.ndarray, control: float | np.ndarray
) -> dict[str, float]:
    """Return `agreement` with and without what the control changes, whose names end in `_raw`.

    The control is trained as long, without anything left out. It changes a test loss by one number
    for all samples, which moves no correlation over them, but slopes and signs.

    Args:
        predicted: (K,).
        actual: (K,).
        control: The control's change, one number, or of each sample (K,).
    """
    raw = agreement(predicted, actual)
    return {**agreement(predicted, actual - control), **{f"{k}_raw": v for k, v in raw.items()}}


def over_seeds(values: np.ndarray) -> tuple[float, float, float]:
    """Return the mean of T seeds' values and the limits of its 95 % interval by Student's t.

    Seeds without a value (NaN) are left out; of fewer than two there are no limits.
    """
    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return (float(values[0]) if len(values) else np.nan), np.nan, np.nan
    mean, std = (float(m) for m in moments(values))
    reach = float(student_t.isf((1 - LEVEL) / 2, len(values) - 1)) * std / len(values) ** 0.5
    return mean, mean - reach, mean + reach
