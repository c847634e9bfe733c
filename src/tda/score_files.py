"""Score files: the commands that make them, what each says it is, and what a sound one holds."""

from __future__ import annotations

import torch
from torch import Tensor

from src.ensemble.checkpoint_files import MACHINE
from src.errors import UserError
from src.experiments import OPTIONS, Experiment, Paths, call_of
from src.messages import kind_of
from src.storage.files import check_finite, load

# Of a score file's settings, those that say where it comes from, and those that are arguments of
# the scripts that compute scores.
ORIGIN = {
    *("checkpoints", "train_samples", "test_samples", "backbone_weights"),
    *("hyperparameters", "scored_samples"),
}
# Beside leave-one-out's scores: what leaving nothing out scores, and the losses that are compared
# with, each (C, n_test).
OF_LOO = ("floor", "base")
# How many training samples are scored, and of how many; only where these are not all.
ROWS = ("train_samples_scored", "train_samples_all")
_ARGUMENTS = {
    *("protocol", "solver", "curvature", "damp", "scale", "tolerance"),
    *("max_iterations", "chunk_size", "device", "train_samples_scored", *OPTIONS),
}


def score_identity(experiment: Experiment, method: str, seed: int) -> dict:
    """Return what a score file, or a partial one, says that it is."""
    return {"experiment": experiment.name, "method": method, "seed": seed}


def score_command(
    paths: Paths,
    experiment: Experiment,
    method: str,
    seed_id: int | str | None = None,
    options: dict | None = None,
) -> str:
    """Return the command that computes a method's scores.

    Args:
        paths: Every path below the root.
        experiment: The experiment.
        method: The method.
        seed_id: Number of the seed, or several as `seed_ids_text` writes them; None: the ten.
        options: Options of the script with their values, or a score file's settings.
    """
    arguments = ["--experiment", experiment.name]
    if seed_id is not None:
        arguments += ["--seed_id", seed_id]
    for name, value in (options or {}).items():
        if value is not None and name in _ARGUMENTS:
            # Of the settings `train_samples` is the digest of all of them.
            arguments += [f"--{name.removesuffix('_scored')}", value]
    if paths.on_itself:
        arguments.append("--self")
    return paths.command(*call_of(method), *arguments)


def load_scores_of(
    paths: Paths,
    experiment: Experiment,
    method: str,
    seed: int,
    seed_id: int,
    options: dict | None = None,
) -> dict:
    """Load the score file of one method and seed, and check all that it holds.

    Args:
        paths: Every path below the root.
        experiment: The experiment.
        method: The method.
        seed: The seed.
        seed_id: Its number, for commands.
        options: The script's options that are wanted, for commands; None: those of the file.

    Raises:
        UserError: The file is missing or damaged, is of another experiment, method or seed, does
            not hold what `Scores` says in the shapes it says, or holds a number that is not finite.
    """
    path = paths.scores(experiment, method, seed)
    content = load(
        path,
        score_command(paths, experiment, method, seed_id, options),
        identity=score_identity(experiment, method, seed),
        holds=(
            *("scores", "epochs", "train_idx", "test_idx", "settings"),
            *("checkpoints", "train_samples", "test_samples", "torch", "device"),
            *(OF_LOO if method == "loo" else ()),
        ),
    )
    if options is None:
        settings = content["settings"]
        options = {key: value for key, value in settings.items() if key not in MACHINE}
    make = score_command(paths, experiment, method, seed_id, options)

    def refuse(what: str) -> None:
        raise UserError(f"{path}: {what}: make it again with: {make} --overwrite")

    def check(key: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        found = content[key]
        if not isinstance(found, Tensor):
            refuse(f"{key} is no tensor")
        if found.dtype != dtype or found.shape != shape:
            refuse(
                f"{key} is {kind_of(found.dtype, found.shape)}, where {kind_of(dtype, shape)} "
                "belongs"
            )

    indices = {}
    for key in ("train_idx", "test_idx"):
        n = content[key].numel() if isinstance(content[key], Tensor) else 0
        check(key, torch.int64, (n,))
        indices[key] = content[key].tolist()
        if n == 0 or len(set(indices[key])) != n:
            refuse(f"{key} holds no index, or one twice")
    epochs, n_train, n_test = experiment.kept_epochs, *map(len, indices.values())
    check("epochs", torch.int64, (len(epochs),))
    if content["epochs"].tolist() != list(epochs):
        refuse(f"the epochs are {content['epochs'].tolist()}, where {list(epochs)} belong")
    axes = {"epoch": epochs, "train index": indices["train_idx"], "test index": indices["test_idx"]}
    check("scores", torch.float32, (len(epochs), n_train, n_test))
    check_finite(path, "scores", content["scores"], make, axes)
    if method == "loo":
        axes.pop("train index")
        for key in OF_LOO:
            check(key, torch.float32, (len(epochs), n_test))
            check_finite(path, f"numbers of the {key}", content[key], make, axes)
    return content
