"""Which files of an exhibit are there, and the commands that make the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from src.argument_types import seed_ids_text
from src.ensemble.draws import load_seeds
from src.experiments import N_SEEDS, PAPER_STEPS, STEPS, Experiment, Paths
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
        missing: Numbers of the seeds that lack files, by step of PAPER_STEPS and "training".
        n_scored: How many training samples are scored; None: all.
    """

    experiment: Experiment
    seed_ids: list[int]
    missing: dict[str, list[int]]
    n_scored: int | None

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
    known = load_seeds(max(seed_ids) + 1)

    def missing(experiment: Experiment) -> dict[str, list[int]]:
        files = {
            step: lambda seed, methods=methods: [
                paths.scores(experiment, method, seed) for method in methods
            ]
            for step, methods in STEPS.items()
            if step in PAPER_STEPS
        }
        files["training"] = lambda seed: [
            paths.checkpoint(experiment, seed, epoch) for epoch in experiment.kept_epochs
        ]
        lacking = {
            step: [k for k in seed_ids if not all(f.exists() for f in of_seed(known[k]))]
            for step, of_seed in files.items()
        }
        # Scores that are all there need no checkpoints.
        wanted = {k for step in PAPER_STEPS for k in lacking[step]}
        return lacking | {"training": [k for k in lacking["training"] if k in wanted]}

    return [
        Need(e, seed_ids, missing(e), scored_of(asked.scale, e, asked.n_scored))
        for e in exhibit.needs(asked.scale)
    ]


def merged(needs: list[Need]) -> list[Need]:
    """Return one need for each experiment that several exhibits ask for, with all their seeds."""
    found: dict[Experiment, Need] = {}
    for need in needs:
        other = found.get(need.experiment, need)
        found[need.experiment] = Need(
            need.experiment,
            sorted({*other.seed_ids, *need.seed_ids}),
            {s: sorted({*other.missing[s], *own}) for s, own in need.missing.items()},
            need.n_scored,
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
    paths = Paths(root)
    needs = merged([need for exhibit in exhibits for need in needs_of(exhibit, asked, paths)])
    jobs = []
    for need in needs:
        check_samples([need.experiment], root, need.n_scored)
        numbered = seeds(need.seed_ids)
        options = asked.vit_options
        jobs += plan([need.experiment], [*PAPER_STEPS], numbered, root, options, need.n_scored)
    return sorted(jobs, key=lambda job: job.training is not None)
