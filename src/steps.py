"""What the run_* scripts do with their arguments: devices, seeds, training and scoring."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from src.cli import OTHERS_AT_WORK
from src.errors import UserError
from src.experiments import Experiment, Paths

if TYPE_CHECKING:
    import torch

    from src.ensemble.checkpoints import Checkpoints
    from src.ensemble.members import Params
    from src.ensemble.setup import Setup
    from src.subsets.masks import Subsets
    from src.tda.estimator import Estimator
    from src.tda.seed_files import SeedFiles


def choose_device(name: str | None) -> torch.device:
    """Return the device called `name`, or a GPU where torch has CUDA, else the CPU.

    Apple's GPUs (mps) have to be asked for: not every operation is there on them, nor is float64.

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
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"there is no device {name!r} here: use cpu, cuda, cuda:N or mps")
    return device


def seeds(ids: list[int]) -> list[tuple[int, int]]:
    """Return (seed_id, seed) of the seeds with the given numbers."""
    from src.ensemble.draws import load_seeds

    known = load_seeds(max(ids) + 1)
    return [(seed_id, known[seed_id]) for seed_id in ids]


def check_samples(experiments: list[Experiment], root: Path, n_scored: int | None = None) -> None:
    """Check that what all jobs of experiments need is there.

    Raises:
        UserError: The samples of an experiment are not there yet, or fewer than are to be scored.
    """
    paths = Paths(root)
    for experiment in experiments:
        for split in experiment.splits.values():
            path = paths.tensors(experiment.task.name, split)
            if not path.exists():
                make = paths.command("run_subset_generation.py", "--task", experiment.task.name)
                raise UserError(f"{path} does not exist; make it with: {make}")
        if experiment.label_noise:
            from src.data.noise import check_flippable
            from src.data.samples import described

            check_flippable(described(experiment, paths))
    if n_scored is None:
        return

    from src.data.samples import load_tensors
    from src.data.scored import check_number

    for experiment in experiments:
        train = load_tensors(paths, experiment.task, experiment.splits["train"])
        check_number(n_scored, len(train.get("scored", train["labels"])), experiment.name)


def train_seeds(args: argparse.Namespace, experiments: list[Experiment]) -> None:
    """Train seeds of experiments and save the checkpoints, one line for each seed.

    What can be known of all of them is checked before the first is trained.
    """
    checkpoints_of, skipped = _loader_of_checkpoints(args, Paths(args.root)), Skipped()
    numbered = seeds(args.seed_id)
    if len(experiments) * len(numbered) > 1:  # a single one is checked when its turn comes
        for experiment in experiments:
            for seed_id, seed in numbered:
                checkpoints_of(experiment).is_trained(seed, seed_id, overwrite=args.overwrite)
    for experiment in experiments:
        checkpoints = checkpoints_of(experiment)
        experiment = checkpoints.setup.experiment
        n_train = len(checkpoints.setup.train)
        if experiment.randomness == "batch" and experiment.has_one_batch(n_train):
            print(
                f"note: one batch of {experiment.batch_size} holds all {n_train} "
                f"training samples of {experiment.name}, so its seeds differ by rounding, and by "
                "what a training draws besides the batch order, as dropout",
                file=sys.stderr,
                flush=True,
            )
        for seed_id, seed in numbered:
            with skipped.if_held(checkpoints.paths.checkpoint(experiment, seed, 0).parent):
                print(_train_seed(checkpoints, seed, seed_id, args.overwrite), flush=True)
    skipped.exit_if_any()


def _loader_of_checkpoints(
    args: argparse.Namespace, paths: Paths, n_scored: int | None = None
) -> Callable[[Experiment], Checkpoints]:
    """Return what loads the setup of an experiment's checkpoints, and holds the last one."""
    from src.ensemble.checkpoints import Checkpoints
    from src.ensemble.setup import Setup

    device = choose_device(args.device)
    return lru_cache(maxsize=1)(
        lambda experiment: Checkpoints(Setup.load(experiment, paths, device, n_scored), paths)
    )


def _train_seed(checkpoints: Checkpoints, seed: int, seed_id: int, overwrite: bool) -> str:
    from src.progress import progress
    from src.storage.files import remove_leftovers
    from src.storage.locks import lock

    setup, at = checkpoints.setup, checkpoints.paths
    experiment = setup.experiment
    folder = at.checkpoint(experiment, seed, 0).parent
    if checkpoints.is_trained(seed, seed_id, overwrite=overwrite):
        return f"{folder}: finished before"
    with lock(at.training_lock(experiment, seed)):
        for epoch in experiment.kept_epochs:
            remove_leftovers(at.checkpoint(experiment, seed, epoch))
        # By a process that has let go of the lock just now.
        if checkpoints.is_trained(seed, seed_id, overwrite=overwrite):
            return f"{folder}: finished before"
        with progress(f"{experiment.name} seed {seed}", "epochs", experiment.epochs) as advance:
            for state in checkpoints.train(seed):
                last = state
                advance(1)
    return f"{folder}: loss {last.loss:.4f}, {_accuracies(setup, last.params)}"


