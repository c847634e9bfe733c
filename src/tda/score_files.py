"""Score files: the commands that make them, what each says it is, and what a sound one holds."""

from __future__ import annotations

import torch

from src.ensemble.checkpoint_files import MACHINE
from src.experiments import OPTIONS, Experiment, Paths, call_of
from src.storage.contents import Content
from src.storage.files import load

# Of a score file's settings, those that say where it comes from, and those that are arguments of
# the scripts that compute scores.
ORIGIN = {
    *("checkpoints", "train_samples", "test_samples", "backbone_weights"),
    *("hyperparameters", "scored_samples", "subsets"),
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

    found = Content(path, content, make)
    indices = {key: found.indices(key) for key in ("train_idx", "test_idx")}
    epochs, n_train, n_test = experiment.kept_epochs, *map(len, indices.values())
    found.check_epochs(epochs)
    axes = {"epoch": epochs, "train index": indices["train_idx"], "test index": indices["test_idx"]}
    found.check("scores", torch.float32, (len(epochs), n_train, n_test))
    found.check_finite("scores", "scores", axes)
    if method == "loo":
        axes.pop("train index")
        for key in OF_LOO:
            found.check(key, torch.float32, (len(epochs), n_test))
            found.check_finite(key, f"numbers of the {key}", axes)
    return content
