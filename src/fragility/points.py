"""Which test points are asked about, and which training samples are left out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

TEST_POINTS = ("highest", "median")  # by their loss
PERCENTILE = 0.3
GROUPS = ("top_highest", "top_median")


def test_points(losses: Tensor) -> Tensor:
    """Return the positions (2,) of the test samples of highest and of median loss; losses (n,)."""
    order = losses.argsort(stable=True)
    return order[[-1, (len(order) - 1) // 2]]


def groups_of(
    influence: Tensor, n_removed: int, names: Sequence[str] = GROUPS
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return which training samples are left out, and which of them each group consists of.

    A group is of one test point: the samples whose predicted influence on its loss is largest in
    size, `top_...`, or those around the 30th percentile of size, `percentile_...`.

    Args:
        influence: Predicted changes of the two test points' losses, (n, 2).
        n_removed: Samples in each group.
        names: Which groups there are.

    Returns:
        Positions (K,), ascending, and by group where in these its samples stand.
    """
    order = influence.abs().argsort(dim=0, stable=True)  # ascending
    middle = max(0, round(PERCENTILE * len(order)) - n_removed // 2)
    firsts = {"top": len(order) - n_removed, "percentile": middle}
    groups = {}
    for name in names:
        first = max(0, firsts[name.split("_")[0]])
        groups[name] = order[first : first + n_removed, column_of(name)].contiguous()
    removed = torch.cat([*groups.values()]).unique()
    return removed, {name: torch.searchsorted(removed, g) for name, g in groups.items()}


def column_of(group: str) -> int:
    """Return which of the TEST_POINTS a group belongs to."""
    return TEST_POINTS.index(group.split("_")[-1])
