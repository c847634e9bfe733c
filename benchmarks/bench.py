"""Time every stage against the machine's limit, the naive reference and other libraries.

    make bench        (or: python benchmarks/bench.py [--device cuda] [--quick]
                           [--experiment ...])

Everything is measured in one run, so that ratios do not depend on the day: the matrix product rate
of the machine first, then each stage of one seed of `cnn2_mnist3_10pc`, `cnn2_cifar10_10pc` and,
where its backbone is there, `vit_mnist3_10pc` on the tiny backbone; the same work by the naive
versions of tests/reference.py and by other libraries (benchmarks/libraries.py); every further
estimator, whole but for those whose cost is that of each training sample for itself, and those from
subsets, whose cost is the models; how stages grow with the number of training samples, of test
samples and of parameters; and a slice of the two largest CNN experiments with what all of them
would take. Writes benchmarks/RESULTS.md.

The share of the limit is the rate of the stage's floating point operations, counted as it runs by
torch's FlopCounterMode (matrix products and convolutions; that our own kernels are left out for, so
that theirs are counted), over that of a large matrix product. Our convolutions take fewer
operations than are counted (src/kernels/winograd.h): a stage may well come below the limit.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import gc
import platform
import shlex
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import libraries  # noqa: E402
from src.ensemble.draws import load_seeds  # noqa: E402
from src.ensemble.evaluation import evaluate  # noqa: E402
from src.ensemble.members import Params, PerSampleLoss, repeat, trainable  # noqa: E402
from src.ensemble.memory import steps_at_once, vectors_at_once  # noqa: E402
from src.ensemble.retraining import retrain  # noqa: E402
from src.ensemble.setup import Setup  # noqa: E402
from src.errors import UserError  # noqa: E402
from src.experiments import (  # noqa: E402
    FURTHER_METHODS,
    METHODS,
    REPOSITORY,
    TINY_BACKBONE,
    Paths,
    parse_experiment,
)
from src.experiments.subset_kinds import TRUTH  # noqa: E402
from src.kernels.library import without_kernels  # noqa: E402
from src.models import build  # noqa: E402
from src.models.cnn import CNN2  # noqa: E402
from src.subsets.masks import Subsets  # noqa: E402
from src.subsets.training import train_subsets  # noqa: E402
from src.tda.ats import additional_step  # noqa: E402
from src.tda.estimator import Draws  # noqa: E402
from src.tda.estimators import estimator_of  # noqa: E402
from src.tda.gradient_similarity import gradient_similarity  # noqa: E402
from src.tda.influence import influence  # noqa: E402
from src.tda.loo import leave_one_out  # noqa: E402
from src.tda.solvers.lissa import Lissa  # noqa: E402
from tests import reference  # noqa: E402

RESULTS = Path(__file__).resolve().parent / "RESULTS.md"
EARLIER = "# Earlier versions"  # the heading below which nothing is measured anew
EXPERIMENTS = ("cnn2_mnist3_10pc", "cnn2_cifar10_10pc", "vit_mnist3_10pc")
PROJECTED = ("cnn2_mnist3_50pc", "cnn2_cifar10_50pc")  # of these few members, once
SHORT = 2.0  # seconds that a stage is repeated for at least: other loads come and go
BY_SAMPLE = ("unrolled",)  # each training sample costs a training and more
FEW = 8  # training samples that these are measured for
STAGES = ("evaluation", "LOO member", "subset member", "ATS member", "GD and GC", "IF (LiSSA)")
FURTHER = (
    "Further estimators: one seed, all checkpoints and, but where said, all pairs. Those from "
    "subsets cost the members they are computed from."
)


@dataclass
class Stage:
    """A stage's time in seconds, floating point operations, and peak memory in bytes.

    `rate` is that of a matrix product in the seconds around it, in operations per second.
    """

    seconds: float
    flops: float
    memory: float
    rate: float


class Bench:
    """Measures on one device.

    Args:
        device: The device.
        repeats: Runs of each stage at least; the fastest counts, since what slows one down is not
            the code.
    """

    def __init__(self, device: torch.device, repeats: int) -> None:
        self.device = device
        self.repeats = repeats
        self.rate = self.matmul_rate()

    def matmul_rate(self) -> float:
        """Return the operations per second of a float32 matrix product."""
        n = 2048 if self.device.type == "cpu" else 8192
        a = torch.randn(n, n, device=self.device)
        return 2 * n**3 / min(self.time(lambda: a @ a) for _ in range(10))

    def convolution_rate(self) -> float:
        """Return the operations per second of a float32 convolution like those of the CNNs."""
        images = torch.randn(128, 64, 32, 32, device=self.device)
        images = images.to(memory_format=torch.channels_last)
        weight = torch.randn(64, 64, 3, 3, device=self.device)
        flops = 2 * 128 * 64 * 64 * 9 * 30**2
        return flops / min(self.time(lambda: F.conv2d(images, weight)) for _ in range(10))

    def copy_rate(self) -> float:
        """Return the bytes per second, read and written, of a copy on the device."""
        a = torch.empty(2**28 if self.device.type == "cuda" else 2**26, device=self.device)
        b = torch.empty_like(a)
        return 2 * a.nbytes / min(self.time(lambda: b.copy_(a)) for _ in range(10))

    def time(self, run: Callable[[], object]) -> float:
        """Return the seconds of one run."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    def stage(self, run: Callable[[], object], n: int = 1) -> Stage:
        """Measure a stage that does n units of work; the result is for one unit."""
        flops = operations(run)
        run()  # warms up
        # Counting leaves cycles of tensors behind, and the C library keeps freed memory.
        gc.collect()
        if platform.libc_ver()[0] == "glibc":
            ctypes.CDLL(None).malloc_trim(0)
        with self._peak_memory() as peak:  # apart from the time: whoever watches takes some
            watched = self.time(run)
            while watched < 0.2:
                watched += self.time(run)
        before = self.matmul_rate()
        seconds = self.fastest(run)
        # The processor's speed changes within minutes, with its other loads.
        rate = max(before, self.matmul_rate())
        return Stage(seconds / n, flops / n, peak[0], rate)

    def once(self, run: Callable[[], object]) -> Stage:
        """Measure a stage that takes long: one run counts its operations, and one is timed."""
        flops = operations(run)
        gc.collect()
        before = self.matmul_rate()
        with self._peak_memory() as peak:
            seconds = self.time(run)
        rate = max(before, self.matmul_rate())
        return Stage(seconds, flops, peak[0], rate)

    def fastest(self, run: Callable[[], object]) -> float:
        """Return the seconds of the fastest of some runs, of a short one of many."""
        seconds: list[float] = []
        while len(seconds) < self.repeats or sum(seconds) < SHORT:
            seconds.append(self.time(run))
        return min(seconds)

    @contextmanager
    def _peak_memory(self):  # noqa: ANN202
        """Yield a list whose entry is, afterwards, the most memory that was in use."""
        peak = [0.0]
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            yield peak
            peak[0] = torch.cuda.max_memory_allocated()
            return
        process, done = psutil.Process(), threading.Event()

        def watch() -> None:
            while not done.wait(0.02):
                peak[0] = max(peak[0], process.memory_info().rss)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield peak
        finally:
            done.set()
            watcher.join()


