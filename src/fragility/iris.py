"""The study of iris: small perceptrons, of depths and widths, with and without weight decay."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

SEEDS_TOGETHER = True
DEPTHS = tuple(range(1, 9))  # at WIDTH
WIDTHS = (5, 8, 14, 20, 30, 40, 50)  # at depth 1
WIDTH = 5
BASE = "relu", 1, WIDTH  # the published network, of which every estimator is asked
SMOOTH_DEPTHS = (1, 4)  # also with tanh, whose minima are stationary: those of ReLU lie on kinks
DECAYS = (5e-3, 0.0)


@dataclass(frozen=True)
class Configuration:
    """One network and its training.

    Attributes:
        depth: Number of hidden layers.
        width: Units of each.
        activation: Of the units, "relu" or "tanh".
        decay: Weight decay.
        damp: What is added to the curvature's diagonal: the decay, or a small number without.
        rate: Learning rate of gradient descent.
        settling: The share of each training, at its end, in which the rate is a tenth: minima of
            ReLU lie on kinks, about which steps jump as far as they are long.
        steps: Steps from the initialisation to what is called the optimum.
        retraining_steps: Steps from there without a sample.
        n_removed: Number of training samples that are left out, those of largest loss.
        response_steps: Steps to the proximal Bregman response.
        lissa_steps: Steps of LiSSA's recursion; 0: LiSSA is left out.
        lissa_batch: Samples in each.
        lissa_scale: Its scale, which is doubled until it is stable.
    """

    depth: int
    width: int
    activation: str
    decay: float
    damp: float
    rate: float
    settling: float
    steps: int
    retraining_steps: int
    n_removed: int
    response_steps: int
    lissa_steps: int
    lissa_batch: int
    lissa_scale: float

    def phases(self, steps: int) -> list[tuple[float, int]]:
        """Return the learning rates of so many steps, and the number of steps at each."""
        settling = round(self.settling * steps)
        return [(self.rate, steps - settling), (self.rate / 10, settling)]

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.activation}_depth{self.depth}_width{self.width}_decay{self.decay:g}"


def configurations(scale: str) -> list[Configuration]:
    """Return the configurations, the published network first.

    At the scale quick every other depth and width is left out and training is a tenth as long.
    """
    quick = scale == "quick"
    depths, widths = (DEPTHS[::2], WIDTHS[::2]) if quick else (DEPTHS, WIDTHS)
    shapes = [("relu", depth, WIDTH) for depth in depths]
    shapes += [("relu", 1, width) for width in widths[1:]]
    shapes += [("tanh", depth, WIDTH) for depth in SMOOTH_DEPTHS]
    return [
        Configuration(
            depth,
            width,
            activation,
            decay,
            damp=decay or 1e-3,
            rate=0.05,  # stable up to eigenvalues of 40
            settling=0.1,
            steps=6_000 if quick else 60_000,
            retraining_steps=750 if quick else 7_500,
            n_removed=25,
            response_steps=1_000,
            lissa_steps=(200 if quick else 2_000) if (activation, depth, width) == BASE else 0,
            lissa_batch=8,
            lissa_scale=10.0,
        )
        for activation, depth, width in shapes
        for decay in DECAYS
    ]


def load(configuration: Configuration, source: Path | None) -> None:
    """Do nothing: scikit-learn bundles iris."""


def measure(
    configuration: Configuration, seeds: list[int], device: torch.device, data: None
) -> Iterator[dict[str, Any]]:
    """Yield what is measured of each seed, see `src.fragility.iris_measurement`."""
    from src.fragility.iris_measurement import measured

    return measured(configuration, seeds, device)


def report(results: dict[str, dict[int, dict[str, Any]]], folder: Path) -> list[str]:
    """Write tables and figures, see `src.fragility.iris_report`."""
    from src.fragility.iris_report import written

    return written(results, folder)
