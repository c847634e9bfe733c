"""What the pass over plain networks gains on CNNs of one's own, against torch's own operations.

    OMP_NUM_THREADS=2 python benchmarks/own_cnn.py

Times the training of a stack of members, as leave-one-out has them, and the evaluation of one, with
and without `src.kernels.fuse.fuse`, in turns; prints medians and their ratios.
"""

from __future__ import annotations

import copy
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import nn

from src.data.samples import Samples
from src.ensemble.evaluation import evaluate
from src.ensemble.members import PerSampleLoss, repeat, trainable
from src.ensemble.memory import keep_freed_memory
from src.ensemble.optimizer import OptimizerSettings
from src.ensemble.training import Trainer
from src.kernels.fuse import fuse

N_MEMBERS, N_TRAIN, N_TEST, N_TURNS = 8, 32, 500, 7


def block(inputs: int, outputs: int, *, normalised: bool = False) -> list[nn.Module]:
    """Return a block; one with BatchNorm (its statistics fixed) is none for the pass."""
    between = [nn.BatchNorm2d(outputs, affine=False)] if normalised else []
    return [nn.Conv2d(inputs, outputs, 3, padding=1), *between, nn.GELU(), nn.MaxPool2d(2)]


def network(widths: tuple[int, int, int], *, normalised: bool = False) -> nn.Module:
    """Return three blocks and a linear layer, for images (3, 32, 32)."""
    inputs = (3, *widths)
    layers = [
        layer
        for i, outputs in enumerate(widths)
        for layer in block(inputs[i], outputs, normalised=normalised and i == 1)
    ]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1] * 16, 10))


def samples(n: int) -> Samples:
    """Return images of noise."""
    images = torch.rand(n, 3, 32, 32).to(memory_format=torch.channels_last)
    return Samples(images, torch.arange(n) % 10, torch.arange(n))


def tasks(model: nn.Module) -> dict[str, Callable[[], None]]:
    """Return what is timed of a network."""
    loss, params = PerSampleLoss(model.eval()), trainable(model)
    train, test = samples(N_TRAIN), samples(N_TEST)
    trainer = Trainer(loss, repeat(params, N_MEMBERS), train, OptimizerSettings(1e-3, 5e-3))
    return {
        "training": lambda: trainer.step(torch.arange(N_TRAIN)),
        "evaluation": lambda: evaluate(loss, repeat(params, 1), test),
    }


def main() -> None:
    torch.manual_seed(0)
    keep_freed_memory()
    networks = {
        "24, 48, 96": network((24, 48, 96)),
        "32, 64, 128": network((32, 64, 128)),
        "24, 48, 96, BatchNorm in the second block": network((24, 48, 96), normalised=True),
    }
    for name, model in networks.items():
        plain, fused = tasks(copy.deepcopy(model)), tasks(fuse(model))
        for task in plain:
            times: dict[str, list[float]] = {"plain": [], "fused": []}
            for _ in range(1 + N_TURNS):  # the first one warms up
                for way, run in (("plain", plain[task]), ("fused", fused[task])):
                    start = time.perf_counter()
                    run()
                    times[way].append(time.perf_counter() - start)
            before, after = (statistics.median(values[1:]) for values in times.values())
            print(
                f"{name}: {task} {before * 1e3:.1f} ms, after the pass {after * 1e3:.1f} ms: "
                f"{before / after:.2f} times as fast"
            )


if __name__ == "__main__":
    main()