@dataclass
class Work:
    """One seed of an experiment, ready to be attributed."""

    setup: Setup
    seed: int
    checkpoints: list[Params]

    @classmethod
    def of(cls, name: str, device: torch.device) -> Work:
        """Train the first seed of an experiment."""
        experiment = parse_experiment(name)
        if experiment.has_backbone:
            experiment = replace(experiment, backbone=TINY_BACKBONE)
        setup = Setup.load(experiment, Paths(REPOSITORY), device)
        seed = load_seeds()[0]
        return cls(setup, seed, [s.params for s in setup.training(seed)][-5:])

    def stages(self, bench: Bench, n_members: int = 12) -> dict[str, Stage]:
        """Measure each stage for one unit of it: one member, or one checkpoint.

        Args:
            bench: Measures.
            n_members: Leave-one-out members, models on subsets, and samples stepped on.
        """
        s, checkpoint = self.setup, self.checkpoints[-1]
        e = s.experiment
        at_once = s.procedure.members_at_once(checkpoint)
        steps = steps_at_once(s.loss, checkpoint, s.train)
        vectors = vectors_at_once(s.loss, checkpoint, s.train)

        def loo() -> None:
            chunks = leave_one_out(
                s.procedure,
                self.checkpoints,
                retrain(lambda: s.start(self.seed), e.kept_epochs),
                list(range(n_members)),
                s.test,
                chunk_size=at_once,
            )
            list(chunks)

        def ats() -> None:
            some = s.train.at(slice(n_members))
            list(
                additional_step(
                    s.loss, self.checkpoints, some, s.test, optimizer=s.optimizer, chunk_size=steps
                )
            )

        def subsets() -> None:
            some = Subsets.of(TRUTH, n_members)
            train_subsets(Draws(s, self.seed, self.checkpoints), some, at_once)

        return {
            "evaluation": bench.stage(lambda: evaluate(s.loss, repeat(checkpoint, 1), s.test)),
            "LOO member": bench.stage(loo, n_members),
            "subset member": bench.stage(subsets, n_members),
            "ATS member": bench.stage(ats, n_members * len(self.checkpoints)),
            "GD and GC": bench.stage(lambda: similarity(s.loss, checkpoint, s, vectors)),
            "IF (LiSSA)": bench.stage(
                lambda: influence(s.loss, checkpoint, s.train, s.test, Lissa(), chunk_size=vectors)
            ),
        }

    def further(self, bench: Bench) -> dict[str, Stage]:
        """Measure each further estimator, once, for all checkpoints and pairs of one seed.

        One whose cost is that of each training sample for itself is measured for a few of them.
        """
        stages = {}
        for method in FURTHER_METHODS:
            if METHODS[method].subsets:
                continue
            setup, name = self.setup, method
            if method in BY_SAMPLE and len(setup.scored) > FEW:
                setup, name = replace(setup, scored=setup.scored[:FEW]), f"{method}, {FEW} samples"
            estimator = estimator_of(method)
            draws = partial(Draws, setup, self.seed, self.checkpoints)
            stages[name] = bench.once(lambda e=estimator, d=draws: e(d()))
        return stages

    def counts(self) -> dict[str, int]:
        """Return how often each stage is done for one seed and all checkpoints."""
        n_train, n = len(self.setup.train), len(self.checkpoints)
        return {
            "LOO member": n_train + 1,
            "ATS member": n_train * n,
            "GD and GC": n,
            "IF (LiSSA)": n,
        }

    def plain(self) -> nn.Module:
        """Return the model of the last checkpoint as one would write it, of torch's own layers."""
        if self.setup.backbone is None:
            model = PlainCNN2(self.setup.train.images.shape[1])
            model.load_state_dict(self.checkpoints[-1])
            return model
        model = build(self.setup.experiment, self.setup.backbone)
        model.load_state_dict(self.checkpoints[-1], strict=False)
        for module in model.modules():
            for kind in (nn.Conv2d, nn.Linear):
                if type(module).__mro__[1] is kind:
                    module.__class__ = kind
        return model

    def naive(self, bench: Bench) -> dict[str, float]:
        """Time the same stages done naively, one member, sample or vector at a time.

        Gradients and LiSSA solves are timed on a few and multiplied: each is done once per sample
        or vector, none twice.
        """
        s, e = self.setup, self.setup.experiment
        model = self.plain()
        train_data, test_data = (
            (samples[:][0].contiguous(), samples.labels) for samples in (s.train, s.test)
        )

        @torch.no_grad()
        def evaluation(m: nn.Module) -> Tensor:
            return F.cross_entropy(m.eval()(test_data[0]), test_data[1], reduction="none")

        def loo() -> None:
            epochs = reference.train(
                self.plain, train_data, self.seed, e.epochs, e.batch_size, left_out=0
            )
            for epoch in epochs[-5:]:
                evaluation(epoch.model)

        def ats() -> None:
            stepped = self.plain()
            optimizer = reference.adam(stepped)
            reference.sample_loss(stepped, train_data, 0).backward()
            optimizer.step()
            evaluation(stepped)

        few = 10
        vectors = reference.gradients(model, test_data, list(range(2)))

        def fastest(run: Callable[[], object]) -> float:
            run()  # warm up
            return bench.fastest(run)

        gradients = fastest(lambda: reference.gradients(model, test_data, list(range(few)))) / few
        gradients *= len(s.train) + len(s.test)
        solves = fastest(lambda: [reference.lissa(model, train_data, v) for v in vectors])
        solves *= len(s.test) / len(vectors)
        member = fastest(loo)
        return {
            "evaluation": fastest(lambda: evaluation(model)),
            "LOO member": member,
            "subset member": member,  # by hand one training as well
            "ATS member": fastest(ats),
            "GD and GC": gradients,
            "IF (LiSSA)": gradients + solves,
        }


