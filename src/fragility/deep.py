"""The study of deep networks on MNIST and CIFAR-10 (table 1 of the slides).

The published learning rates, numbers of steps and settings of the solver are not known. Here
training is by Adam, whose learning rate falls to a tenth towards the end, which retraining keeps;
influence is by conjugate gradient on the Gauss–Newton matrix, which has no negative curvature where
training has not come to a minimum, as none of these does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from src.data.samples import Samples
    from src.experiments import Task

SEEDS_TOGETHER = False
NETWORKS = ("lenet", "vgg13", "vgg14", "resnet18", "resnet50")
IMAGES = ("mnist", "cifar10")
DECAY = 1e-3
RETRAINED = 0.06  # share of the training's steps


@dataclass(frozen=True)
class Configuration:
    """One network on one set of images, with or without weight decay.

    Attributes:
        network: One of NETWORKS.
        images: One of IMAGES.
        decay: Weight decay.
        damp: What is added to the Gauss–Newton matrix's diagonal beside the decay.
        n_per_class: Training images of each class; None: all there are.
        n_test_per_class: Test images of each class, among which the test points are.
        steps: Steps of Adam from the initialisation.
        batch_size: Images in each.
        learning_rate: Of Adam at first, a tenth after the drop.
        drop: Share of the steps before the drop.
        retraining: Steps from the optimum without a sample, by a fresh Adam, at the last learning
            rate.
        n_removed: Samples of largest influence on each test point that are left out, one at a time.
        cg_iterations: Of conjugate gradient, at most.
        cg_tolerance: Relative residual at which it ends.
    """

    network: str
    images: str
    decay: float
    damp: float
    n_per_class: int | None
    n_test_per_class: int
    steps: int
    batch_size: int
    learning_rate: float
    drop: float
    retraining: int
    n_removed: int
    cg_iterations: int
    cg_tolerance: float

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.network}_{self.images}_decay{self.decay:g}"


def configurations(scale: str) -> list[Configuration]:
    """Return the configurations, in the order of the slides' table.

    At the scale quick there are 500 images, in batches of 50: LeNet has 60 epochs of them, the
    larger networks 20, and without half as many images each is retrained.
    """
    quick = scale == "quick"
    steps = {n: (600 if n == "lenet" else 200) if quick else 20_000 for n in NETWORKS}
    return [
        Configuration(
            network,
            images,
            decay,
            damp=1e-2,
            n_per_class=50 if quick else None,
            n_test_per_class=20 if quick else 1_000 if images == "cifar10" else 850,
            steps=steps[network],
            batch_size=50 if quick else 128,
            learning_rate=1e-4 if network.startswith("vgg") else 1e-3,
            drop=0.6,
            retraining=round(RETRAINED * steps[network]),
            n_removed=20 if quick and network != "lenet" else 40,
            cg_iterations=20 if quick and network != "lenet" else 100,
            cg_tolerance=1e-3,
        )
        for network in NETWORKS
        for images in IMAGES
        for decay in (DECAY, 0.0)
    ]


def load(configuration: Configuration, source: Path | None) -> tuple[Samples, Samples, Task]:
    """Return training images, test images, and their task."""
    from src.fragility.images import load_images

    c = configuration
    return load_images(c.images, c.n_per_class, c.n_test_per_class, source)


def measure(
    configuration: Configuration,
    seeds: list[int],
    device: torch.device,
    data: tuple[Samples, Samples, Task],
) -> Iterator[dict[str, Any]]:
    """Yield what is measured of each seed, see `src.fragility.deep_measurement`."""
    from src.fragility.deep_measurement import measured

    train, test, task = data
    train, test = train.to(device), test.to(device)
    return (measured(configuration, seed, train, test, task.n_classes) for seed in seeds)


def report(results: dict[str, dict[int, dict[str, Any]]], folder: Path) -> list[str]:
    """Write tables and figures, see `src.fragility.images_report`."""
    from src.fragility.images_report import write_deep

    return write_deep(results, folder)
