"""The path of the real backbone: ViT-base at 224 x 224, with random weights and without the hub.

    python benchmarks/base_backbone.py [--device cuda]

Makes a backbone folder from transformers' base configuration, loads it as a user's would be loaded
and runs a few training steps of `vit_mnist3_10pc`, one chunk of additional training steps, one of
gradients and one Hessian product per vector, on part of the test set. Prints time and peak memory
of each, and what a whole leave-one-out would take. Needs `run_subset_generation.py --task mnist3`.
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.ensemble.evaluation import evaluate  # noqa: E402
from src.ensemble.members import repeat  # noqa: E402
from src.ensemble.setup import Setup  # noqa: E402
from src.experiments import REPOSITORY, Paths, parse_experiment  # noqa: E402
from src.models.backbones import quiet_transformers  # noqa: E402
from src.tda.ats import additional_step  # noqa: E402
from src.tda.gradient_similarity import gradient_similarity  # noqa: E402
from src.tda.hessian import Hessian, flatten  # noqa: E402

N_STEPS = 2
N_TEST = 32
N_ATS = 2


def measure(what: str, compute: Callable[[], object]) -> float:
    """Run something, print its time and the peak memory so far, and return the time."""
    start = time.perf_counter()
    compute()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    seconds = time.perf_counter() - start
    print(f"{what}: {seconds:.1f} s, peak {peak / 2**30:.1f} GiB", flush=True)
    return seconds


def main() -> None:
    """Run and print every part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(parser.parse_args().device)

    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    with tempfile.TemporaryDirectory() as folder:
        with quiet_transformers():
            ViTForImageClassification(ViTConfig()).save_pretrained(folder)
            ViTImageProcessor().save_pretrained(folder)
        experiment = replace(parse_experiment("vit_mnist3_10pc"), backbone=folder)
        setup = Setup.load(experiment, Paths(REPOSITORY), device)
    loss, start = setup.loss, setup.start(446)
    n_train, batch_size = len(setup.train), experiment.batch_size
    positions = torch.arange(n_train)[:batch_size]
    test = setup.test.at(slice(N_TEST))

    loss.model.train()
    n_members = setup.procedure.members_at_once(start)
    trainer = setup.procedure.trainer(repeat(start, n_members))

    def steps() -> None:
        for _ in range(N_STEPS):
            trainer.step(positions.to(device))

    step = measure(f"{N_STEPS} training steps of {n_members} members", steps) / N_STEPS / n_members
    evaluation = measure(
        f"losses of {n_members} members on {N_TEST} samples",
        lambda: evaluate(loss, trainer.members, test),
    ) / (N_TEST * n_members)
    params, _ = trainer.state_of_member(0)
    measure(
        f"ats: {N_ATS} members, {N_TEST} test samples",
        lambda: [
            *additional_step(
                loss,
                [params],
                setup.train.at(slice(N_ATS)),
                test,
                optimizer=setup.optimizer,
                chunk_size=N_ATS,
            )
        ],
    )
    measure(
        f"gd and gc: {n_train} x {N_TEST} pairs",
        lambda: gradient_similarity(loss, params, setup.train, test, chunk_size=n_train),
    )
    hessian = Hessian(loss, params, setup.train, 8)
    vectors = flatten(repeat(params, hessian.vectors_at_once))
    measure(
        f"if: products of {len(vectors)} vectors with the Hessian of 8 samples",
        lambda: hessian.batch_product(0, vectors),
    )
    member = experiment.epochs * step + len(experiment.kept_epochs) * len(setup.test) * evaluation
    whole = member * (n_train + 1)
    print(f"leave-one-out: {member:.0f} s a member, {whole / 3600:.1f} h a seed")


if __name__ == "__main__":
    main()
