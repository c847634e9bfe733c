"""Whether an experiment's score files are there and alike, and what makes those that are not."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from src.argument_types import seed_ids_text
from src.ensemble.checkpoint_files import MACHINE, given_command, training_command
from src.errors import UserError
from src.experiments import N_SEEDS, Experiment, Paths
from src.tda.score_files import ROWS, load_scores_of, score_command

# Of a score file's settings these may differ between seeds: the checkpoints do by nature, and the
# losses of models trained on subsets; library and device change rounding only.
_MAY_DIFFER_BETWEEN_SEEDS = {"checkpoints", "subsets"} | MACHINE
# These are the same in all score files of an experiment.
_SAMPLES = ("train_samples", "test_samples", "backbone_weights")
_OF_A_VIT = ("backbone", "random_crop")  # what its training was told
TEN = range(N_SEEDS)


def unless_ten(seed_ids: str) -> str | None:
    """Return numbers of seeds for a command; None: those that it takes by default."""
    return None if seed_ids == seed_ids_text(TEN) else seed_ids


def missing_message(
    paths: Paths, experiment: Experiment, ids: dict[int, int], have: dict[str, list[int]]
) -> str:
    """Return what is missing, and the commands that make it.

    Args:
        paths: Every path below the root.
        experiment: The experiment.
        ids: Number of each seed that is asked for.
        have: The seeds that there are files of, by method.
    """
    parts, commands, untrained = [], [], set()
    there = ((m, seed) for m, own in have.items() for seed in own)
    settings = next((_settings_of(paths, experiment, *file, ids[file[1]]) for file in there), {})
    sample = _sample(settings)
    for method in have:
        lacks = ids.keys() - have[method]
        if not lacks:
            continue
        missing = seed_ids_text(ids[seed] for seed in lacks)
        untrained |= {s for s in lacks if not _is_trained(paths, experiment, s)}
        parts.append(f"{method} of {f'seed_id {missing}' if have[method] else 'all seeds'}")
        commands.append(score_command(paths, experiment, method, unless_ten(missing), sample))
    if untrained:
        seed_ids = unless_ten(seed_ids_text(ids[seed] for seed in untrained))
        trained = replace(experiment, **{k: settings[k] for k in _OF_A_VIT if k in settings})
        make = given_command if "origin" in settings else training_command
        commands.insert(0, make(paths, trained, seed_ids))
    unique = list(dict.fromkeys(commands))  # gd and gc come from one command
    return (
        f"scores of {experiment.name} are missing: {'; '.join(parts)}. Make them with: "
        f"{' && '.join(unique)} (or go on with what is there by --allow_missing)"
    )


def _is_trained(paths: Paths, experiment: Experiment, seed: int) -> bool:
    return all(paths.checkpoint(experiment, seed, e).exists() for e in experiment.kept_epochs)


def _settings_of(
    paths: Paths, experiment: Experiment, method: str, seed: int, seed_id: int
) -> dict:
    return load_scores_of(paths, experiment, method, seed, seed_id)["settings"]


def check_alike(
    paths: Paths, experiment: Experiment, files: dict[str, dict[int, dict]], ids: dict[int, int]
) -> None:
    """Raise UserError unless the last method's scores are as the first one's and as each other.

    That is of the same pairs, checkpoints and, from seed to seed, settings.
    """
    other, first = next(iter(files.items()))
    method, by_seed = next(reversed(files.items()))
    reference = next(iter(first.values()))
    options = None
    for seed, content in by_seed.items():
        path = paths.scores(experiment, method, seed)
        settings, expected = content["settings"], first[seed]["settings"]
        again = partial(_again_of_seed, paths, experiment, ids[seed])
        if settings.get("scored_samples") != reference["settings"].get("scored_samples"):
            others = {k: v for k, v in settings.items() if k not in ROWS}
            raise UserError(
                f"{path} has scores of other training samples ({_counted_rows(content)}) than "
                f"{paths.scores(experiment, other, next(iter(first)))} "
                f"({_counted_rows(reference)}), so that the two cannot be compared: make it again "
                f"with: {again(method, others | _sample(reference['settings']))}"
            )
        wrong = [k for k in ("train_idx", "test_idx") if not content[k].equal(reference[k])]
        wrong += [k for k in _SAMPLES if settings.get(k) != reference["settings"].get(k)]
        if wrong:
            raise UserError(
                f"{path} has another {wrong[0]} than the other scores of {experiment.name}: "
                f"make it again with: {again(method, settings)}"
            )
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
                f"{command(paths, experiment, ids[seed])} --overwrite, and then the "
                f"scores with: {again(method, settings)}"
            )
        if own != options:
            key = next(k for k in own.keys() | options.keys() if own.get(k) != options.get(k))
            raise UserError(
                f"the seeds of {method} were not computed alike: {key} is {own.get(key)} in "
                f"{path}, {options.get(key)} in the seeds before it: make it again with: "
                f"{again(method, options)}"
            )


def _sample(settings: dict) -> dict:
    """Return how many training samples of how many are scored; empty where these are all."""
    return {key: settings[key] for key in ROWS if key in settings}


def _counted_rows(content: dict) -> str:
    """Return how many training samples of how many a file has scores of."""
    n_train = content["settings"].get("train_samples_all")
    n_scored = len(content["train_idx"])
    return f"all {n_scored}" if n_train is None else f"{n_scored} of {n_train}"


def _again_of_seed(
    paths: Paths, experiment: Experiment, seed_id: int, method: str, settings: dict
) -> str:
    options = {key: value for key, value in settings.items() if key not in MACHINE}
    return f"{score_command(paths, experiment, method, seed_id, options)} --overwrite"
