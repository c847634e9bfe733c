"""What evaluation and training steps of the tiny ViT are spent on, by one thread's processor time.

    python benchmarks/vit_parts.py [--root DIR]

Wants data/mnist3 and the backbone in models/backbones/tiny_mnist3 below the root
(run_vit_finetuning.py --experiment vit_mnist3_10pc --backbone tiny). Prints a step of as many
members as are trained at once and the evaluation of the test images, both beside their limit by the
rate of a matrix product of the same minute; what a profile of steps says their operations take; and
the parts of the evaluation, each measured alone on as many images as are evaluated at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.timing import REPEATS, fastest
from src.ensemble import memory
from src.ensemble.evaluation import evaluate
from src.ensemble.members import PerSampleLoss, repeat, trainable
from src.ensemble.setup import Setup
from src.experiments import REPOSITORY, TINY_BACKBONE, Paths, parse_experiment
from src.models import build
from src.models.pretraining import RECIPES

# How the names of torch's operations begin, but of bmm.
KINDS = {
    "products with frozen weights": ("mkldnn_convolution", "convolution_backward", "mm", "addmm"),
    "GELU": ("gelu",),
    "layer norms": ("native_layer_norm",),
    "softmax": ("_softmax",),
    "layout of the heads": ("copy_",),
    "sums and multiples, those of LoRA, its dropout and the residuals": (
        "add",
        "mul",
        "bernoulli_",
    ),
}


def step_parts(step: Callable[[], object], rank: int) -> dict[str, float]:
    """Return the share of a step's processor time that each kind of operation takes, falling.

    Args:
        step: Makes a step of the ViT with LoRA.
        rank: Of LoRA, by which its products are told from those of attention.
    """
    step()
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as record:
        for _ in range(REPEATS):
            step()
    times: dict[str, float] = {}
    for event in record.key_averages(group_by_input_shape=True):
        name = event.key.removeprefix("aten::")
        kind = next(
            (kind for kind, names in KINDS.items() if name.startswith(names)),
            "the rest, calls and Python",
        )
        if name == "bmm":
            is_lora = any(rank in shape for shape in event.input_shapes)
            kind = "LoRA's narrow products" if is_lora else "the products of attention"
        times[kind] = times.get(kind, 0) + event.self_cpu_time_total
    total = sum(times.values())
    return {kind: time / total for kind, time in sorted(times.items(), key=lambda item: -item[1])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=REPOSITORY)
    args = parser.parse_args()
    torch.set_num_threads(1)
    memory.keep_freed_memory()
    experiment = replace(parse_experiment("vit_mnist3_10pc"), backbone=TINY_BACKBONE)
    setup = Setup.load(experiment, Paths(args.root), torch.device("cpu"))
    model = build(experiment, setup.backbone)
    loss, members = PerSampleLoss(model), repeat(trainable(model), 1)
    n, at_once = len(setup.test), memory.CPU_VECTORISED
    square = torch.randn(2048, 2048)
    rate = 2 * 2048**3 / fastest(lambda: square @ square)
    print(f"{rate / 1e9:.0f} GFLOP/s")

    def beside_limit(run: Callable[[], object]) -> tuple[float, str]:
        with FlopCounterMode(display=False) as counter:
            run()
        seconds = fastest(run)
        limit = counter.get_total_flops() / rate
        return seconds, f"{1e3 * seconds:.0f} ms, {seconds / limit:.2f} limits"

    state = setup.start(0)
    n_members = setup.procedure.members_at_once(state)
    weights = 1 - torch.eye(n_members, len(setup.train))
    trainer = setup.procedure.trainer(repeat(state, n_members), weights)
    batch = torch.arange(min(experiment.batch_size, len(setup.train)))
    setup.loss.model.train()
    _, text = beside_limit(lambda: trainer.step(batch))
    print(f"a step of {n_members} members on {len(batch)} images {text}, of a profile's time")
    for kind, share in step_parts(lambda: trainer.step(batch), experiment.lora_rank).items():
        print(f"{share:.0%} {kind}")
    whole, text = beside_limit(lambda: evaluate(loss, members, setup.test))
    print(f"evaluation {text}")
    memory.CPU_ACTIVATIONS = 0  # so that the number alone decides
    for memory.CPU_VECTORISED in (128, 64, 32):
        ratio = fastest(lambda: evaluate(loss, members, setup.test)) / whole
        print(f"with {memory.CPU_VECTORISED} images at once {ratio:.2f} times")

    recipe = RECIPES["mnist"]
    width, inner, heads = recipe.hidden_size, recipe.intermediate_size, recipe.n_heads
    tokens = (28 // recipe.patch_size) ** 2 + 1
    times = recipe.n_layers * n / at_once
    x, y = torch.randn(at_once * tokens, width), torch.randn(at_once * tokens, inner)
    shapes = [(x, width)] * 4 + [(x, inner), (y, width)]
    layers = [(a, torch.randn(out, a.shape[1]), torch.randn(out)) for a, out in shapes]
    heads_of = torch.randn(at_once, tokens, heads, width // heads).transpose(1, 2)

    def attention() -> torch.Tensor:
        weights = (heads_of @ heads_of.mT / 8).softmax(-1)
        return (weights @ heads_of).transpose(1, 2).contiguous()

    parts = {
        "linear layers": lambda: [F.linear(*layer) for layer in layers],
        "attention": attention,
        "attention by torch's fused one": lambda: (
            F.scaled_dot_product_attention(heads_of, heads_of, heads_of)
            .transpose(1, 2)
            .contiguous()
        ),
        "GELU": lambda: F.gelu(y),
    }
    products = sum(2 * a.numel() * weight.shape[0] for a, weight, _ in layers)
    print(f"limit of the linear layers {1e3 * times * products / rate:.0f} ms")
    with torch.no_grad():
        for name, run in parts.items():
            print(f"{name} {1e3 * times * fastest(run):.0f} ms")


if __name__ == "__main__":
    main()
