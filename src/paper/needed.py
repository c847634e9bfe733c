"""Which files of an exhibit are there, and the commands that make the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from src.argument_types import seed_ids_text
from src.experiments import N_SEEDS, PAPER_STEPS, Experiment, Paths
from src.launch.jobs import Job, plan
from src.paper.exhibits import Exhibit, scored_of
from src.steps import check_samples, seeds


@dataclass(frozen=True)
class Asked:
    """What a person asks of exhibits.

    Attributes:
        scale: One of `exhibits.SCALES`.
        seed_ids: Numbers of the seeds; None: those of the exhibit.
        n_scored: How many training samples are scored of experiments that have more; None: what the
            scale says.
        vit_options: Further arguments for the training of ViTs.
    """

    scale: str
    seed_ids: list[int] | None
    n_scored: int | None
    vit_options: list[str]


@dataclass(frozen=True)
class Need:
    """One experiment of an exhibit: what of it is there.

    Attributes:
        experiment: The experiment.
        seed_ids: Numbers of the seeds that are asked for.
        n_scored: How many training samples are scored; None: all.
        jobs: The jobs that make its files.
    """

    experiment: Experiment
    seed_ids: list[int]
    n_scored: int | None
    jobs: list[Job]

    @cached_property
    def missing(self) -> dict[str, list[int]]:
        """Numbers of the seeds that lack files, by step of PAPER_STEPS and "training".

        Scores that are all there need no checkpoints.
        """
        lacking = [job for job in self.jobs if job.after is not None and not job.is_done()]
        trainings = dict.fromkeys(job.after for job in lacking)
        lacking += [training for training in trainings if not training.is_done()]
        steps = ("training", *PAPER_STEPS)
        return {s: sorted(job.seed_id for job in lacking if job.step == s) for s in steps}

    @property
    def n_complete(self) -> int:
        """Number of the seeds that have the scores of all methods."""
        lacking = {seed_id for step in PAPER_STEPS for seed_id in self.missing[step]}
        return len(self.seed_ids) - len(lacking)

    @property
    def is_there(self) -> bool:
        """Whether all score files are there."""
        return self.n_complete == len(self.seed_ids)


def needs_of(exhibit: Exhibit, asked: Asked, paths: Paths) -> list[Need]:
    """Return what of each of an exhibit's experiments is there."""
    seed_ids = exhibit.seed_ids(asked.scale, asked.seed_ids)
    numbered = seeds(seed_ids)

    def need(experiment: Experiment) -> Need:
        n_scored = scored_of(asked.scale, experiment, asked.n_scored)
        jobs = plan([experiment], [*PAPER_STEPS], numbered, paths.root, asked.vit_options, n_scored)
        return Need(experiment, seed_ids, n_scored, jobs)

    return [need(experiment) for experiment in exhibit.needs(asked.scale)]


def merged(needs: list[Need]) -> list[Need]:
    """Return one need for each experiment that several exhibits ask for, with all their seeds."""
    found: dict[Experiment, Need] = {}
    for need in needs:
        other = found.get(need.experiment, need)
        found[need.experiment] = Need(
            need.experiment,
            sorted({*other.seed_ids, *need.seed_ids}),
            need.n_scored,
            [*dict.fromkeys([*other.jobs, *need.jobs])],
        )
    return list(found.values())


def commands(needs: list[Need], asked: Asked, paths: Paths) -> Iterator[str]:
    """Yield the commands that make what is missing: of samples, then of trainings and scores."""
    needs = [need for need in needs if not need.is_there]
    lacking = dict.fromkeys(
        need.experiment.task.name
        for need in needs
        for split in need.experiment.splits.values()
        if not paths.tensors(need.experiment.task.name, split).exists()
    )
    for task in lacking:
        yield paths.command("run_subset_generation.py", "--task", task)
    groups: dict[tuple, list[Experiment]] = {}
    for need in needs:
        options = tuple(asked.vit_options) if need.experiment.has_backbone else ()
        key = (seed_ids_text(need.seed_ids), need.n_scored, options)
        groups.setdefault(key, []).append(need.experiment)
    for (seed_ids, n_scored, options), experiments in groups.items():
        arguments = ["--experiment", *(experiment.name for experiment in experiments)]
        if seed_ids != seed_ids_text(range(N_SEEDS)):
            arguments += ["--seed_id", seed_ids]
        if n_scored is not None:
            arguments += ["--train_samples", n_scored]
        yield paths.command("run_parallel.py", *arguments, *options)


def jobs_of(exhibits: list[Exhibit], asked: Asked, root: Path) -> list[Job]:
    """Return the jobs that make all files of exhibits, trainings before scores.

    Raises:
        UserError: The samples of an experiment are not there.
    """
    needs = [need for exhibit in exhibits for need in needs_of(exhibit, asked, Paths(root))]
    jobs = []
    for need in merged(needs):
        check_samples([need.experiment], root, need.n_scored)
        jobs += need.jobs
    return sorted(jobs, key=lambda job: job.after is not None)
