"""The tables and figures of the paper's argument, and the experiments that each is drawn from.

At the scale "paper" these are the paper's own settings. At the scale "quick" the same questions are
asked of the bundled digits, of fewer samples and seeds: minutes, to see what comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from src.errors import UserError
from src.experiments import N_SEEDS, Experiment, parse_experiment
from src.paper import writers
from src.paper.drawing import Drawing
from src.reports.report import Report

SCALES = ("paper", "quick")
_QUICK_SEEDS = range(3)
_QUICK_ROWS = 10  # training samples that are scored


@dataclass(frozen=True)
class Exhibit:
    """A table or figure of the paper's argument, or several of one kind.

    Attributes:
        name: What `--only` calls it.
        title: What it shows.
        experiments: Names of the experiments that it is drawn from, by scale.
        write: Writes it into a part of the page.
        more_seeds: How many seeds it takes, by scale, where it asks for more than others do.
    """

    name: str
    title: str
    experiments: dict[str, tuple[str, ...]]
    write: Callable[[Report, Drawing], None]
    more_seeds: dict[str, int] | None = None

    def needs(self, scale: str) -> list[Experiment]:
        """Return the experiments that it is drawn from at a scale."""
        return [parse_experiment(name) for name in self.experiments[scale]]

    def seed_ids(self, scale: str, asked: list[int] | None) -> list[int]:
        """Return the numbers of the seeds that it is drawn from, unless others are asked for."""
        if asked is not None:
            return asked
        if self.more_seeds is not None:
            return [*range(self.more_seeds[scale])]
        return [*(range(N_SEEDS) if scale == "paper" else _QUICK_SEEDS)]


def scored_of(scale: str, experiment: Experiment, asked: int | None) -> int | None:
    """Return how many training samples of an experiment are scored; None: all it has to score.

    Args:
        scale: One of SCALES.
        experiment: The experiment.
        asked: How many of each experiment that has more; None: what the scale says.
    """
    most = _QUICK_ROWS if asked is None and scale == "quick" else asked
    return most if most is not None and most < n_to_score(experiment) else None


def n_to_score(experiment: Experiment) -> int:
    """Return how many training samples of an experiment there are to score."""
    return experiment.task.n_scored if experiment.n_per_class is None else experiment.n_train


def _paper(models: Iterable[str], sizes: Iterable[str], sources: Iterable[str] = ("",)) -> list:
    return [f"{m}_{size}{source}" for size in sizes for m in models for source in sources]


_HEADLINE = ("mnist3_50pc", "cifar10_50pc")
_MODELS = ("cnn2", "cnn3", "vit")
_SOURCES = ("", "_init", "_batch")
_PLAIN = {
    "paper": tuple(_paper(_MODELS, _HEADLINE)),
    "quick": ("cnn2_digits3_10pc", "cnn3_digits3_10pc", "vit_digits3_10pc"),
}
_BY_SOURCE = {
    "paper": tuple(_paper(("cnn2",), _HEADLINE, _SOURCES)),
    "quick": tuple(_paper(("cnn2",), ("digits3_20pc",), _SOURCES)),
}
_SIZES = {
    "paper": tuple(
        _paper(
            ("cnn2",),
            [
                *(f"mnist3_{n}pc" for n in (10, 20, 50)),
                *(f"cifar10_{n}pc" for n in (10, 20, 30, 40, 50, 60)),
            ],
        )
    ),
    "quick": ("cnn2_digits3_10pc", "cnn2_digits3_20pc", "cnn2_digits3_50pc"),
}
_OF_CNN2 = {"paper": tuple(_paper(("cnn2",), _HEADLINE)), "quick": ("cnn2_digits3_10pc",)}

EXHIBITS = {
    exhibit.name: exhibit
    for exhibit in (
        Exhibit(
            "reliability",
            "Reliability by task, model and source of randomness",
            {s: tuple(dict.fromkeys(_PLAIN[s] + _BY_SOURCE[s])) for s in SCALES},
            writers.write_reliability,
        ),
        Exhibit(
            "checkpoints",
            "Mean p-value by number of checkpoints",
            _PLAIN,
            writers.write_checkpoints,
        ),
        Exhibit(
            "sources",
            "Initialisation against batch order",
            _BY_SOURCE,
            writers.write_sources,
        ),
        Exhibit("complexity", "Model complexity", _PLAIN, writers.write_complexity),
        Exhibit("size", "Training set size", _SIZES, writers.write_size),
        Exhibit(
            "correlations",
            "Agreement between methods: the six heat maps",
            _PLAIN,
            writers.write_correlations,
        ),
        Exhibit("pairs", "Pairs of low and of high noise", _OF_CNN2, writers.write_pairs),
        Exhibit(
            "full",
            "A model trained on much more than what is scored",
            # There is no larger set of digits, of which some rows are scored all the same.
            {"paper": ("cnn2_mnist_all",), "quick": ("cnn2_digits3_50pc",)},
            writers.write_full,
        ),
        Exhibit(
            "draws",
            "What more draws show",
            {"paper": ("cnn2_mnist3_10pc",), "quick": ("cnn2_digits3_10pc",)},
            writers.write_draws,
            more_seeds={"paper": 100, "quick": 6},
        ),
    )
}


def exhibits_of(names: list[str] | None) -> list[Exhibit]:
    """Return the exhibits of these names, in the order of the paper's argument; None: all.

    Raises:
        UserError: There is none of a name.
    """
    if unknown := [name for name in names or () if name not in EXHIBITS]:
        raise UserError(f"unknown exhibit {unknown[0]!r}: choose from {', '.join(EXHIBITS)}")
    return [exhibit for name, exhibit in EXHIBITS.items() if names is None or name in names]
