"""Scores of all seeds, loaded and checked."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import torch

from src.analysis.scores import ExperimentScores
from src.data.samples import inputs_key, load_tensors, to_samples
from src.ensemble.checkpoint_files import MACHINE, given_command, training_command
from src.ensemble.draws import load_seeds
from src.errors import UserError
from src.experiments import METHODS, Experiment, Paths
from src.tda.score_files import ORIGIN, load_scores_of, score_command

# Of a score file's settings these may differ between seeds: the checkpoints do by nature, and
# library and device change rounding only.
_MAY_DIFFER_BETWEEN_SEEDS = {"checkpoints"} | MACHINE
# These are the same in all score files of an experiment.
_SAMPLES = ("train_samples", "test_samples", "backbone_weights")


def load_scores(paths: Paths, experiment: Experiment, *, allow_missing: bool) -> ExperimentScores:
    """Load the scores of all methods and seeds of an experiment.

    Args:
        paths: Every path below the root.
        experiment: The experiment.
        allow_missing: Go on without missing files, with the methods that have two seeds at least.

    Raises:
        UserError: Scores are missing, a file is not sound, or they were not computed alike; the
            message says what to run.
    """
    seeds = load_seeds()
    have = {m: [s for s in seeds if paths.scores(experiment, m, s).exists()] for m in METHODS}
    if any(have[m] != seeds for m in METHODS) and not allow_missing:
        raise UserError(_missing_message(paths, experiment, seeds, have))
    methods = [m for m in METHODS if len(have[m]) >= 2]
    if not methods:
        raise UserError(
            f"no method has scores of two seeds for {experiment.name}, the least there can be; "
            + _missing_message(paths, experiment, seeds, have)
        )
    files = {
        m: {seed: load_scores_of(paths, experiment, m, seed, seeds.index(seed)) for seed in have[m]}
        for m in methods
    }
    _check_alike(paths, experiment, files)
    return gathered(experiment, files).of_common_seeds()


def gathered(experiment: Experiment, files: dict[str, dict[int, dict]]) -> ExperimentScores:
    """Return the scores in the contents of score files, by method and seed.

    They are of the same pairs, settings and checkpoints.
    """
    first = next(iter(next(iter(files.values())).values()))
    return ExperimentScores(
        experiment,
        {
            m: np.stack([f["scores"].numpy() for f in of_seeds.values()])
            for m, of_seeds in files.items()
        },
        {m: list(of_seeds) for m, of_seeds in files.items()},
        first["train_idx"].numpy(),
        first["test_idx"].numpy(),
        {m: _options(next(iter(of_seeds.values()))) for m, of_seeds in files.items()},
        sorted(
            {
                f"torch {content['settings']['torch']} ({content['settings']['device']})"
                for of_seeds in files.values()
                for content in of_seeds.values()
            }
        ),
        {split: first["settings"][f"{split}_samples"] for split in ("train", "test")},
        {
            seed: content["settings"]["checkpoints"]
            for of_seeds in files.values()
            for seed, content in of_seeds.items()
        },
        {seed: content["floor"].numpy() for seed, content in files.get("loo", {}).items()},
    )


def check_scores(
    paths: Paths,
    experiments: list[Experiment],
    *,
    allow_missing: bool,
    test_index: int | None = None,
    images: bool = False,
) -> None:
    """Load the scores of all experiments once, so that errors come before anything is written.

    Args:
        paths: Every path below the root.
        experiments: The experiments, which will be compared with each other.
        allow_missing: As for `load_scores`.
        test_index: A test sample that all experiments must have; None: any will do.
        images: Whether the images of the samples will be wanted.

    Raises:
        UserError: As `load_scores` and `load_images` do, or an experiment does not have the test
            sample, or two experiments that use the same split have scores of other samples of it.
    """
    seen: dict[tuple, tuple[str, object]] = {}
    for experiment in experiments:
        scores = load_scores(paths, experiment, allow_missing=allow_missing)
        if test_index is not None:
            scores.test_position(test_index)
        if images:
            load_images(paths, scores)
        for split, name in experiment.splits.items():
            index = {"train": scores.train_idx, "test": scores.test_idx}[split]
            # Digests are those of the network's inputs, which a ViT takes in another form.
            for what, value in (
                ("indices", index.tolist()),
                (experiment.has_backbone, scores.digests[split]),
            ):
                key = (experiment.task.name, name, what)
                other, expected = seen.setdefault(key, (experiment.name, value))
                if value != expected:
                    raise UserError(
                        f"the scores of {other} and of {experiment.name} are of other samples of "
                        f"{experiment.task.name} {name}, so the two cannot be compared: of "
                        "the one whose samples data/ no longer holds, make them again with: "
                        + " or ".join(
                            _again(paths, replace(scores, experiment=e), split)
                            for e in experiments
                            if e.name in (other, experiment.name)
                        )
                    )


def load_images(paths: Paths, scores: ExperimentScores) -> dict[str, dict]:
    """Return the tensors of the samples that scores are of, in the scores' order.

    They are found by their indices, and must be those that the scores were computed from.

    Args:
        paths: Every path below the root.
        scores: The scores.

    Returns:
        Of "train" and "test": images uint8 (n, C, H, W) or inputs (n, ...), labels (n, ...) and
        indices int64 (n,).

    Raises:
        UserError: The tensors are missing or damaged, or others.
    """
    experiment, found = scores.experiment, {}
    for split, name in experiment.splits.items():
        tensors = load_tensors(paths, experiment.task, name)
        samples = to_samples(tensors, experiment)
        index = {"train": scores.train_idx, "test": scores.test_idx}[split]
        wrong = f"holds other samples than the scores of {experiment.name} were computed from"
        try:
            at = samples.positions(torch.from_numpy(index))
            if samples.at(at).digest() == scores.digests[split]:
                found[split] = {
                    key: tensors[key][at] for key in (inputs_key(tensors), "labels", "indices")
                }
                continue
        except KeyError as error:
            wrong = f"does not hold sample {error}, which {experiment.name} has scores of"
        generate = paths.command("run_subset_generation.py", "--task", experiment.task.name)
        raise UserError(
            f"{paths.tensors(experiment.task.name, name)} {wrong}: put "
            f"{paths.indices(experiment.task.name, name)} and its source back and run: {generate} "
            f"--overwrite, or make the scores again with: {_again(paths, scores, split)}"
        )
    return found


def _again(paths: Paths, scores: ExperimentScores, split: str) -> str:
    """Return the commands that make an experiment's scores again after a split has changed."""
    commands = [
        score_command(paths, scores.experiment, method, None, options)
        for method, options in scores.options.items()
    ]
    if split == "train":
        options = next(iter(scores.options.values()))
        trained = {key: options[key] for key in ("backbone", "random_crop") if key in options}
        command = given_command if scores.are_given else training_command
        commands.insert(0, command(paths, replace(scores.experiment, **trained)))
    return " && ".join(f"{command} --overwrite" for command in dict.fromkeys(commands))


