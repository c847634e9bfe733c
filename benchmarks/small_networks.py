"""What the kernel of perceptrons and many vectors at once gain, by one thread's processor time.

    OMP_NUM_THREADS=1 python benchmarks/small_networks.py

Prints gradient descent of networks of the study of iris (`src.fragility.iris`), 26 side by side as
it has them, by the kernel and by torch's operations; and Hessian products of small networks with
as many vectors at once as fit (`src.ensemble.memory.hessian_vectors`), and with as many as suit a
CNN.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import nn

from benchmarks.timing import fastest
from src.data.samples import Samples
from src.ensemble import memory
from src.ensemble.members import PerSampleLoss, n_parameters, stack, trainable
from src.fragility.descent import (
    MEMBERS_AT_ONCE,
    cross_entropy_objective,
    descend,
    to_layers,
)
from src.fragility.iris import configurations
from src.fragility.iris_measurement import N_CLASSES, iris, perceptron
from src.kernels.library import without_kernels
from src.models.fragile import LeNet, small_tanh
from src.tda.hessian import Hessian

NETWORKS = [("relu", 1, 5), ("relu", 4, 5), ("relu", 8, 5), ("relu", 1, 50), ("tanh", 4, 5)]
STEPS = 500


def descent() -> None:
    """Print what a step of descent takes."""
    train = iris(torch.device("cpu"))
    for c in configurations("paper"):
        if (c.activation, c.depth, c.width) not in NETWORKS or not c.decay:
            continue
        models = [perceptron(c, train.images.shape[1], seed) for seed in range(MEMBERS_AT_ONCE)]
        start = to_layers(stack([trainable(model) for model in models]))
        left_out = [*range(MEMBERS_AT_ONCE)]
        objective = cross_entropy_objective(train[:], N_CLASSES, left_out, c.decay, c.activation)

        def steps(start: list = start, objective: object = objective, rate: float = c.rate) -> None:
            descend(start, objective, [(rate, STEPS)])

        here = fastest(steps) / STEPS
        with without_kernels():
            torchs = fastest(steps) / STEPS
        print(
            f"{c.name}: a step of {MEMBERS_AT_ONCE} networks {1e6 * here:.0f} µs, by torch "
            f"{1e6 * torchs:.0f} µs, {torchs / here:.1f} times",
            flush=True,
        )


def hessian_products() -> None:
    """Print what a Hessian product with a vector takes."""

    def images(n: int, *shape: int) -> Samples:
        return Samples(torch.rand(n, *shape), torch.arange(n) % N_CLASSES, torch.arange(n))

    c = next(c for c in configurations("paper") if c.depth == 4)
    cases = {
        "iris, depth 4, 150 samples": (perceptron(c, 4, 0), iris(torch.device("cpu"))),
        "30-32-2 with LayerNorm, 20 samples": (
            nn.Sequential(nn.Linear(30, 32), nn.LayerNorm(32), nn.GELU(), nn.Linear(32, 3)),
            images(20, 30),
        ),
        "784-256-10, 100 samples": (
            nn.Sequential(nn.Flatten(), nn.Linear(784, 256), nn.GELU(), nn.Linear(256, 10)),
            images(100, 1, 28, 28),
        ),
        "2,616 parameters, 100 samples": (small_tanh((1, 28, 28), 10), images(100, 1, 28, 28)),
        "LeNet, 100 samples": (LeNet((1, 28, 28), 10), images(100, 1, 28, 28)),
    }
    for name, (model, samples) in cases.items():
        loss, params = PerSampleLoss(model), trainable(model)
        hessian = Hessian(loss, params, samples, len(samples))
        now, before = hessian.vectors_at_once, memory.CPU_HESSIAN_BATCH // len(samples)
        like = next(iter(params.values()))
        seconds = {}
        for at_once in (now, max(1, before)):
            hessian.vectors_at_once = at_once
            vectors = torch.randn(min(at_once, 256), n_parameters(params), dtype=like.dtype)
            product = lambda h=hessian, v=vectors: h.product(v)  # noqa: E731
            seconds[at_once] = fastest(product) / len(vectors)
        text = ", ".join(f"{k} at once {1e3 * s:.2f} ms" for k, s in seconds.items())
        ratio = seconds[max(1, before)] / seconds[now]
        print(f"{name}: a vector, {text}, {ratio:.1f} times", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    memory.keep_freed_memory()
    descent()
    hessian_products()
