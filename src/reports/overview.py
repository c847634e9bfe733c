"""What stands first on a page: what was run, how well it fits, and what computed it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from src.analysis.fit import Fit
from src.analysis.scores import ExperimentScores
from src.ensemble.draws import numbers_of_seeds, seed_ids_of
from src.experiments import (
    METHODS,
    PAPER_METHODS,
    RANDOMNESS,
    Experiment,
    Paths,
    Task,
    compared_name,
)
from src.plots.style import METHOD_LABELS
from src.reports.parts import OVERVIEW, check_output
from src.reports.reading import listed, reading_of_left_out
from src.reports.report import Report
from src.reports.revision import what_makes_a_page
from src.storage.files import digest

NOT_KNOWN = "not known"


@dataclass(frozen=True)
class Page:
    """A page of results: where it goes, its title, and what stands first on it.

    Attributes:
        folder: Where its files go.
        title: What it is about.
        source: Digest of the scores that are there now.
        report_overview: Writes the tables of its first part.
    """

    folder: Path
    title: str
    source: str
    report_overview: Callable[[Report], None]

    @classmethod
    def of_experiment(cls, folder: Path, scores: ExperimentScores, fit: Fit) -> Page:
        """Return the page of one experiment in a folder."""
        return cls(
            folder,
            scores.experiment.name,
            scores.digest,
            lambda report: report_experiment(report, scores, fit),
        )

    @classmethod
    def of_comparison(
        cls,
        paths: Paths,
        load: Callable[[Experiment], ExperimentScores],
        experiments: list[Experiment],
        output: Path | None,
    ) -> Page:
        """Return the page of a comparison, in a folder that was asked for or its own."""
        loaded = {experiment: _Compared.of(paths, load(experiment)) for experiment in experiments}
        return cls(
            output or paths.comparison / compared_name(experiments),
            comparison_title(experiments),
            digest({e.name: compared.source for e, compared in loaded.items()}),
            lambda report: report_compared(report, loaded),
        )

    def part(self, key: str, heading: str, settings: dict[str, object]) -> Report:
        """Begin a part of the page."""
        return Report(self.folder, self.title, key, heading, settings, self.source)

    def close(self, report: Report) -> Path:
        """Write the first part anew and finish another one; return the page's path.

        Raises:
            UserError: A file cannot be written.
        """
        overview = self.part(OVERVIEW, "What was run", {})
        self.report_overview(overview)
        overview.close()
        return report.close()


def comparison_title(experiments: list[Experiment]) -> str:
    """Return what the page of a comparison is called, as unambiguous as its folder's name."""
    return "Comparison of " + listed(
        compared_name(experiments).replace("_more_", " more, ").split("+")
    )


def check_page(output: Path | None, experiments: list[Experiment]) -> None:
    """Check, before anything is written, the folder that a page was asked to go to.

    Raises:
        UserError: It holds something else.
    """
    if output is not None:
        only = experiments[0].name if len(experiments) == 1 else comparison_title(experiments)
        check_output(output, only)


def report_experiment(report: Report, scores: ExperimentScores, fit: Fit) -> None:
    """Write what an experiment is, and accuracy and loss by seed.

    Args:
        report: Takes them.
        scores: The scores.
        fit: How well the models fit.
    """
    report.facts(
        "experiment",
        {
            **_what_was_run(scores),
            "numerical floor": _numerical_floor(scores),
            "scores computed with": scores.machines,
            **what_makes_a_page(),
        },
        "Experiment",
    )
    if len(fit.by_seed):
        report.table(
            "fit",
            fit.table(),
            "Accuracy and loss of the models",
            f"After the last epoch, in eval mode: {_quantities(scores.experiment.task)}. "
            + _unknown(fit),
        )
    else:
        report.facts("fit", {}, "Accuracy and loss of the models", _unknown(fit))


def _quantities(task: Task) -> str:
    share = "" if task.has_values else "the share of samples whose class is predicted, and "
    return f"{share}the mean {_loss_name(task)}"


def _what_was_run(scores: ExperimentScores) -> dict[str, object]:
    e = scores.experiment
    facts = {
        "model": e.model.name,
        "task": f"{e.task.name}: {_targets(e.task)}",
        "training samples": _training_samples(scores),
        "test samples": len(scores.test_idx),
        "seeds": _seeds(scores.common_seeds),
    }
    missing = [METHOD_LABELS[m] for m in scores.missing]
    if e.task.measure is not None:
        facts["what is attributed"] = (
            "not the loss of a test sample but the task's own measure: helping is lowering it"
        )
    if missing:
        facts["methods that are missing"] = listed(missing)
    if scores.unused:
        facts["seeds left out"] = reading_of_left_out(scores)
    if scores.are_given:
        return facts | {
            "checkpoints": f"{scores.n_checkpoints} of each training, which were given: how they "
            "were trained is not known here"
        }
    return facts | {
        "a seed drives": RANDOMNESS[e.randomness]
        + ("; one batch holds all training samples" if e.has_one_batch(scores.n_train) else ""),
        "epochs": e.epochs,
        "kept checkpoints": f"after epoch {listed(map(str, e.kept_epochs))}, counted from 0",
        "optimiser": _optimiser(e),
    }


