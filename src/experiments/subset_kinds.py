"""Kinds of random subsets of the training set that models are trained on. Nothing heavy here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SubsetKind:
    """A kind of random subsets.

    Attributes:
        name: What arguments and files call it.
        n_subsets: Default number of subsets of a seed; of permutations, of permutations.
        size: What decides how large a subset is: "fraction", "inclusion" or nothing.
        help: What it is, for people.
    """

    name: str
    n_subsets: int
    size: str
    help: str


TRUTH, HALF, INDEPENDENT, PERMUTATIONS = "truth", "half", "independent", "permutations"
SUBSET_KINDS: dict[str, SubsetKind] = {
    kind.name: kind
    for kind in (
        SubsetKind(
            TRUTH, 100, "fraction", "a fixed number of samples, the same subsets for all seeds"
        ),
        SubsetKind(HALF, 200, "fraction", "a fixed number of samples, drawn anew for each seed"),
        SubsetKind(INDEPENDENT, 200, "inclusion", "each sample is in or out by itself"),
        SubsetKind(PERMUTATIONS, 10, "", "the prefixes of random permutations"),
    )
}
FRACTION, INCLUSION = 0.5, 0.5  # defaults
