"""Linear datamodelling score (Park et al. 2023, after Ilyas et al. 2022), in four versions.

For each test sample, Spearman's correlation over subsets S of the training set, of

    −L(z; trained on S)    with    Σ_{j in S} τ(z_j, z), signed so that positive helps;

averaged over test samples. Losses and scores are both means over the last k checkpoints, as the
samples of the t-test are. A score is a random variable and a loss is one, so that four numbers have
this name; which draws are averaged makes the difference:

| version | scores | losses |
|---|---|---|
| `draw_own` | of one draw | of the same draw |
| `draw_mean` | of one draw | mean over draws |
| `mean_mean` | mean over draws | mean over draws |
| `ceiling` | the mean losses over half of the draws | mean over the other half |

The first two are averaged over draws, the last over several ways to halve them.

**The same seeds on both sides.** In the first three, scores and losses are of the same T seeds:
they share initialisation and batches, and leave-one-out even is a difference of such losses. That
is a part of what they agree on, and it says nothing of other trainings. `draw_other` and
`mean_other` are therefore the second and third with no seed on both sides: of the scores of one
half of the seeds (one draw of it, or their mean over ⌊T/2⌋ draws) with the mean losses of the other
half. The ceiling is made in the same way from the same halves, so that these two, and only these,
stand beside it: it is what the losses themselves, of as many other trainings, would predict. A
score with less noise than ⌊T/2⌋ losses could be above it.

**Intervals** are over seeds and test samples (`src.analysis.two_ways`). **Undefined correlations**
and ties: see `src.analysis.mean_ranks`.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from src.analysis.bootstrap import Estimate
from src.analysis.mean_ranks import (
    Weighting,
    of_draws,
    of_means,
    of_own,
    target_ranks,
    unit_ranks,
    weighted_means,
)
from src.analysis.two_ways import Halves, estimate, resamples
from src.experiments import METHODS

# What of the T draws is predicted from what, and in words.
VERSIONS = {
    "draw_own": "one draw's scores, its own losses",
    "draw_mean": "one draw's scores, mean losses",
    "mean_mean": "mean scores, mean losses",
    "draw_other": "one draw's scores, mean losses of other seeds",
    "mean_other": "mean scores, mean losses of other seeds",
}
_CEILING = "ceiling"
_NUMBERS_AT_ONCE = 2**21  # 16 MB, some ten times in each thread
_THREADS = 4


def helpful(samples: np.ndarray, method: str) -> np.ndarray:
    """Return samples of scores with the sign 'positive helps'."""
    return METHODS[method].helpful_sign * samples


def subset_sums(samples: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return the sums of the scores of each subset's members, (T, n_test, K).

    Args:
        samples: Samples of scores in helpful sign, (T, n_train, n_test).
        masks: Members of each subset, bool (K, n_train).
    """
    return samples.transpose(0, 2, 1) @ masks.T.astype(np.float64)


@dataclass(frozen=True)
class Agreement:
    """How far predictions rank targets as they are, by version.

    Attributes:
        versions: Estimates by name of VERSIONS.
        ceiling: Of the targets of one half of the draws with those of the other.
    """

    versions: dict[str, Estimate]
    ceiling: Estimate


def datamodelling_scores(
    samples: dict[str, np.ndarray], masks: np.ndarray, losses: np.ndarray
) -> dict[str, Agreement]:
    """Return the linear datamodelling scores of methods, all versions.

    Args:
        samples: Samples of scores (T, n_train, n_test), by method.
        masks: Members of each subset, bool (K, n_train).
        losses: Losses (T, K, n_test), of the same seeds in the same order.
    """

    def sums(method: str, part: slice) -> np.ndarray:
        return subset_sums(helpful(samples[method][..., part], method), masks)

    return rank_agreements(list(samples), sums, -losses.transpose(0, 2, 1))


def agreement_with(samples: dict[str, np.ndarray], reference: str) -> dict[str, Agreement]:
    """Return how far methods rank training samples as another method of other seeds does.

    Spearman's correlation over training samples, of each test sample, averaged over these.

    Args:
        samples: Samples of scores (T, n_train, n_test), by method.
        reference: The other method, whose mean over one half of the seeds is held against a draw,
            and the mean, of the other half.

    Returns:
        By method `draw_other` and `mean_other`, and the reference's own agreement as ceiling.
    """

    def of(method: str, part: slice) -> np.ndarray:
        return helpful(samples[method][..., part], method).transpose(0, 2, 1)

    return rank_agreements(list(samples), of, of(reference, slice(None)), shared=False)


def rank_agreements(
    names: list[str],
    predicted: Callable[[str, slice], np.ndarray],
    target: np.ndarray,
    *,
    shared: bool = True,
) -> dict[str, Agreement]:
    """Return how far predictions rank targets as they are.

    Args:
        names: Of what predicts.
        predicted: Returns predictions (T, m, K), by name, of the test samples of a slice.
        target: What is predicted, (T, n_test, K).
        shared: Whether versions in which both sides have the same draws are wanted, too.
    """
    n_draws, n_test, _ = target.shape
    halves = Halves.of(n_draws)
    split, all_draws = halves.resampled(), resamples(n_draws)[: None if shared else 0]
    n_all = len(all_draws)
    weighting = Weighting(
        np.concatenate([all_draws, split.predicted]), np.concatenate([all_draws, split.target])
    )

    def of_part(part: slice) -> dict[str, dict[str, np.ndarray]]:
        own_target = target[:, part]
        ranked_own = target_ranks(own_target)
        ranked = target_ranks(weighted_means(weighting.target, own_target))
        found = {_CEILING: {"mean_other": of_means(own_target, split.predicted, ranked[n_all:])}}
        for name in names:
            values = predicted(name, part)
            ranked_draws = unit_ranks(values)
            draw = of_draws(ranked_draws, weighting.predicted, ranked)
            mean = of_means(values, weighting.predicted, ranked)
            found[name] = {"draw_other": draw[n_all:], "mean_other": mean[n_all:]}
            if shared:
                own = of_own(ranked_draws, ranked_own)
                found[name] |= {
                    "draw_own": own,
                    "draw_mean": draw[:n_all],
                    "mean_mean": mean[:n_all],
                }
        return found

    by_name = gather(parts(n_test, weighting, target), of_part)

    def estimated(version: str, values: np.ndarray) -> Estimate:
        if version.endswith("_other"):
            return halves.estimate(values)
        return estimate(all_draws, values, n_draws, by_draw=version == "draw_own")

    ceiling = halves.estimate(by_name.pop(_CEILING)["mean_other"])
    return {
        name: Agreement({v: estimated(v, found[v]) for v in VERSIONS if v in found}, ceiling)
        for name, found in by_name.items()
    }


def parts(n_test: int, weighting: Weighting, target: np.ndarray) -> list[slice]:
    """Return slices of the test samples, of as many as are computed at once."""
    n_choices, n_draws = weighting.target.shape
    at_once = max(1, _NUMBERS_AT_ONCE // (max(n_choices, n_draws) * target.shape[-1]))
    return [slice(start, start + at_once) for start in range(0, n_test, at_once)]


def gather(
    slices: list[slice], of_part: Callable[[slice], dict[str, dict[str, np.ndarray]]]
) -> dict[str, dict[str, np.ndarray]]:
    """Return what is computed of slices of the test samples, arrays (N, m), of all of them."""
    with ThreadPoolExecutor(_THREADS) as pool:  # numpy lets other threads run
        found = [*pool.map(of_part, slices)]
    return {
        name: {key: np.concatenate([own[name][key] for own in found], axis=1) for key in first}
        for name, first in found[0].items()
    }
