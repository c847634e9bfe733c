"""How well predicted changes fit those that retraining made, and what seeds leave open of it."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import t as student_t

from src.analysis.bootstrap import LEVEL
from src.analysis.stats import COEFFICIENTS, correlation, moments

# The smallest and the largest possible value, by name.
POSSIBLE = {"pearson": (-1.0, 1.0), "spearman": (-1.0, 1.0), "same_sign": (0.0, 1.0)}
_ANY = -np.inf, np.inf


def possible(name: str) -> tuple[float, float]:
    """Return the smallest and the largest possible value of what a column is called."""
    return POSSIBLE.get(name.removesuffix("_raw"), _ANY)


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


def with_raw(predicted: np.ndarray, actual: np.ndarray, raw: np.ndarray) -> dict[str, float]:
    """Return `agreement` with actual changes, and with raw ones by names that end in `_raw`.

    Actual changes are those of retraining less what the control changes, which is trained as long
    with nothing left out; raw ones are as they are. The control changes a test loss by one number
    for all samples, which moves no correlation over them, but slopes and signs.

    Args:
        predicted: (K,).
        actual: (K,).
        raw: (K,).
    """
    of_raw = agreement(predicted, raw)
    return {**agreement(predicted, actual), **{f"{k}_raw": v for k, v in of_raw.items()}}


def over_seeds(
    values: np.ndarray, within: tuple[float, float] = _ANY
) -> tuple[float, float, float]:
    """Return the mean of T seeds' values and the limits of its 95 % interval by Student's t.

    Seeds without a value (NaN) are left out; of fewer than two there are no limits.

    Args:
        values: (T,).
        within: The smallest and the largest possible value, which limits do not pass.
    """
    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return (float(values[0]) if len(values) else np.nan), np.nan, np.nan
    mean, std = (float(m) for m in moments(values))
    reach = float(student_t.isf((1 - LEVEL) / 2, len(values) - 1)) * std / len(values) ** 0.5
    return mean, max(within[0], mean - reach), min(within[1], mean + reach)


def summary(frame: pd.DataFrame, by: list[str], values: list[str]) -> pd.DataFrame:
    """Return each group's mean over seeds of some columns, with limits and the number of seeds.

    Args:
        frame: A row for each seed of each group.
        by: The columns that name a group.
        values: The columns whose means are taken. POSSIBLE limits those of its names.

    Returns:
        A row for each group and column, in their order: `by`, `value` (the column's name), `mean`,
        `low`, `high` (see `over_seeds`) and `seeds`, the number of those that have a value.
    """
    rows = []
    for group, seeds in frame.groupby(by, sort=False, dropna=False):
        for name in values:
            of = seeds[name].to_numpy()
            mean, low, high = over_seeds(of, possible(name))
            rows.append(
                {
                    **dict(zip(by, group, strict=True)),
                    "value": name,
                    "mean": mean,
                    "low": low,
                    "high": high,
                    "seeds": int(seeds[name].notna().sum()),
                }
            )
    return pd.DataFrame(rows)
