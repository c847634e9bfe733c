"""Checkpoint files: the commands that make them, what each says it is, and how it came to be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from src.errors import UserError
from src.experiments import DEFAULT_BACKBONE, Experiment, Paths
from src.storage.files import load

MACHINE = {"torch", "transformers", "device"}  # settings of the machine and its libraries
GIVEN = "given"  # the setting `origin` of checkpoints that were not trained here


def training_command(
    paths: Paths, experiment: Experiment, seed_id: int | str | None = None, *options: object
) -> str:
    """Return the command that trains an experiment: seeds by their numbers, or the ten."""
    arguments = ["--experiment", experiment.name]
    if seed_id is not None:
        arguments += ["--seed_id", seed_id]
    if experiment.backbone != DEFAULT_BACKBONE:
        arguments += ["--backbone", experiment.backbone]
    if experiment.random_crop:
        arguments += ["--random_crop"]
    return paths.command(experiment.training_script, *arguments, *options)


def given_command(
    paths: Paths,
    experiment: Experiment,
    seed_id: int | str = "K",
    files: Sequence[object] = ("FILE", "..."),
) -> str:
    """Return the command that saves files as a seed's checkpoints; by default one to fill in."""
    return training_command(paths, experiment, seed_id, "--checkpoints", *files)


def load_checkpoint(
    paths: Paths, experiment: Experiment, seed: int, epoch: int, command: str
) -> dict:
    """Load the checkpoint of one epoch of a seed, and check that it is that.

    Args:
        paths: Every path below the root.
        experiment: The experiment.
        seed: The seed.
        epoch: The epoch.
        command: The command that trains it, for error messages.

    Raises:
        UserError: The file is missing or damaged, or of another experiment, seed or epoch.
    """
    return load(
        paths.checkpoint(experiment, seed, epoch),
        command,
        identity={"experiment": experiment.name, "seed": seed, "epoch": epoch},
        holds=("settings", "model_state_dict", "training"),
    )


def as_trained(experiment: Experiment, paths: Paths, seed: int, seed_id: int) -> Experiment:
    """Return an experiment with the backbone and the inputs that a seed was trained with.

    Raises:
        UserError: The seed's checkpoint is missing or damaged.
    """
    if not experiment.has_backbone:
        return experiment
    settings = _first_settings(experiment, paths, seed, seed_id)
    try:
        return replace(
            experiment, backbone=settings["backbone"], random_crop=settings["random_crop"]
        )
    except KeyError as error:
        path = paths.checkpoint(experiment, seed, experiment.kept_epochs[0])
        make = training_command(paths, experiment, seed_id)
        raise UserError(
            f"{path} does not say its {error}; make it again with: {make} --overwrite"
        ) from None


def are_given(experiment: Experiment, paths: Paths, seed: int, seed_id: int) -> bool:
    """Say whether a seed's checkpoints were given rather than trained here.

    Raises:
        UserError: The seed's first checkpoint is missing or damaged.
    """
    return _first_settings(experiment, paths, seed, seed_id).get("origin") == GIVEN


def require_trained_here(
    experiment: Experiment, paths: Paths, seed: int, seed_id: int, others: str = ""
) -> None:
    """Check that a seed's training can be repeated, because it was done here.

    Raises:
        UserError: The checkpoints were given, or the first one is missing or damaged. `others`
            ends the sentence by what else can be done.
    """
    if are_given(experiment, paths, seed, seed_id):
        raise UserError(
            f"{paths.checkpoint(experiment, seed, 0).parent} was given by --checkpoints, and how "
            "it was trained is not known here, so that its training cannot be repeated: "
            f"train here with: {training_command(paths, experiment, seed_id)} --overwrite{others}"
        )


def _first_settings(experiment: Experiment, paths: Paths, seed: int, seed_id: int) -> dict:
    epoch, make = experiment.kept_epochs[0], training_command(paths, experiment, seed_id)
    return load_checkpoint(paths, experiment, seed, epoch, make)["settings"]
