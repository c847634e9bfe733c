"""One method's scores of one seed: computed, or found computed, and saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor
from tqdm import tqdm

from src.checkpoints import Setup, environment
from src.experiments import N_CHECKPOINTS
from src.members import Params
from src.storage import digest, is_finished, save


@dataclass(frozen=True)
class Draws:
    """What a method is given: one seed's checkpoints and where they come from."""

    setup: Setup
    seed: int
    checkpoints: list[Params]


@dataclass
class Scores:
    """What a method returns.

    Attributes:
        scores: (C, n_train, n_test).
        extra: What is saved beside the scores: tensors by name.
        message: What is printed of the scores; empty: nothing.
    """

    scores: Tensor
    extra: dict[str, Tensor] = field(default_factory=dict)
    message: str = ""


def score_seed(
    setup: Setup,
    seed: int,
    seed_id: int,
    methods: tuple[str, ...],
    compute: Callable[[Draws], dict[str, Scores]],
    options: dict,
    *,
    command: str,
    overwrite: bool,
) -> Iterator[str]:
    """Compute and save the scores of methods that are computed together; yield a line per file.

    Args:
        setup: The experiment.
        seed: The seed, for names.
        seed_id: Its number, for commands.
        methods: The methods that `compute` returns.
        compute: Computes the scores of all pairs at all checkpoints, by method.
        options: Every option that changes the numbers.
        command: The command that makes these files, for error messages.
        overwrite: Whether to compute files again that are there.

    Raises:
        UserError: Checkpoints are missing, a file is there with other settings, or it cannot be
            written.
    """
    checkpoints = setup.load_checkpoints(seed, seed_id)
    settings = {
        **options,
        **setup.network_settings(),
        **environment(setup.device),
        "checkpoints": digest(checkpoints),
        "test_samples": digest([setup.test.images, setup.test.labels]),
    }
    paths = {m: setup.paths.scores(setup.experiment, m, seed) for m in methods}
    finished = {
        m: is_finished(path, settings, make=f"{command} --overwrite", overwrite=overwrite)
        for m, path in paths.items()
    }
    if all(finished.values()):
        for path in paths.values():
            yield f"{path}: finished before"
        return
    # For inputs that are random crops; without them nothing here depends on it.
    torch.manual_seed(seed)
    for method, result in compute(Draws(setup, seed, checkpoints)).items():
        save(
            paths[method],
            {
                "scores": result.scores.float().cpu(),
                "epochs": torch.tensor(setup.experiment.kept_epochs),
                "train_idx": setup.train.indices,
                "test_idx": setup.test.indices,
                "experiment": setup.experiment.name,
                "method": method,
                "seed": seed,
                "settings": settings,
                **result.extra,
            },
        )
        yield f"{paths[method]}{': ' if result.message else ''}{result.message}"


def collect(chunks: Iterator[Tensor], total: int, description: str) -> Tensor:
    """Concatenate chunks of scores (C, M, n_test) along their members, under a progress bar."""
    parts = []
    with tqdm(total=total, desc=description, unit="member", leave=False, disable=None) as bar:
        for chunk in chunks:
            parts.append(chunk.cpu())
            bar.update(chunk.shape[1])
    return torch.cat(parts, 1)


def each_checkpoint(draws: Draws, description: str) -> Iterator[Params]:
    """Yield a seed's checkpoints under a progress bar."""
    yield from tqdm(
        draws.checkpoints,
        desc=description,
        total=N_CHECKPOINTS,
        unit="checkpoint",
        leave=False,
        disable=None,
    )
