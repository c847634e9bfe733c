"""The study of MNIST: the small tanh network, with several weight decays (figure 3 of the slides).

At the scale paper training is as published: 5,500 images, 500,000 steps of Adam, 30,000 steps
without a sample. On two cores that takes weeks. At the scale quick there are 200 images and 300
steps of Adam, 1,000 without decay. With weight decay both trainings then go on by L-BFGS
(`src.fragility.quasi_newton`): the optimum to a stated decrement, retraining to a thousandth of the
decrement that leaving the sample out makes; the table says what the norms of the gradients are
there. Without decay there is no minimum to be reached, once all images are classified rightly: the
weights grow for ever. What is called an optimum there is where Adam's steps end, and retraining is
6 % as many of them, as published.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from src.data.samples import Samples

SEEDS_TOGETHER = False
ALL_GROUPS = "top_highest top_median percentile_highest"
DECAYS = (1e-3, 0.0, 1e-4, 1e-2, 1e-1)  # the published one, none, and those of figure 3 (c)


@dataclass(frozen=True)
class Configuration:
    """One weight decay, and how its network is trained.

    Attributes:
        decay: Weight decay.
        damp: What is added to the Hessian's diagonal: the decay, or a small number without.
        n_per_class: Training images of each class.
        n_test_per_class: Test images of each class, among which the test points are.
        steps: Steps of Adam from the initialisation.
        batch_size: Images in each.
        learning_rate: Of Adam at first; a tenth and then a hundredth after the two drops.
        first_drop: Share of the steps before the first drop.
        second_drop: Share of the steps before the second.
        rounds: Coordinates in which L-BFGS goes on from there, at most; 0: Adam's end is called the
            optimum.
        near: Decrement below which they are the Hessian's and not the Gauss–Newton matrix's.
        iterations: Of L-BFGS in each, at most.
        tolerance: Decrement at which it ends.
        retraining: Steps from the optimum without a sample: of L-BFGS where there are rounds, at
            most, else of Adam at its last learning rate.
        retraining_tolerance: Share of the decrement of its beginning at which L-BFGS ends.
        n_removed: Samples that are left out, one at a time, of each group.
        groups: Which groups, see `src.fragility.points.groups_of`.
    """

    decay: float
    damp: float
    n_per_class: int
    n_test_per_class: int
    steps: int
    batch_size: int
    learning_rate: float
    first_drop: float
    second_drop: float
    rounds: int
    near: float
    iterations: int
    tolerance: float
    retraining: int
    retraining_tolerance: float
    n_removed: int
    groups: str

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"decay{self.decay:g}"


def configurations(scale: str) -> list[Configuration]:
    """Return the configurations, the published decay first."""
    quick = scale == "quick"
    return [
        Configuration(
            decay,
            damp=decay or 1e-3,
            n_per_class=20 if quick else 550,
            n_test_per_class=100,
            steps=(300 if decay else 1_000) if quick else 500_000,
            batch_size=50 if quick else 500,
            learning_rate=1e-2 if quick else 1e-4,
            # Published: 10,000 and 20,000 epochs of 11 steps (Koh and Liang 2017).
            first_drop=0.6 if quick else 0.22,
            second_drop=0.8 if quick else 0.44,
            rounds=20 if quick and decay else 0,
            near=2e-3,
            iterations=400,
            tolerance=1e-7,
            retraining=(400 if decay else 60) if quick else 30_000,
            retraining_tolerance=1e-3,
            n_removed=20 if quick else 100,
            groups=ALL_GROUPS if decay in DECAYS[:2] else "top_highest",
        )
        for decay in DECAYS
    ]


def load(configuration: Configuration, source: Path | None) -> tuple[Samples, Samples]:
    """Return training and test images."""
    from src.fragility.images import load_images

    c = configuration
    train, test, _ = load_images("mnist", c.n_per_class, c.n_test_per_class, source)
    return train, test


def measure(
    configuration: Configuration,
    seeds: list[int],
    device: torch.device,
    data: tuple[Samples, Samples],
) -> Iterator[dict[str, Any]]:
    """Yield what is measured of each seed, see `src.fragility.mnist_measurement`."""
    from src.fragility.mnist_measurement import measured

    train, test = (samples.to(device) for samples in data)
    return (measured(configuration, seed, train, test) for seed in seeds)


def report(results: dict[str, dict[int, dict[str, Any]]], folder: Path) -> list[str]:
    """Write tables and figures, see `src.fragility.images_report`."""
    from src.fragility.images_report import write_mnist

    return write_mnist(results, folder)