def operations(run: Callable[[], object]) -> int:
    """Return the floating point operations of a run."""
    with FlopCounterMode(display=False) as counter, without_kernels():
        counter.flop_registry[torch.ops.aten.addmm_] = counter.flop_registry[torch.ops.aten.addmm]
        run()
    return counter.get_total_flops()


def similarity(loss: PerSampleLoss, params: Params, setup: Setup, chunk_size: int) -> Tensor:
    """Return grad-dot of all pairs; grad-cos is computed with it."""
    return gradient_similarity(loss, params, setup.train, setup.test, chunk_size=chunk_size)[0]


def ratio(seconds: float, stage: Stage) -> str:
    """Return how many times a stage is faster than so many seconds."""
    return f"{seconds / stage.seconds:.1f}"


class PlainCNN2(nn.Module):
    """cnn2 of torch's own layers, without what makes ours fast."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        kernel_size = 3 if in_channels == 1 else 5
        self.conv1 = nn.Conv2d(in_channels, 32, kernel_size)
        self.conv2 = nn.Conv2d(32, 64, kernel_size)
        self.fc1 = nn.Linear(64 * 5 * 5, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, 10) of images (B, C, H, W)."""
        x = F.max_pool2d(F.gelu(self.conv1(images)), 2)
        x = F.max_pool2d(F.gelu(self.conv2(x)), 2)
        return self.fc2(F.gelu(self.fc1(x.flatten(1))))


