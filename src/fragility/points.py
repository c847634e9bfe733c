"""Which test points are asked about, and which training samples are left out."""

from __future__ import annotations

import torch
from torch import Tensor

TEST_POINTS = ("highest", "median")  # by their loss
PERCENTILE = 0.3


def test_points(losses: Tensor) -> Tensor:
    """Return the positions (2,) of the test samples of highest and of median loss; losses (n,)."""
    order = losses.argsort(stable=True)
    return order[[-1, (len(order) - 1) // 2]]


def groups_of(
    influence: Tensor, n_removed: int, *, with_percentile: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return which training samples are left out, and which of them each group consists of.

    Groups are, for each test point, the samples whose predicted influence on its loss is largest in
    size, and for the one of highest loss those around the 30th percentile of size.

    Args:
        influence: Predicted changes of the two test points' losses, (n, 2).
        n_removed: Samples in each group.
        with_percentile: Whether there is the last group.

    Returns:
        Positions (K,), ascending, and by group where in these its samples stand.
    """
    order = influence.abs().argsort(dim=0, stable=True)  # ascending
    groups = {f"top_{name}": order[-n_removed:, k] for k, name in enumerate(TEST_POINTS)}
    if with_percentile:
        first = max(0, round(PERCENTILE * len(order)) - n_removed // 2)
        groups["percentile_highest"] = order[first : first + n_removed, 0]
    removed = torch.cat([*groups.values()]).unique()
    return removed, {name: torch.searchsorted(removed, g) for name, g in groups.items()}


def column_of(group: str) -> int:
    """Return which of the TEST_POINTS a group belongs to."""
    return TEST_POINTS.index(group.split("_")[-1])
