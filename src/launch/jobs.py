"""The jobs of experiments: which scripts make which files of which seed, and in what order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from src.experiments import STEPS, Experiment, Paths, call_of, parse_experiment
from src.storage.locks import Holder, Unreadable, holder


@dataclass(frozen=True)
class Job:
    """One call of a run_* script, for one seed or for some together.

    Attributes:
        name: What a person calls it.
        experiment: Name of the experiment; None: it is of none.
        step: "training", one of STEPS, or "fragility".
        seed_id: Number of the seed, or of the first of them.
        arguments: Script and arguments, without the device.
        outputs: The files that it makes.
        lock: Held by the process that makes them.
        log: Where its output goes.
        training: The job that has to be done before; None for a training.
    """

    name: str
    experiment: str | None
    step: str
    seed_id: int
    arguments: tuple[str, ...]
    outputs: tuple[Path, ...]
    lock: Path
    log: Path
    training: Job | None = None

    def is_done(self) -> bool:
        """Say whether its files are there; whether their settings fit, only the script can say."""
        return all(path.exists() for path in self.outputs)

    @property
    def has_backbone(self) -> bool:
        """Whether it takes the libraries of a ViT."""
        return self.experiment is not None and parse_experiment(self.experiment).has_backbone

    def holder(self) -> Holder | Unreadable | None:
        """Return the process that is at work on its files, or on those it needs, if any."""
        found = holder(self.lock)
        return found if found or self.training is None else holder(self.training.lock)

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
) -> list[Job]:
    """Return the jobs of experiments, each behind what it needs, the longest of the rest first.

    Args:
        experiments: The experiments.
        methods: Of STEPS, in any order.
        seeds: (seed_id, seed) of each seed.
        root: Folder of data/, models/, tda_scores/ and results/.
        vit_options: Further arguments for the training of ViTs.
        n_scored: Number of training samples that are scored; None: all.
    """
    paths = Paths(root)
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
    scores = [
        Job(
            f"{step} of {experiment.name}, seed_id {seed_id}",
            experiment.name,
            step,
            seed_id,
            (*_call(paths, call_of(STEPS[step][0]), experiment, seed_id), *scoring_options),
            tuple(paths.scores(experiment, method, seed) for method in STEPS[step]),
            paths.scores_lock(experiment, STEPS[step][0], seed),
            paths.log(experiment, step, seed),
            trainings[experiment.name, seed_id],
        )
        for step in STEPS
        if step in methods
        for experiment in experiments
        for seed_id, seed in seeds
    ]
    return [*trainings.values(), *scores]


def _call(
    paths: Paths, script: tuple[str, ...], experiment: Experiment, seed_id: int
) -> tuple[str, ...]:
    return paths.call(*script, "--experiment", experiment.name, "--seed_id", seed_id)