def take_checkpoints(args: argparse.Namespace) -> None:
    """Save the files that --checkpoints names as one seed's checkpoints, in place of a training.

    Raises:
        UserError: More than one seed or experiment is meant, or the files are not what is taken.
    """
    from src.ensemble.given import check_number, give, load_states
    from src.storage.locks import lock

    numbered = seeds(args.seed_id)
    if len(args.experiment) * len(numbered) != 1:
        raise UserError("--checkpoints takes one --experiment and one --seed_id")
    [experiment], [(seed_id, seed)] = args.experiment, numbered
    check_number(experiment, args.checkpoints)
    checkpoints, skipped = _loader_of_checkpoints(args, Paths(args.root))(experiment), Skipped()
    setup, at = checkpoints.setup, checkpoints.paths
    states = load_states(setup, args.checkpoints)
    folder = at.checkpoint(experiment, seed, 0).parent
    with skipped.if_held(folder), lock(at.training_lock(experiment, seed)):
        new = give(checkpoints, seed, seed_id, states, args.checkpoints, overwrite=args.overwrite)
        done = f"given, {_accuracies(setup, states[-1])}" if new else "finished before"
        print(f"{folder}: {done}", flush=True)
    skipped.exit_if_any()


def _accuracies(setup: Setup, params: Params) -> str:
    fit = setup.fit(params)
    if setup.experiment.task.has_values:
        return f"loss on test {fit['test_loss']:.4f}"
    return f"accuracy on train {fit['train_accuracy']:.1%}, on test {fit['test_accuracy']:.1%}"


def score_seeds(args: argparse.Namespace, estimator: Estimator) -> None:
    """Compute and save an estimator's scores of seeds of experiments, one line for each file.

    What can be known of all of them is checked before the first is computed.
    """
    from src.tda.scoring import Scoring

    def scoring(trained: Checkpoints, seed: int, seed_id: int) -> SeedFiles:
        return Scoring(trained, seed, seed_id, estimator, overwrite=args.overwrite)

    paths, first = Paths(args.root, args.on_itself), estimator.methods[0]
    _compute_seeds(
        args,
        paths,
        scoring,
        lambda experiment, seed: paths.scores(experiment, first, seed),
        args.train_samples,
    )


def train_on_subsets(args: argparse.Namespace, subsets: Subsets) -> None:
    """Train models on subsets of seeds of experiments and save losses, one line for each file.

    What can be known of all of them is checked before the first is computed.
    """
    from src.subsets.computing import SubsetTraining

    def training(trained: Checkpoints, seed: int, seed_id: int) -> SeedFiles:
        given = (trained, seed, seed_id, subsets, args.chunk_size)
        return SubsetTraining(*given, overwrite=args.overwrite)

    paths, kind = Paths(args.root), subsets.kind
    _compute_seeds(
        args, paths, training, lambda experiment, seed: paths.subsets(experiment, kind, seed)
    )


def _compute_seeds(
    args: argparse.Namespace,
    paths: Paths,
    files_of: Callable[[Checkpoints, int, int], SeedFiles],
    path_of: Callable[[Experiment, int], Path],
    n_scored: int | None = None,
) -> None:
    """Compute the files of each seed of each experiment.

    Args:
        args: The arguments.
        paths: Every path below the root.
        files_of: Returns them, given checkpoints, a seed and its number.
        path_of: Returns what a person calls them, given an experiment and a seed.
        n_scored: Number of training samples that are scored; None: all.
    """
    from src.ensemble.checkpoint_files import as_trained
    from src.storage.locks import HeldError, require_free

    checkpoints_of, skipped = _loader_of_checkpoints(args, paths, n_scored), Skipped()
    jobs = list(product(args.experiment, seeds(args.seed_id)))

    def files(experiment: Experiment, seed_id: int, seed: int) -> SeedFiles:
        require_free(paths.training_lock(experiment, seed))
        trained = as_trained(experiment, paths, seed, seed_id)
        return files_of(checkpoints_of(trained), seed, seed_id)

    if len(jobs) > 1:  # a single one is checked when its turn comes
        for experiment, (seed_id, seed) in jobs:
            with contextlib.suppress(HeldError):  # which is said when its turn comes
                files(experiment, seed_id, seed).check()
    for experiment, (seed_id, seed) in jobs:
        with skipped.if_held(path_of(experiment, seed)):
            for line in files(experiment, seed_id, seed).run():
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
