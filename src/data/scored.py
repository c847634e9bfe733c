"""Which training samples are scored, where not all are: a balanced random sample.

Scores of some rows of the pair matrix say what those of all rows are like, at a part of the cost.
Training is on all samples in any case.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from src.errors import UserError

# Of its own, so that all methods, models and seeds of training score the same samples.
SEED = 2023


def balanced_order(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return positions (N,) in an order whose every beginning is a balanced random sample.

    Samples are shuffled, and so are the classes. Then each class in turn gives its next sample, as
    long as it has one. So of any number of samples no two classes that have enough give numbers
    that differ by more than one, and a larger sample holds every smaller one.

    Args:
        labels: Class of each sample, (N,). Of values, which need no balance, a plain random order.
        rng: What is drawn from.
    """
    shuffled = rng.permutation(len(labels))
    if labels.dtype.kind == "f":
        return shuffled
    classes = rng.permutation(np.unique(labels))
    of_classes = [shuffled[labels[shuffled] == c] for c in classes]
    turns = np.concatenate([np.arange(len(own)) for own in of_classes])
    return np.concatenate(of_classes)[np.argsort(turns, kind="stable")]


def check_number(n_scored: int, n_most: int, whose: str) -> None:
    """Check how many training samples are to be scored.

    Args:
        n_scored: Their number K.
        n_most: How many there are to choose from.
        whose: Whose samples they are, for people.

    Raises:
        UserError: K is no number from 1 to `n_most`.
    """
    if type(n_scored) is not int or not 1 <= n_scored <= n_most:
        raise UserError(
            f"train_samples is {n_scored!r}, and {whose} has {n_most} training samples to score: "
            f"choose a whole number from 1 to {n_most}"
        )


def scored_positions(
    labels: Tensor, n_scored: int | None, whose: str, among: Tensor | None = None
) -> Tensor:
    """Return the positions of the training samples that are scored, ascending, int64 (K,).

    Args:
        labels: Class or value of each training sample, (n_train, ...).
        n_scored: K; None: all.
        whose: Whose samples they are, for people.
        among: Positions to choose from; None: all.

    Raises:
        UserError: K is no number from 1 to that of the samples to choose from.
    """
    among = torch.arange(len(labels)) if among is None else among.sort().values
    if n_scored is None:
        return among
    check_number(n_scored, len(among), whose)
    order = balanced_order(labels[among].cpu().numpy(), np.random.default_rng(SEED))
    return among[np.sort(order[:n_scored])]
