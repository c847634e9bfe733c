"""How many draws buy how much accuracy, and what they cost.

The linear datamodelling score of the mean scores over n of T draws, against the mean losses over
all of them, or (`other`) of n draws of one half of the seeds against the other half (see
`src.analysis.lds`). What n draws cost is n times one: in trainings, the model's own among them, and
in seconds of attribution where that was recorded.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from src.analysis.draws_needed import numbers_of_draws, rotations
from src.analysis.lds import gather, helpful, parts, subset_sums
from src.analysis.mean_ranks import Weighting, of_means, target_ranks, weighted_means
from src.analysis.two_ways import Halves, mean_without_nan

TARGETS = ("all", "other")  # whose mean losses the scores are held against


def accuracy_by_draws(
    samples: dict[str, np.ndarray],
    masks: np.ndarray,
    losses: np.ndarray,
    trainings: dict[str, float],
    seconds: dict[str, float],
) -> pd.DataFrame:
    """Return the linear datamodelling score by method and number of draws.

    Args:
        samples: Samples of scores (T, n_train, n_test), by method.
        masks: Members of each subset, bool (K, n_train).
        losses: Losses (T, K, n_test), of the same seeds in the same order.
        trainings: Trainings that a draw takes, by method.
        seconds: Seconds that the attribution of a draw took, by method; NaN where unknown.

    Returns:
        A row for each method, target (of TARGETS) and number of draws: `method`, `losses`, `draws`,
        `lds`, a mean over rotations of the seeds' order, of single draws over all, or over
        halvings, `trainings`, `seconds`.
    """
    n_draws, _, n_test = losses.shape
    choices = _choices(n_draws)
    weighting = Weighting(
        np.concatenate([own.predicted for own in choices.values()]),
        np.concatenate([own.target for own in choices.values()]),
    )
    target = -losses.transpose(0, 2, 1)

    def of_part(part: slice) -> dict[str, dict[str, np.ndarray]]:
        ranked = target_ranks(weighted_means(weighting.target, target[:, part]))
        return {
            method: {
                "lds": of_means(
                    subset_sums(helpful(own[..., part], method), masks), weighting.predicted, ranked
                )
            }
            for method, own in samples.items()
        }

    by_method = gather(parts(n_test, weighting, target), of_part)
    ends = np.cumsum([len(own.target) for own in choices.values()])[:-1]
    rows = []
    for method, found in by_method.items():
        of_choices = np.split(mean_without_nan(found["lds"]), ends)
        for (losses_of, n), own in zip(choices, of_choices, strict=True):
            rows.append(
                {
                    "method": method,
                    "losses": losses_of,
                    "draws": n,
                    "lds": float(mean_without_nan(own)),
                    "trainings": n * trainings[method],
                    "seconds": n * seconds[method],
                }
            )
    return pd.DataFrame(rows)


def _choices(n_draws: int) -> dict[tuple[str, int], Weighting]:
    """Return which draws are averaged, by target and their number."""
    order, shifts = rotations(n_draws)
    equal = np.full((1, n_draws), 1 / n_draws)
    found = {}
    for n in (1, *numbers_of_draws(n_draws)):
        # Single draws differ most, so that all of them are asked.
        begins = range(n_draws) if n == 1 else shifts if n < n_draws else (0,)
        weights = np.stack([_equal(np.roll(order, -first)[:n], n_draws) for first in begins])
        found["all", n] = Weighting(weights, equal.repeat(len(weights), axis=0))
    halves = Halves.of(n_draws)
    target = np.stack([_equal(half, n_draws) for half in halves.second])
    for n in dict.fromkeys((1, *numbers_of_draws(halves.size))):
        # As every number of draws of the half's order begins anew, every seed of it counts alike.
        turns = [np.roll(halves.first, -k, axis=1)[:, :n] for k in range(halves.size)][:10]
        turns = turns if n < halves.size else turns[:1]
        weights = [_equal(own, n_draws) for turn in turns for own in turn]
        found["other", n] = Weighting(np.stack(weights), np.tile(target, (len(turns), 1)))
    return found


def _equal(seeds: np.ndarray, n_draws: int) -> np.ndarray:
    """Return weights (T,) that average some seeds."""
    weights = np.zeros(n_draws)
    weights[seeds] = 1 / len(seeds)
    return weights


def at_equal_cost(by_draws: pd.DataFrame) -> pd.DataFrame:
    """Return what each method reaches for what one draw of the costliest takes, in trainings.

    Args:
        by_draws: What `accuracy_by_draws` returns.

    Returns:
        A row for each method: as many draws as that buys, and are there, and their `lds` against
        the mean losses of all seeds. The first row is the costliest method's; empty where all cost
        the same.
    """
    of_all = by_draws.query("losses == 'all'")
    one = of_all.query("draws == 1").set_index("method")["trainings"]
    budget = one.max()
    if (one == budget).all():
        return of_all.iloc[:0].set_index("method")
    bought = of_all[of_all["trainings"] <= budget]
    bought = bought.loc[bought.groupby("method", sort=False)["draws"].idxmax()]
    first = bought["method"] == one.idxmax()
    return pd.concat([bought[first], bought[~first]]).set_index("method")
