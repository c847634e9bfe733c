"""The study of MNIST: the small tanh network, with several weight decays (figure 3 of the slides).

At the scale paper training is as published: 5,500 images, 500,000 steps of Adam, 30,000 steps
without a sample. On two cores that takes weeks. At the scale quick there are 1,100 images, and
after some steps of Adam both trainings go on by L-BFGS in Gauss–Newton coordinates
(`src.fragility.quasi_newton`), in minutes. How near to a stationary point that comes is measured:
the norm of the gradient at the optimum, and where each retraining ended, stand in the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

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
        learning_rate: Of the first 22 % of the steps; a tenth up to 44 %, then a hundredth.
        rounds: Gauss–Newton coordinates in which L-BFGS goes on from there, at most; 0: none.
        iterations: Of L-BFGS in each.
        tolerance: Norm of the gradient at which it ends.
        n_coordinates: Images that these are computed from; at the optimum it is all.
        solver_tolerance: Relative residual at which MINRES ends, with the exact Hessian.
        solver_iterations: Of MINRES, at most.
        retraining: Steps from the optimum without a sample: of L-BFGS where there are rounds, else
            of Adam at its last learning rate.
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
    rounds: int
    iterations: int
    tolerance: float
    n_coordinates: int
    solver_tolerance: float
    solver_iterations: int
    retraining: int
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
            n_per_class=110 if quick else 550,
            n_test_per_class=100,
            steps=440 if quick else 500_000,
            batch_size=50 if quick else 500,
            learning_rate=3e-3 if quick else 1e-4,
            rounds=10 if quick else 0,
            iterations=30,
            tolerance=1e-6,
            n_coordinates=550,
            solver_tolerance=1e-6,
            solver_iterations=60 if quick else 300,
            retraining=4 if quick else 30_000,
            n_removed=40 if quick else 100,
            groups=ALL_GROUPS if decay in DECAYS[:2] else "top_highest",
        )
        for decay in DECAYS
    ]


def measure(
    configuration: Configuration, seeds: list[int], device: torch.device, source: Path | None
) -> Iterator[dict[str, Any]]:
    """Yield what is measured of each seed, see `src.fragility.mnist_measurement`."""
    from src.fragility.images import load_images
    from src.fragility.mnist_measurement import measured

    c = configuration
    train, test, _ = load_images("mnist", c.n_per_class, c.n_test_per_class, source)
    return (measured(c, seed, train.to(device), test.to(device)) for seed in seeds)


def report(results: dict[str, dict[int, dict[str, Any]]], folder: Path) -> list[str]:
    """Write tables and figures, see `src.fragility.images_report`."""
    from src.fragility.images_report import write_mnist

    return write_mnist(results, folder)