def _options(content: dict) -> dict:
    """Return the settings of a score file that are no digests and alike for all seeds."""
    left_out = ORIGIN | MACHINE
    return {key: value for key, value in content["settings"].items() if key not in left_out}


def _missing_message(
    paths: Paths, experiment: Experiment, seeds: list[int], have: dict[str, list[int]]
) -> str:
    parts, commands = [], []
    for method in METHODS:
        ids = [i for i, seed in enumerate(seeds) if seed not in have[method]]
        if not ids:
            continue
        everything = len(ids) == len(seeds)
        parts.append(f"{method} of {'all seeds' if everything else f'seed_id {_listed(ids)}'}")
        # Without a seed_id a script makes just what is missing.
        commands += [
            score_command(paths, experiment, method, i) for i in (ids if len(ids) <= 2 else [None])
        ]
    unique = list(dict.fromkeys(commands))  # gd and gc come from one command
    return (
        f"scores of {experiment.name} are missing: {'; '.join(parts)}. Make them with: "
        f"{' && '.join(unique)} (or go on with what is there by --allow_missing)"
    )


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


def _check_alike(paths: Paths, experiment: Experiment, files: dict[str, dict[int, dict]]) -> None:
    """Raise UserError unless all scores are of the same pairs, settings and checkpoints."""
    reference = next(iter(next(iter(files.values())).values()))
    seeds = load_seeds()
    first_of: dict[int, tuple[str, dict]] = {}  # a seed's first method and its settings
    for method, by_seed in files.items():
        options = None
        for seed, content in by_seed.items():
            path = paths.scores(experiment, method, seed)
            settings = content["settings"]
            again = partial(_again_of_seed, paths, experiment, seeds.index(seed))
            wrong = [k for k in ("train_idx", "test_idx") if not content[k].equal(reference[k])]
            wrong += [k for k in _SAMPLES if settings.get(k) != reference["settings"].get(k)]
            if wrong:
                raise UserError(
                    f"{path} has another {wrong[0]} than the other scores of {experiment.name}: "
                    f"make it again with: {again(method, settings)}"
                )
            other, expected = first_of.setdefault(seed, (method, settings))
            if settings["checkpoints"] != expected["checkpoints"]:
                commands = dict.fromkeys((again(other, expected), again(method, settings)))
                raise UserError(
                    f"{path} was computed from other checkpoints than "
                    f"{paths.scores(experiment, other, seed)}: make both again with: "
                    f"{' && '.join(commands)}"
                )
            own = {k: v for k, v in settings.items() if k not in _MAY_DIFFER_BETWEEN_SEEDS}
            options = own if options is None else options
            if own.get("origin") != options.get("origin"):
                was = "given" if "origin" in own else "trained here"
                command = given_command if "origin" in options else training_command
                raise UserError(
                    f"{path} is of checkpoints that were {was}, those of the seeds before it were "
                    "not, so that they are no draws of one training: replace them with: "
                    f"{command(paths, experiment, seeds.index(seed))} --overwrite, and then the "
                    f"scores with: {again(method, settings)}"
                )
            if own != options:
                key = next(k for k in own.keys() | options.keys() if own.get(k) != options.get(k))
                raise UserError(
                    f"the seeds of {method} were not computed alike: {key} is {own.get(key)} in "
                    f"{path}, {options.get(key)} in the seeds before it: make it again with: "
                    f"{again(method, options)}"
                )


def _again_of_seed(
    paths: Paths, experiment: Experiment, seed_id: int, method: str, settings: dict
) -> str:
    options = {key: value for key, value in settings.items() if key not in MACHINE}
    return f"{score_command(paths, experiment, method, seed_id, options)} --overwrite"