def _targets(task: Task) -> str:
    if task.has_values:
        return "values" if task.target_shape == () else f"values of shape {task.target_shape}"
    return listed([task.name_of(label) for label in task.classes])


def _training_samples(scores: ExperimentScores) -> str:
    experiment, rows = scores.experiment, scores.rows
    is_balanced = not experiment.task.has_values and rows.n_train == experiment.n_train
    per_class = f" ({experiment.n_per_class} per class)" if is_balanced else ""
    noisy = "; the labels of a random tenth are flipped" if experiment.label_noise else ""
    scored = "" if rows.are_all else f"; a random sample of {rows.n_scored} of them is scored"
    return f"{rows.n_train:,}{per_class}{noisy}{scored}"


def _loss_name(task: Task) -> str:
    if task.criterion is not None:
        return "loss (the task's criterion)"
    return "squared error" if task.has_values else "cross-entropy"


def _optimiser(experiment: Experiment) -> str:
    chosen = experiment.hyperparameters
    name = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD"}[chosen.optimizer]
    momentum = f", momentum {chosen.momentum:g}" if chosen.momentum else ""
    decay = ", which falls to 0 linearly over all steps" if experiment.decays else ""
    how = "decoupled from" if chosen.optimizer == "adamw" else "added to"
    return (
        f"{name}{momentum}, learning rate {chosen.learning_rate:g}{decay}, weight decay "
        f"{chosen.weight_decay:g} {how} the gradient, batches of {chosen.batch_size}"
    )


def _seeds(seeds: list[int]) -> str:
    """Return how many seeds there are, their numbers and the seeds in the order of these."""
    # A study's trainings that were given have positions instead.
    known = set(seeds) <= numbers_of_seeds().keys()
    ids = f" (seed_id {seed_ids_of(seeds)})" if known else ""
    return f"{len(seeds)}{ids}: {', '.join(map(str, seeds))}"


def _numerical_floor(scores: ExperimentScores) -> str:
    if "loo" not in scores.scores:
        return "not known: it belongs to LOO, which is missing"
    floors = [np.median(np.abs(floor)) for floor in scores.floors.values()]
    sizes = [np.median(np.abs(of_seed)) for of_seed in scores.scores["loo"]]
    crops = ", on other random crops," if scores.options["loo"].get("random_crop") else ""
    return (
        f"median |τ| of a member that leaves nothing out{crops} {_span(floors)} by seed, where "
        f"LOO's median |τ| is {_span(sizes)}"
    )


def _span(values: list[float]) -> str:
    low, high = (f"{limit:.1e}" if limit else "0" for limit in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _unknown(fit: Fit) -> str:
    parts = [
        f"They are not known of seed_id {seed_ids_of(seeds)}: {reason}."
        for reason, seeds in fit.unknown.items()
    ]
    return " ".join(parts)


@dataclass(frozen=True)
class _Compared:
    """What a comparison says first of one experiment."""

    source: str
    machines: list[str]
    row: dict[str, object]

    @classmethod
    def of(cls, paths: Paths, scores: ExperimentScores) -> _Compared:
        by_seed = Fit.of(paths, scores).by_seed
        row = {
            "train_samples": scores.n_train,
            "train_samples_scored": scores.rows.n_scored,
            "test_samples": len(scores.test_idx),
            **{f"seeds_{m}": len(scores.seeds.get(m, [])) for m in METHODS},
            "epochs": NOT_KNOWN if scores.are_given else scores.experiment.epochs,
            "a_seed_drives": NOT_KNOWN
            if scores.are_given
            else RANDOMNESS[scores.experiment.randomness],
            "models_evaluated": len(by_seed),
        }
        for name in by_seed:
            row |= {f"{name}_mean": by_seed[name].mean(), f"{name}_std": by_seed[name].std()}
        return cls(scores.digest, scores.machines, row)


def report_compared(report: Report, compared: dict[Experiment, _Compared]) -> None:
    """Write what the experiments of a comparison are.

    Args:
        report: Takes the table.
        compared: What is said of each.
    """
    rows = {experiment.name: one.row for experiment, one in compared.items()}
    further = [f"seeds_{m}" for m in METHODS if m not in PAPER_METHODS]
    nowhere = [column for column in further if not any(row[column] for row in rows.values())]
    report.table(
        "experiments",
        pd.DataFrame.from_dict(rows, orient="index")
        .drop(columns=nowhere)
        .rename_axis("experiment"),
        "Experiments",
        "Samples, seeds that all methods which are there have, and accuracy (a share) and mean "
        "loss after the last epoch: mean and standard deviation over the models whose checkpoints "
        "say them (`models_evaluated`).",
    )
    report.facts(
        "computed",
        {
            "scores computed with": sorted({m for one in compared.values() for m in one.machines}),
            **what_makes_a_page(),
        },
        "Versions",
    )
