"""Scores of all seeds, loaded and checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial

import numpy as np
import torch

from src.analysis.scores import ExperimentScores, shared
from src.data.samples import experiment_tensors, inputs_key, to_samples
from src.data.texts import text_of
from src.ensemble.checkpoint_files import MACHINE, given_command, training_command
from src.ensemble.draws import load_seeds, seed_ids_of
from src.errors import UserError
from src.experiments import METHODS, PAPER_METHODS, Experiment, Paths, in_order
from src.reports.checks import TEN, check_alike, missing_message, unless_ten
from src.tda.score_files import OF_LOO, ORIGIN, load_scores_of, score_command


def load_scores(
    paths: Paths,
    experiment: Experiment,
    seed_ids: Sequence[int] = TEN,
    *,
    allow_missing: bool,
    methods: Sequence[str] | None = None,
) -> ExperimentScores:
    """Load the scores of methods of an experiment, of the seeds that all of them have.

    Args:
        paths: Every path below the root.
        experiment: The experiment.
        seed_ids: Numbers of the seeds, in ascending order.
        allow_missing: Go on without missing files, with the methods that share two seeds at least.
        methods: The methods; None: the paper's, and others whose files of all seeds are there.

    Raises:
        UserError: Scores are missing, a file is not sound, or they were not computed alike; the
            message says what to run.
    """
    known = load_seeds(max(seed_ids) + 1)
    ids = {known[seed_id]: seed_id for seed_id in seed_ids}
    have = {m: [s for s in ids if paths.scores(experiment, m, s).exists()] for m in METHODS}
    asked = PAPER_METHODS if methods is None else in_order(methods)
    # A further method is shown without being asked for where no seed of it is missing.
    further = [m for m in METHODS if m not in asked and methods is None and have[m]]
    incomplete = {m: have[m] for m in further if have[m] != [*ids]}
    have = {m: have[m] for m in METHODS if m in asked or (m in further and m not in incomplete)}
    if any(own != [*ids] for own in have.values()) and not allow_missing:
        raise UserError(missing_message(paths, experiment, ids, have))
    compared = _that_share_seeds({m: own for m, own in have.items() if len(own) >= 2})
    if not compared:
        raise UserError(
            f"no method has scores of two seeds for {experiment.name}, the least there can be; "
            + missing_message(paths, experiment, ids, have)
        )
    seeds = shared(compared.values())
    scores, files = {}, {}
    for method in compared:
        files[method] = {
            seed: load_scores_of(paths, experiment, method, seed, ids[seed]) for seed in seeds
        }
        check_alike(paths, experiment, files, ids)
        # What was stacked is held once.
        scores[method] = np.stack([f.pop("scores").numpy() for f in files[method].values()])
    unused = {m: [s for s in own if m not in compared or s not in seeds] for m, own in have.items()}
    unused |= incomplete
    return replace(
        gathered(experiment, scores, files),
        unused={m: own for m, own in unused.items() if own},
        missing=[m for m in METHODS if m in unused.keys() | have.keys() and m not in compared],
    )


def loader(
    paths: Paths,
    experiments: Sequence[Experiment],
    seed_ids: Sequence[int],
    *,
    allow_missing: bool,
    methods: Sequence[str] | None,
) -> Callable[[Experiment], ExperimentScores]:
    """Return what loads the scores of each of some experiments, as `load_scores` does.

    Those of a single one are read once and kept; several would not fit into memory side by side.
    """
    load = partial(
        load_scores, paths, seed_ids=seed_ids, allow_missing=allow_missing, methods=methods
    )
    return lru_cache(maxsize=1)(load) if len(experiments) == 1 else load


def _that_share_seeds(have: dict[str, list[int]]) -> dict[str, list[int]]:
    """Return the methods that share two seeds, with all that each has.

    Those with the fewest seeds are left out, one by one, until the others do.
    """
    kept = dict(have)
    while kept and len(shared(kept.values())) < 2:
        del kept[min(reversed(kept), key=lambda m: len(kept[m]))]
    return kept


def gathered(
    experiment: Experiment, scores: dict[str, np.ndarray], files: dict[str, dict[int, dict]]
) -> ExperimentScores:
    """Return scores with what their files say of them.

    Args:
        experiment: The experiment.
        scores: Scores (T, C, n_train, n_test), by method.
        files: Contents of the score files, by method and seed; the scores themselves may be gone.
            They are of the same pairs, settings and checkpoints.
    """
    first = next(iter(next(iter(files.values())).values()))
    return ExperimentScores(
        experiment,
        scores,
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
        *(
            {seed: content[key].numpy() for seed, content in files.get("loo", {}).items()}
            for key in OF_LOO
        ),
        first["settings"].get("train_samples_all"),
    )


def check_scores(
    paths: Paths,
    experiments: list[Experiment],
    load: Callable[[Experiment], ExperimentScores],
    *,
    test_index: int | None = None,
    images: bool = False,
) -> None:
    """Load the scores of all experiments once, so that errors come before anything is written.

    Args:
        paths: Every path below the root.
        experiments: The experiments, which will be compared with each other.
        load: Loads the scores of an experiment, as `load_scores` does.
        test_index: A test sample that all experiments must have; None: any will do.
        images: Whether the images of the samples will be wanted.

    Raises:
        UserError: As `load_scores` and `load_images` do, or an experiment does not have the test
            sample, or two experiments that use the same split have scores of other samples of it.
    """
    seen: dict[tuple, tuple[str, object]] = {}
    for experiment in experiments:
        scores = load(experiment)
        if test_index is not None:
            scores.test_position(test_index)
        if images:
            load_images(paths, scores)
        for split, name in experiment.splits.items():
            name += " (noisy)" if split == "train" and experiment.label_noise else ""
            index = {"train": scores.train_idx, "test": scores.test_idx}[split]
            if split == "train":
                key, own = (experiment.task.name, name, "rows"), scores.rows
                other, rows = seen.setdefault(key, (experiment.name, own))
                if (own.n_scored, own.n_train) != (rows.n_scored, rows.n_train):
                    raise UserError(
                        f"the scores of {other} are of {rows.n_scored} of {rows.n_train} training "
                        f"samples of {experiment.task.name} {name}, those of {experiment.name} of "
                        f"{own.n_scored} of {own.n_train}, so the two cannot be compared: score as "
                        "many of each, by --train_samples"
                    )
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
        UserError: The tensors are missing or damaged, or others, or the task cannot make a text.
    """
    experiment, found = scores.experiment, {}
    for split, tensors in experiment_tensors(paths, experiment).items():
        name = experiment.splits[split]
        samples = to_samples(tensors, experiment)
        # The digest is of all training samples, of which scores may be of some.
        whole = split == "train" and not scores.rows.are_all
        index = {"train": scores.train_idx, "test": scores.test_idx}[split]
        wrong = f"holds other samples than the scores of {experiment.name} were computed from"
        try:
            at = samples.positions(torch.from_numpy(index))
            if (samples if whole else samples.at(at)).digest() == scores.digests[split]:
                found[split] = {
                    key: tensors[key][at] for key in (inputs_key(tensors), "labels", "indices")
                }
                if experiment.task.text is not None:  # fails before anything is written
                    text_of(experiment.task, found[split][inputs_key(tensors)][0])
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
    ids = unless_ten(seed_ids_of({*scores.common_seeds}.union(*scores.unused.values())))
    commands = [
        score_command(paths, scores.experiment, method, ids, options)
        for method, options in scores.options.items()
    ]
    if split == "train":
        options = next(iter(scores.options.values()))
        trained = {key: options[key] for key in ("backbone", "random_crop") if key in options}
        changed = replace(scores.experiment, **trained)
        commands.insert(
            0,
            given_command(paths, changed)
            if scores.are_given
            else training_command(paths, changed, ids),
        )
    return " && ".join(f"{command} --overwrite" for command in dict.fromkeys(commands))


def _options(content: dict) -> dict:
    """Return the settings of a score file that are no digests and alike for all seeds."""
    left_out = ORIGIN | MACHINE
    return {key: value for key, value in content["settings"].items() if key not in left_out}
