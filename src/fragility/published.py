"""Table 1 of the slides of Basu, Pope and Feizi: single runs, without intervals.

Pearson's and Spearman's correlation of predicted and actual changes of the test loss for the points
of largest influence: with weight decay at the test point of highest loss and at that of median
loss, and without decay, where the slides name no test point: it is put beside ours of highest loss.
"""

from __future__ import annotations

Coefficients = tuple[float, float]  # Pearson, Spearman

# By network and images: with decay (highest, median), and without.
_TABLE: dict[tuple[str, str], tuple[Coefficients, Coefficients, Coefficients]] = {
    ("small", "mnist"): ((0.95, 0.87), (0.92, 0.82), (0.41, 0.35)),
    ("lenet", "mnist"): ((0.83, 0.51), (0.28, 0.29), (0.18, 0.12)),
    ("lenet", "cifar10"): ((0.81, 0.69), (0.45, 0.46), (0.19, 0.09)),
    ("vgg13", "mnist"): ((0.34, 0.44), (0.29, 0.18), (0.38, 0.31)),
    ("vgg13", "cifar10"): ((0.67, 0.63), (0.66, 0.63), (0.79, 0.73)),
    ("vgg14", "mnist"): ((0.32, 0.26), (0.28, 0.22), (0.21, 0.11)),
    ("vgg14", "cifar10"): ((0.61, 0.59), (0.49, 0.41), (0.75, 0.64)),
    ("resnet18", "mnist"): ((0.49, 0.26), (0.39, 0.35), (0.14, 0.11)),
    ("resnet18", "cifar10"): ((0.64, 0.42), (0.25, 0.26), (0.72, 0.69)),
    ("resnet50", "mnist"): ((0.24, 0.22), (0.29, 0.19), (0.08, 0.13)),
    ("resnet50", "cifar10"): ((0.46, 0.36), (0.24, 0.09), (0.32, 0.14)),
}


def published(network: str, images: str, *, decays: bool, point: str) -> dict[str, float]:
    """Return the published coefficients by name; nothing where there are none.

    Args:
        network: As the study of deep networks names it, or "small".
        images: "mnist" or "cifar10".
        decays: Whether there is weight decay.
        point: "highest" or "median".
    """
    if (network, images) not in _TABLE or (not decays and point != "highest"):
        return {}
    highest, median, without = _TABLE[network, images]
    found = (median if point == "median" else highest) if decays else without
    return dict(zip(("pearson", "spearman"), found, strict=True))
