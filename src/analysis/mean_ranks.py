"""Rank correlations of means over draws, for many choices of draws and columns at once.

Spearman's correlation of two rows of K numbers is the product of their unit ranks: ranks less their
mean, with length 1. Equal numbers share the mean of their ranks, as in scipy. Two rules stand where
the coefficient is not defined: a prediction that is the same for all K ranks nothing, and counts as
0; a target that is the same for all K cannot be ranked, and is left out (NaN).

Sums that are equal but for rounding are equal here: numbers are compared to 2^-40 of the largest of
a row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_STEPS = 2.0**40  # that the largest number of a row is divided into


@dataclass(frozen=True)
class Weighting:
    """Choices of draws: which predictions are averaged, and which targets, N times.

    Attributes:
        predicted: Weights of the T draws of the predictions, (N, T), each row summing to 1.
        target: Weights of the T draws of the targets, likewise.
    """

    predicted: np.ndarray
    target: np.ndarray


def unit_ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks less their mean, with length 1; 0 in a row whose values are all equal.

    Args:
        values: Finite numbers (..., K).

    Returns:
        float64 (..., K): the product of two rows is Spearman's correlation.
    """
    n = values.shape[-1]
    bits = n.bit_length()
    largest = np.abs(values).max(axis=-1, keepdims=True)
    scale = np.divide(_STEPS, largest, out=np.zeros_like(largest, np.float64), where=largest > 0)
    # The position stands in the last bits of what is sorted: several times as fast as argsort.
    keys = np.rint(values * scale).astype(np.int64) << bits
    keys |= np.arange(n)
    keys.sort(axis=-1)
    order = keys & ((1 << bits) - 1)
    keys >>= bits
    starts = keys[..., 1:] != keys[..., :-1]  # a run of equal numbers starts behind it
    position = np.arange(n)
    places = np.broadcast_to(position.astype(np.float64), values.shape)
    if not starts.all():
        first, last = np.zeros_like(order), np.full_like(order, n - 1)
        first[..., 1:] = np.where(starts, position[1:], 0)
        last[..., :-1] = np.where(starts, position[:-1], n - 1)
        first = np.maximum.accumulate(first, axis=-1)
        last = np.minimum.accumulate(last[..., ::-1], axis=-1)[..., ::-1]
        places = (first + last) / 2
    centred = np.empty(values.shape)
    np.put_along_axis(centred, order, places - (n - 1) / 2, axis=-1)
    length = np.sqrt((centred**2).sum(axis=-1, keepdims=True))
    return np.divide(centred, length, out=centred, where=length > 0)


def target_ranks(values: np.ndarray) -> np.ndarray:
    """Return `unit_ranks` of what is predicted: NaN in a row whose values are all equal."""
    ranked = unit_ranks(values)
    ranked[~ranked.any(axis=-1)] = np.nan
    return ranked


def weighted_means(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return N means (N, ...) over draws of values (T, ...), by weights (N, T)."""
    return (weights @ values.reshape(len(values), -1)).reshape(len(weights), *values.shape[1:])


def of_means(predicted: np.ndarray, weights: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return correlations of the predictions' means with targets.

    Args:
        predicted: Predictions (T, m, K).
        weights: Weights of their draws, (N, T).
        target: `target_ranks` of the targets, (N, m, K).

    Returns:
        Spearman's correlations over K, (N, m).
    """
    return _products(unit_ranks(weighted_means(weights, predicted)), target)


def of_draws(ranked: np.ndarray, weights: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return means over draws of the single predictions' correlations with targets.

    Args:
        ranked: `unit_ranks` of the predictions, (T, m, K).
        weights: Weights of their draws, (N, T).
        target: `target_ranks` of the targets, (N, m, K).

    Returns:
        Means of Spearman's correlations over K, (N, m).
    """
    return _products(weighted_means(weights, ranked), target)


def of_own(ranked: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return each draw's correlation with its own target, (T, m).

    Args:
        ranked: `unit_ranks` of the predictions, (T, m, K).
        target: `target_ranks` of the targets, (T, m, K).
    """
    return _products(ranked, target)


def _products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("nmk,nmk->nm", a, b)
