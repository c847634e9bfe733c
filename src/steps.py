"""What the run_* scripts do with their arguments: devices, seeds, training and scoring."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from src.cli import OTHERS_AT_WORK
from src.errors import UserError
from src.experiments import Experiment, Paths

if TYPE_CHECKING:
    import torch

    from src.ensemble.checkpoints import Setup
    from src.tda.scores import Draws, Scores


def choose_device(name: str | None) -> torch.device:
    """Return the device called `name`, or the best there is.

    Raises:
        UserError: There is no such device.
    """
    import torch

    # cuDNN would round the inputs of convolutions to TF32, which has 10 bits of mantissa.
    torch.backends.cudnn.allow_tf32 = False
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UserError(f"there is no device {name!r} here: use cpu, cuda or cuda:N")
    return device


def seeds(seed_id: int | None) -> list[tuple[int, int]]:
    """Return (seed_id, seed) of one seed, or of all."""
    from src.ensemble.draws import load_seeds

    numbered = list(enumerate(load_seeds()))
    return numbered if seed_id is None else [numbered[seed_id]]


def train_seeds(args: argparse.Namespace, experiments: list[Experiment]) -> None:
    """Train one seed or all of each experiment and save the checkpoints, one line for each seed."""
    from src.ensemble.checkpoints import Setup

    device, skipped = choose_device(args.device), Skipped()
    for experiment in experiments:
        setup = Setup.load(experiment, Paths(args.root), device)
        experiment = setup.experiment
        if experiment.randomness == "batch" and experiment.has_one_batch:
            print(
                f"note: one batch of {experiment.batch_size} holds all {experiment.n_train} "
                f"training samples of {experiment.name}, so all its seeds give the same model, to "
                "rounding",
                file=sys.stderr,
                flush=True,
            )
        for seed_id, seed in seeds(args.seed_id):
            with skipped.if_held(setup.paths.checkpoint(experiment, seed, 0).parent):
                print(_train_seed(setup, seed, seed_id, args.overwrite), flush=True)
    skipped.exit_if_any()


def _train_seed(setup: Setup, seed: int, seed_id: int, overwrite: bool) -> str:
    from tqdm import tqdm

    from src.storage.files import remove_leftovers
    from src.storage.locks import lock

    experiment, at = setup.experiment, setup.paths
    folder = at.checkpoint(experiment, seed, 0).parent
    if setup.is_trained(seed, seed_id, overwrite=overwrite):
        return f"{folder}: finished before"
    with lock(at.training_lock(experiment, seed)):
        for epoch in experiment.kept_epochs:
            remove_leftovers(at.checkpoint(experiment, seed, epoch))
        # By a process that has let go of the lock just now.
        if setup.is_trained(seed, seed_id, overwrite=overwrite):
            return f"{folder}: finished before"
        epochs = tqdm(
            setup.train_seed(seed),
            desc=f"{experiment.name} seed {seed}",
            total=experiment.epochs,
            unit="epoch",
            leave=False,
            disable=None,
        )
        for state in epochs:
            last = state
    fit = setup.fit(last.params)
    if experiment.task.has_values:
        return f"{folder}: loss {last.loss:.4f}, on test {fit['test_loss']:.4f}"
    return (
        f"{folder}: loss {last.loss:.4f}, accuracy on train {fit['train_accuracy']:.1%}, "
        f"on test {fit['test_accuracy']:.1%}"
    )


def score_seeds(
    args: argparse.Namespace,
    methods: tuple[str, ...],
    compute: Callable[[Draws], dict[str, Scores]],
    options: dict,
) -> None:
    """Compute and save the scores of one seed or all, one line for each file."""
    from src.data.samples import described
    from src.ensemble.checkpoints import Setup, as_trained
    from src.tda.scores import score_seed

    paths, device, setup, skipped = Paths(args.root), choose_device(args.device), None, Skipped()
    for seed_id, seed in seeds(args.seed_id):
        experiment = described(as_trained(args.experiment, paths, seed, seed_id), paths)
        if setup is None or setup.experiment != experiment:
            setup = Setup.load(experiment, paths, device)
        # Which crops are drawn depends on how many samples are taken at once.
        crops = {"chunk_size": args.chunk_size} if experiment.random_crop else {}
        with skipped.if_held(paths.scores(experiment, methods[0], seed)):
            for line in score_seed(
                setup,
                seed,
                seed_id,
                methods,
                compute,
                {**options, **crops},
                overwrite=args.overwrite,
            ):
                print(line, flush=True)
    skipped.exit_if_any()


class Skipped:
    """Jobs that were left to the processes that are at work on them."""

    def __init__(self) -> None:
        self._any = False

    @contextlib.contextmanager
    def if_held(self, path: Path) -> Iterator[None]:
        """Say so, and go on, where another process computes what belongs to `path`."""
        from src.storage.locks import HeldError

        try:
            yield
        except HeldError as error:
            print(f"{path}: {error} is at work on it", file=sys.stderr, flush=True)
            self._any = True

    def exit_if_any(self) -> None:
        """End the script with OTHERS_AT_WORK unless all that was asked for is there."""
        if self._any:
            sys.exit(OTHERS_AT_WORK)