def growth(bench: Bench) -> pd.DataFrame:
    """Return how the time of each stage of cnn2_mnist3 grows: seconds at three sizes, exponent."""
    rows = {}

    def add(stage: str, of: str, sizes: list[int], seconds: list[float]) -> None:
        exponent = np.polyfit(np.log(sizes), np.log(seconds), 1)[0]
        rows[stage, of] = [
            *(f"{size:,}: {s:.3g} s" for size, s in zip(sizes, seconds, strict=True)),
            f"{exponent:.2f}",
        ]

    works = [Work.of(f"cnn2_mnist3_{n}pc", bench.device) for n in (10, 20, 50)]
    measured = [work.stages(bench) for work in works]
    for stage in works[0].counts():
        total = [m[stage].seconds * w.counts()[stage] for m, w in zip(measured, works, strict=True)]
        add(stage.replace("member", "seed"), "n_train", [len(w.setup.train) for w in works], total)
    work = works[0]
    whole = work.setup.test
    by_test = {stage: [] for stage in STAGES}
    sizes = [len(whole) // 4, len(whole) // 2, len(whole)]
    for n in sizes:
        work.setup.test = whole.at(slice(n))
        for stage, m in work.stages(bench).items():
            by_test[stage].append(m.seconds)
    for stage, seconds in by_test.items():
        add(stage, "n_test", sizes, seconds)
    by_width = {stage: [] for stage in ("evaluation", "GD and GC", "IF (LiSSA)")}
    sizes = []
    for width in (128, 512, 2048):
        torch.manual_seed(0)
        loss = PerSampleLoss(CNN2((1, 28, 28), 10, width=width).to(bench.device))
        params = trainable(loss.model)
        sizes.append(sum(p.numel() for p in params.values()))
        s, chunk = work.setup, vectors_at_once(loss, params, work.setup.train)
        for stage, run in (
            ("evaluation", partial(evaluate, loss, repeat(params, 1), s.test)),
            ("GD and GC", partial(similarity, loss, params, s, chunk)),
            (
                "IF (LiSSA)",
                partial(influence, loss, params, s.train, s.test, Lissa(), chunk_size=chunk),
            ),
        ):
            by_width[stage].append(bench.stage(run).seconds)
    for stage, seconds in by_width.items():
        add(stage, "parameters", sizes, seconds)
    index = pd.MultiIndex.from_tuples(rows, names=["stage", "grows with"])
    columns = ["smallest", "middle", "largest", "exponent"]
    return pd.DataFrame(rows.values(), index, columns).reset_index()


def stage_table(bench: Bench, stages: dict[str, Stage], naive: dict[str, float]) -> pd.DataFrame:
    """Return a row for each stage: time, rate, share of the limit, memory, ratio to naive."""
    table = pd.DataFrame(
        {
            "stage": name,
            "time": f"{s.seconds * 1e3:.3g} ms",
            "GFLOP": f"{s.flops / 1e9:.3g}",
            "GFLOP/s": f"{s.flops / s.seconds / 1e9:.0f}",
            "time / limit": f"{s.seconds * s.rate / s.flops:.2f}" if s.flops else "",
            "peak memory": f"{s.memory / 2**20:.0f} MiB",
        }
        for name, s in stages.items()
    )
    if naive:
        table["naive"] = [f"{naive[name] * 1e3:.3g} ms" for name in stages]
        table["naive / here"] = [ratio(naive[name], s) for name, s in stages.items()]
    return table


def seed_line(work: Work, stages: dict[str, Stage], naive: dict[str, float]) -> str:
    """Return what one seed takes, five methods and five checkpoints."""
    counts = work.counts()
    total = sum(stages[name].seconds * n for name, n in counts.items())
    text = f"One seed, five methods, five checkpoints: **{total:.1f} s**"
    if naive:
        by_hand = sum(naive[name] * n for name, n in counts.items())
        text += f"; naive units {by_hand:.0f} s: **{by_hand / total:.1f} times less**"
    return f"{text}. Ten seeds one after another: {10 * total / 60:.1f} min."


def project(bench: Bench, name: str) -> list[str]:
    """Measure a slice of each stage of one of the largest CNN experiments; project the rest."""
    print(name, flush=True)
    work = Work.of(name, bench.device)
    stages = work.stages(bench, n_members=4)
    table = stage_table(bench, stages, naive={})
    print(table.to_string(index=False), flush=True)
    lines = ["", f"## {name}: a slice, multiplied up", ""]
    return [*lines, table.to_markdown(index=False), "", seed_line(work, stages, naive={})]


def machine(device: torch.device) -> str:
    """Return a description of the machine, without names."""
    text = (
        f"{platform.machine()}, {psutil.cpu_count()} cores ({torch.get_num_threads()} threads), "
        f"{torch.backends.cpu.get_cpu_capability()}, "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB"
    )
    if device.type == "cuda":
        text += f"; {torch.cuda.get_device_name(device)}"
    return f"{text}; Python {platform.python_version()}, torch {torch.__version__}"


def write(lines: list[str]) -> None:
    """Write the results above those of earlier versions."""
    _, *earlier = RESULTS.read_text(encoding="utf-8").partition(f"\n{EARLIER}")
    RESULTS.write_text("\n".join(lines) + "\n" + "".join(earlier), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Time every stage; write benchmarks/RESULTS.md.")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--experiment", nargs="+", choices=EXPERIMENTS, default=EXPERIMENTS)
    parser.add_argument("--quick", action="store_true", help="fewer runs, no projection, no growth")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")  # of the peers
    device = torch.device(args.device)
    bench = Bench(device, repeats=1 if args.quick else 3)
    lines = [
        "# Measured speed",
        "",
        f"- date: {datetime.date.today()}",
        f"- command: `python {shlex.join(sys.argv)}`",
        f"- machine: {machine(device)}",
        f"- limit: {bench.rate / 1e9:.0f} GFLOP/s (float32 matrix product); a large convolution "
        f"reaches {bench.convolution_rate() / 1e9:.0f}, copying {bench.copy_rate() / 1e9:.0f} GB/s "
        "read and written",
        "",
        "*time / limit*: how many times longer than the stage's operations take at the rate that "
        "a matrix product reaches in the seconds before or after the stage; operations are those "
        "of plain convolutions, of which ours leave out half and more. "
        "*naive*: the same stage by tests/reference.py, one member, sample or vector at a time.",
    ]
    for name in args.experiment:
        lines += ["", f"## {name}", ""]
        print(name, flush=True)
        try:
            work = Work.of(name, device)
        except UserError as error:
            lines.append(f"Not measured: {error}")
            continue
        stages = work.stages(bench)
        naive = work.naive(bench) if device.type == "cpu" else {}  # the reference is for CPUs
        table = stage_table(bench, stages, naive)
        print(table.to_string(index=False), flush=True)
        lines += [table.to_markdown(index=False), "", seed_line(work, stages, naive)]
        if not args.quick:
            further = stage_table(bench, work.further(bench), naive={})
            print(further.to_string(index=False), flush=True)
            lines += ["", FURTHER, ""]
            lines.append(further.to_markdown(index=False))
        if name == "cnn2_mnist3_10pc" and device.type == "cpu":
            case = libraries.Case(work.setup, work.checkpoints[-1], work.plain())
            peers = libraries.table(case, bench.time)
            print(peers.to_string(index=False), flush=True)
            lines += ["", libraries.WHAT, "", peers.to_markdown(index=False)]
        write(lines)  # what is measured stays, should a later experiment be interrupted
    if not args.quick:
        bench.repeats = 2  # stages take seconds there, and one run alone may be disturbed
        lines += ["", "## Growth", "", "Seconds of stages of `cnn2_mnist3`, and the fitted power."]
        lines += ["", growth(bench).to_markdown(index=False)]
        for name in PROJECTED:
            write(lines)
            lines += project(bench, name)
    write(lines)
    print(RESULTS)


if __name__ == "__main__":
    main()
