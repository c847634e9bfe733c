"""Leave-one-out beside its floor: what evaluating once more changes, and what leaving z_j out does.

A score is the difference of two losses. The floor is the score of a member that leaves nothing out:
0 to rounding where an evaluation is a function of the model. Where a test sample is cropped at
random whenever it is evaluated, as a ViT's are in the published code, the same model gives another
loss each time, and the floor is as large as that. All members of a seed are evaluated on the same
crops, and the checkpoints on others: a score less the floor compares two models on the same ones.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from src.analysis.scores import ExperimentScores
from src.analysis.significance import false_discoveries_controlled
from src.analysis.stats import pvalues


def floor_table(scores: ExperimentScores, alpha: float) -> pd.DataFrame:
    """Return leave-one-out's scores, its floor and their difference in a few numbers.

    Args:
        scores: The scores, leave-one-out's with its floor among them.
        alpha: Significance level, and false discovery rate.

    Returns:
        Rows "score", "floor" and "less_floor"; columns `mean_pvalue`, `significant` and
        `discoveries` over pairs, the floor's over test samples; `median_size` of single draws; and
        the mean `variance` over seeds.
    """
    samples = scores.samples()["loo"]
    floors = np.stack([scores.floors[seed] for seed in scores.common_seeds])
    floor = floors.mean(axis=1, dtype=np.float64)[:, None]  # (T, 1, n_test)
    rows = {"score": samples, "floor": floor, "less_floor": samples - floor}
    return pd.DataFrame.from_dict(
        {name: _in_numbers(values, alpha) for name, values in rows.items()}, orient="index"
    ).rename_axis("of")


def _in_numbers(samples: np.ndarray, alpha: float) -> dict[str, float]:
    p = pvalues(samples)
    return {
        "mean_pvalue": p.mean(),
        "significant": (p < alpha).mean(),
        "discoveries": false_discoveries_controlled(p, alpha).mean(),
        "median_size": np.median(np.abs(samples)),
        "variance": samples.var(axis=0, ddof=1).mean(),
    }
