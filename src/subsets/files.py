"""Files of subsets: the command that makes them, what each says it is, what a sound one holds.

`tda_scores/<experiment>/subsets/<kind>/<seed>.pt` is a dictionary of

    masks       bool (K, n_train): which training samples each model was trained on
    losses      float32 (C, K, n_test): of each test sample, after each of the last C epochs
    epochs      int64 (C,)
    train_idx, test_idx    int64 (n_train,), (n_test,): indices into the full splits
    experiment, kind, seed, settings

and, of permutations, what `src.subsets.training.train_subsets` says.
"""

from __future__ import annotations

import torch

from src.ensemble.checkpoint_files import MACHINE
from src.ensemble.draws import numbers_of_seeds
from src.ensemble.members import State
from src.ensemble.setup import Setup
from src.experiments import PERMUTATIONS, Experiment, Paths
from src.storage.contents import Content
from src.storage.files import check_settings, load
from src.subsets.masks import OPTIONS

OF_PERMUTATIONS = ("permutations", "lengths", "start", "whole")
_ARGUMENTS = (*OPTIONS, "chunk_size", "device")


def subsets_identity(experiment: Experiment, kind: str, seed: int) -> dict:
    """Return what a file of subsets, or a partial one, says that it is."""
    return {"experiment": experiment.name, "kind": kind, "seed": seed}


def subsets_command(
    paths: Paths,
    experiment: Experiment,
    kind: str,
    seed_id: int | str | None = None,
    options: dict | None = None,
) -> str:
    """Return the command that trains a kind of subsets.

    Args:
        paths: Every path below the root.
        experiment: The experiment.
        kind: The kind.
        seed_id: Number of the seed, or several as `seed_ids_text` writes them; None: the ten.
        options: Options of the script with their values, or a file's settings.
    """
    arguments = ["--experiment", experiment.name, "--kind", kind]
    if seed_id is not None:
        arguments += ["--seed_id", seed_id]
    for name in _ARGUMENTS:
        if options and options.get(name) is not None:
            arguments += [f"--{name}", options[name]]
    return paths.command("run_subsets.py", *arguments)


def load_subsets(
    paths: Paths, experiment: Experiment, kind: str, seed: int, options: dict | None = None
) -> dict:
    """Load the file of one seed's models on a kind of subsets, and check all that it holds.

    Args:
        paths: Every path below the root.
        experiment: The experiment.
        kind: One of SUBSET_KINDS.
        seed: The seed.
        options: The script's options that are wanted, for commands; None: those of the file.

    Raises:
        UserError: The file is missing or damaged, is of another experiment, kind or seed, or does
            not hold what it should; the message has the command that makes it.
    """
    path, seed_id = paths.subsets(experiment, kind, seed), numbers_of_seeds().get(seed)
    content = load(
        path,
        subsets_command(paths, experiment, kind, seed_id, options),
        identity=subsets_identity(experiment, kind, seed),
        holds=(
            *("masks", "losses", "epochs", "train_idx", "test_idx", "settings"),
            *("checkpoints", "train_samples", "test_samples", "torch", "device"),
            *(OF_PERMUTATIONS if kind == PERMUTATIONS else ()),
        ),
    )
    if options is None:
        settings = content["settings"]
        options = {key: value for key, value in settings.items() if key not in MACHINE}
    found = Content(path, content, subsets_command(paths, experiment, kind, seed_id, options))
    train, test = (found.indices(key) for key in ("train_idx", "test_idx"))
    epochs, n_train, n_test = experiment.kept_epochs, len(train), len(test)
    found.check_epochs(epochs)
    n_subsets = found.length("masks") // n_train
    found.check("masks", torch.bool, (n_subsets, n_train))
    axes = {"epoch": epochs, "subset": range(n_subsets), "test index": test}
    found.check("losses", torch.float32, (len(epochs), n_subsets, n_test))
    found.check_finite("losses", "losses", axes)
    if kind == PERMUTATIONS:
        n = found.length("lengths")
        found.check("lengths", torch.int64, (n,))
        found.check("permutations", torch.int64, (n, n_train))
        found.check("start", torch.float32, (n_test,))
        found.check("whole", torch.float32, (len(epochs), n_test))
        found.check_finite("start", "losses of the start", {"test index": test})
        axes.pop("subset")
        found.check_finite("whole", "losses of the whole set", axes)
        if content["lengths"].sum() != n_subsets:
            found.refuse("the lengths of its permutations are not those of its subsets")
    return content


def subsets_of(paths: Paths, setup: Setup, kind: str, seed: int, checkpoints: list[State]) -> dict:
    """Load a seed's file of subsets as `load_subsets`, and check that it is of these checkpoints.

    Raises:
        UserError: As `load_subsets`; or it is of other checkpoints or samples.
    """
    content = load_subsets(paths, setup.experiment, kind, seed)
    found, wanted = content["settings"], setup.sources(checkpoints)
    own = {key: found.get(key) for key in wanted if key not in MACHINE}
    make = subsets_command(paths, setup.experiment, kind, numbers_of_seeds().get(seed))
    path = paths.subsets(setup.experiment, kind, seed)
    check_settings(path, own, {key: wanted[key] for key in own}, make)
    return content
