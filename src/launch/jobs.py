"""The jobs of experiments: which scripts make which files of which seed, and in what order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from src.experiments import (
    METHODS,
    STEPS,
    SUBSET_KINDS,
    TRUTH,
    Experiment,
    Paths,
    call_of,
    parse_experiment,
)
from src.storage.locks import Holder, Unreadable, holder

SUBSETS = "subsets"  # what a person calls the trainings on subsets


@dataclass(frozen=True)
class Job:
    """One call of a run_* script, for one seed or for some together.

    Attributes:
        name: What a person calls it.
        experiment: Name of the experiment; None: it is of none.
        step: "training", "subsets_<kind>", "fragility", or one of STEPS, with `_self` where
            training samples are scored on themselves.
        seed_id: Number of the seed, or of the first of them.
        arguments: Script and arguments, without the device.
        outputs: The files that it makes.
        lock: Held by the process that makes them.
        log: Where its output goes.
        after: The job that has to be done right before; None for a training.
    """

    name: str
    experiment: str | None
    step: str
    seed_id: int
    arguments: tuple[str, ...]
    outputs: tuple[Path, ...]
    lock: Path
    log: Path
    after: Job | None = None

    @property
    def needs(self) -> tuple[Job, ...]:
        """All jobs that have to be done before, the last one first."""
        return () if self.after is None else (self.after, *self.after.needs)

    def is_done(self) -> bool:
        """Say whether its files are there; whether their settings fit, only the script can say."""
        return all(path.exists() for path in self.outputs)

    @property
    def has_backbone(self) -> bool:
        """Whether it takes the libraries of a ViT."""
        return self.experiment is not None and parse_experiment(self.experiment).has_backbone

    def holder(self) -> Holder | Unreadable | None:
        """Return the process that is at work on its files, or on those it needs, if any."""
        return next(filter(None, (holder(job.lock) for job in (self, *self.needs))), None)

    def command(self, device: str) -> list[str]:
        """Return the command, for the repository's folder."""
        return ["python", *self.arguments, "--device", device]


def plan(
    experiments: list[Experiment],
    methods: list[str],
    seeds: list[tuple[int, int]],
    root: Path,
    vit_options: list[str],
    n_scored: int | None = None,
    *,
    on_itself: bool = False,
    n_subsets: int | None = None,
) -> list[Job]:
    """Return the jobs of experiments, each behind what it needs, the longest of the rest first.

    Methods that are computed from trainings on subsets bring these along.

    Args:
        experiments: The experiments.
        methods: Of STEPS, in any order, and SUBSETS: those that accuracy is measured by.
        seeds: (seed_id, seed) of each seed.
        root: Folder of data/, models/, tda_scores/ and results/.
        vit_options: Further arguments for the training of ViTs.
        n_scored: Number of training samples that are scored; None: all.
        on_itself: Whether the training samples are scored on themselves, too.
        n_subsets: Number of the subsets that accuracy is measured by; None: as `run_subsets.py` has
            it.
    """
    paths = Paths(root)
    kinds = {"": paths} | ({"_self": Paths(root, on_itself=True)} if on_itself else {})
    subsets_options = () if n_subsets is None else ("--n_subsets", str(n_subsets))
    scoring_options = () if n_scored is None else ("--train_samples", str(n_scored))
    trainings = {
        (experiment.name, seed_id): Job(
            f"training of {experiment.name}, seed_id {seed_id}",
            experiment.name,
            "training",
            seed_id,
            (
                *_call(paths, (experiment.training_script,), experiment, seed_id),
                *(vit_options if experiment.has_backbone else ()),
            ),
            tuple(paths.checkpoint(experiment, seed, e) for e in experiment.kept_epochs),
            paths.training_lock(experiment, seed),
            paths.log(experiment, "training", seed),
        )
        for experiment in experiments
        for seed_id, seed in seeds
    }
    needed = {METHODS[STEPS[step][0]].subsets for step in methods if step in STEPS}
    if SUBSETS in methods:
        needed.add(TRUTH)
    subsets = {
        (kind, experiment.name, seed_id): Job(
            f"{SUBSETS}_{kind} of {experiment.name}, seed_id {seed_id}",
            experiment.name,
            f"{SUBSETS}_{kind}",
            seed_id,
            (
                *_call(paths, ("run_subsets.py", "--kind", kind), experiment, seed_id),
                *(subsets_options if kind == TRUTH else ()),
            ),
            (paths.subsets(experiment, kind, seed),),
            paths.subsets_lock(experiment, kind, seed),
            paths.log(experiment, f"{SUBSETS}_{kind}", seed),
            trainings[experiment.name, seed_id],
        )
        for kind in SUBSET_KINDS
        if kind in needed
        for experiment in experiments
        for seed_id, seed in seeds
    }
    scores = [
        Job(
            f"{step}{kind} of {experiment.name}, seed_id {seed_id}",
            experiment.name,
            f"{step}{kind}",
            seed_id,
            (
                *_call(paths, call_of(STEPS[step][0]), experiment, seed_id),
                *scoring_options,
                *(("--self",) if at.on_itself else ()),
            ),
            tuple(at.scores(experiment, method, seed) for method in STEPS[step]),
            at.scores_lock(experiment, STEPS[step][0], seed),
            paths.log(experiment, f"{step}{kind}", seed),
            _before(step, experiment, seed_id, trainings, subsets),
        )
        for step in STEPS
        if step in methods
        for kind, at in kinds.items()
        # The losses that they are computed from are of test samples.
        if not (at.on_itself and METHODS[STEPS[step][0]].subsets)
        for experiment in experiments
        for seed_id, seed in seeds
    ]
    return [*trainings.values(), *subsets.values(), *scores]


def _before(
    step: str,
    experiment: Experiment,
    seed_id: int,
    trainings: dict[tuple[str, int], Job],
    subsets: dict[tuple[str, str, int], Job],
) -> Job:
    """Return the job that has to be done before a step's."""
    kind = METHODS[STEPS[step][0]].subsets
    if kind is None:
        return trainings[experiment.name, seed_id]
    return subsets[kind, experiment.name, seed_id]


def _call(
    paths: Paths, script: tuple[str, ...], experiment: Experiment, seed_id: int
) -> tuple[str, ...]:
    return paths.call(*script, "--experiment", experiment.name, "--seed_id", seed_id)
