"""Attribution of a network of one's own in a notebook, by the code that the scripts run.

    study = Study(Network, (images, labels), (test_images, test_labels), epochs=20)
    scores = study.scores(["loo", "gd"], n_seeds=3)  # {"loo": (3, 5, n_train, n_test), "gd": ...}
    study.accuracy(["loo", "gd"], n_seeds=3)  # a table: reliable, or also right?
    study.report("report", n_seeds=3)

All of it stays in memory; `report` alone writes, and only to the folder that it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor, nn

from src.analysis.scores import ExperimentScores
from src.analysis.subsets import SubsetLosses
from src.ensemble.draws import load_seeds
from src.ensemble.generators import without_drawing
from src.ensemble.given import States, number_of_each, take_trainings
from src.ensemble.own import Pair, own_setup
from src.errors import UserError
from src.experiments import MOST_SEEDS, N_SEEDS, PAPER_METHODS, SUBSET_KINDS, TRUTH
from src.reports.scores import gathered
from src.steps import choose_device
from src.tda.estimator import Estimator
from src.tda.estimators import estimators_of
from src.tda.in_memory import InMemory

TESTS = ("ttest", "snr")

Methods = Sequence[str | Estimator]


class Study:
    """Attribution scores of a network on data of one's own, over several trainings.

    What was computed is kept and not computed again: trainings for every method, scores for more
    seeds, accuracy or a report. A computation that was interrupted goes on from where it was.

    Args:
        factory: Returns a freshly initialised network, drawn from torch's global generator. It
            takes nothing, or a task whose `n_classes` and `input_shape` say what the data are.
        train: Inputs (n_train, ...) and targets (n_train, ...) of the training samples, tensors or
            arrays. Whole numbers are classes, others values. Images (N, C, H, W) of uint8 are
            scaled to [0, 1]; all else reaches the network as it is.
        test: Inputs and targets of the test samples.
        name: Title of the report: letters, digits and inner hyphens.
        n_classes: Outputs of the network; None: as many as the class names or, without these, the
            largest label and one more.
        class_names: What figures call each label, by label.
        feature_names: Of inputs that are rows of numbers, what each number is.
        text: Makes the text that stands for one input in figures.
        criterion: Per-sample loss (B,) of outputs (B, ...) and targets (B, ...); None:
            cross-entropy, or squared error where targets are values.
        measure: What of a test sample is attributed, (B,) of outputs and targets; None: the loss.
        train_samples: Number of training samples that are scored, a random sample as balanced as
            it can be; None: all. Training is on all.
        device: As the scripts' `--device`; None: the best there is.
        checkpoints: State dicts of networks that are trained already: of each training its
            checkpoints, in order and as many of each. Nothing is trained then.
        **hyperparameters: Of training, as `src.experiments.Hyperparameters` names them: epochs,
            batch_size, learning_rate, weight_decay, optimizer, momentum, n_checkpoints.

    Raises:
        UserError: An argument is not allowed; nothing has been trained by then.
    """

    def __init__(
        self,
        factory: Callable[..., nn.Module],
        train: Pair,
        test: Pair,
        *,
        name: str = "study",
        n_classes: int | None = None,
        class_names: Sequence[str] = (),
        feature_names: Sequence[str] = (),
        text: Callable[[Tensor], str] | None = None,
        criterion: Callable[[Tensor, Tensor], Tensor] | None = None,
        measure: Callable[[Tensor, Tensor], Tensor] | None = None,
        train_samples: int | None = None,
        device: str | None = None,
        checkpoints: States | None = None,
        **hyperparameters: Any,
    ) -> None:
        if checkpoints is not None:
            n_each = number_of_each(checkpoints)
            hyperparameters = {"epochs": n_each, "n_checkpoints": n_each, **hyperparameters}
            if hyperparameters["n_checkpoints"] != n_each:
                raise UserError(
                    f"n_checkpoints is {hyperparameters['n_checkpoints']}, and {n_each} of each "
                    "training are given"
                )
        self._device = choose_device(device)
        with without_drawing(self._device):
            setup = own_setup(
                factory,
                train,
                test,
                self._device,
                hyperparameters,
                train_samples,
                name=name,
                n_classes=n_classes,
                class_names=tuple(class_names),
                feature_names=tuple(feature_names),
                text=text,
                criterion=criterion,
                measure=measure,
            )
        given = None
        if checkpoints is not None:
            given = dict(enumerate(take_trainings(setup, checkpoints)))
        self._seeds = load_seeds(MOST_SEEDS) if given is None else list(given)
        self._setup, self._in_memory = setup, InMemory(setup, given)

    def scores(
        self, methods: Methods = PAPER_METHODS, n_seeds: int | None = None
    ) -> dict[str, np.ndarray]:
        """Return the scores of all pairs by method, (T, C, n_train, n_test), float32.

        With `train_samples` rows are the training samples that are scored, in their order.

        Args:
            methods: Names of methods, or estimators with options of one's own, for example
                `InfluenceFunction(ConjugateGradient())` of `src.tda.influence`.
            n_seeds: Number of trainings T; None: ten, or all that were given.

        Raises:
            UserError: An argument is not allowed, a training or a solver diverges, or a method
                repeats a training that is not known.
        """
        wanted, seeds = self._wanted(methods), self._first_seeds(n_seeds, at_least=1)
        return self._scores(wanted, seeds).scores

    def accuracy(
        self,
        methods: Methods = PAPER_METHODS,
        n_seeds: int | None = None,
        *,
        n_subsets: int = SUBSET_KINDS[TRUTH].n_subsets,
        alpha: float = 0.05,
    ) -> pd.DataFrame:
        """Return reliability and accuracy, a row for each method.

        They are those of `run_accuracy.py`'s `accuracy_by_method.csv` (docs/reading.md).

        Args:
            methods: As for `scores`.
            n_seeds: As for `scores`, at least 2.
            n_subsets: Number of random halves of the training samples, the same for all seeds,
                that as many models of each seed are trained on.
            alpha: False discovery rate of the reliable pairs.

        Raises:
            UserError: As `scores`; or the study has checkpoints that were given, or not all
                training samples are scored.
        """
        from src.analysis.accuracy import Accuracy

        wanted, seeds = self._wanted(methods), self._first_seeds(n_seeds, at_least=2)
        n_subsets, alpha = self._subsets_wanted(n_subsets), _rate(alpha)
        scores, losses = self._scores(wanted, seeds), self._losses(n_subsets, seeds)
        return Accuracy.of(scores, losses).by_method(alpha)

    def report(
        self,
        folder: str | Path,
        methods: Methods = PAPER_METHODS,
        n_seeds: int | None = None,
        *,
        test: str = "ttest",
        alpha: float = 0.05,
        test_index: int | None = None,
        n_subsets: int | None = None,
    ) -> Path:
        """Write tables, figures and the page that shows them, and return the page's path.

        They are those of `run_pvalues.py` and `run_correlations.py` and, with `n_subsets`, of
        `run_accuracy.py`.

        Args:
            folder: Where they go: a new or an empty folder, or one with this study's report.
            methods: As for `scores`.
            n_seeds: As for `scores`, at least 2.
            test: "ttest", or "snr": the published code's formula.
            alpha: Significance level, and false discovery rate.
            test_index: Position of a test sample whose proponents and opponents are drawn.
            n_subsets: As for `accuracy`; None: no part on accuracy.

        Raises:
            UserError: As `scores` or `accuracy`; or the folder holds something else, or cannot be
                written.
        """
        from src.plots.notebook import own_style
        from src.reports.parts import check_output

        wanted, seeds = self._wanted(methods), self._first_seeds(n_seeds, at_least=2)
        n_test = len(self._setup.test)
        if test not in TESTS:
            raise UserError(f"test is {test!r}: choose from {', '.join(TESTS)}")
        alpha = _rate(alpha)
        if test_index is not None and test_index not in range(n_test):
            raise UserError(f"test_index is {test_index!r}, not a position from 0 to {n_test - 1}")
        if n_subsets is not None:
            n_subsets = self._subsets_wanted(n_subsets)
        folder = Path(folder)
        check_output(folder, self._setup.experiment.task.name)
        scores, accuracy = self._scores(wanted, seeds), None
        if n_subsets is not None:
            seconds = {m: self._in_memory.mean_seconds(e, seeds) for m, e in wanted.items()}
            accuracy = self._losses(n_subsets, seeds), seconds
        last = {seed: self._in_memory.checkpoints(seed)[-1] for seed in seeds}
        with own_style():
            from src.reports.study import write_study  # which draws

            return write_study(
                folder,
                self._setup,
                scores,
                last,
                accuracy,
                test=test,
                alpha=alpha,
                test_index=test_index,
            )

    def _wanted(self, methods: Methods) -> dict[str, Estimator]:
        """Return what computes each method that was asked for."""
        wanted = estimators_of(methods)
        for method, estimator in wanted.items():
            if self._in_memory.is_given and estimator.retrains:
                instead = "leave it out"
                if "protocol" in estimator.settings():
                    instead += ", ask for LeaveOneOut('continue') of src.tda.loo"
                raise UserError(
                    f"{method} repeats each training from its start, and how the given "
                    f"checkpoints were trained is not known: {instead}, or have the study train"
                )
        return wanted

    def _first_seeds(self, n_seeds: int | None, *, at_least: int) -> list[int]:
        most = len(self._seeds)
        if n_seeds is None:
            n_seeds = most if self._in_memory.is_given else N_SEEDS
        if type(n_seeds) is not int or not at_least <= n_seeds <= most:
            what = "trainings were given" if self._in_memory.is_given else "seeds there are"
            raise UserError(
                f"n_seeds is {n_seeds!r}, not a whole number from {at_least} to {most}: so many "
                + what
            )
        return self._seeds[:n_seeds]

    def _subsets_wanted(self, n_subsets: int) -> int:
        """Return the number of subsets that was asked for."""
        if type(n_subsets) is not int or n_subsets < 2:
            raise UserError(f"n_subsets is {n_subsets!r}, not a whole number of at least 2")
        if self._in_memory.is_given:
            raise UserError(
                "accuracy is measured by trainings on subsets, and how the given checkpoints were "
                "trained is not known: have the study train"
            )
        if len(self._setup.scored) < len(self._setup.train):
            raise UserError(
                "what a subset does is predicted by the scores of all its members, so score all, "
                "without train_samples"
            )
        return n_subsets

    def _scores(self, wanted: dict[str, Estimator], seeds: list[int]) -> ExperimentScores:
        """Return the scores, computed where they are not yet."""
        with without_drawing(self._device):
            contents = {
                method: {seed: self._in_memory.scores(estimator, seed)[method] for seed in seeds}
                for method, estimator in wanted.items()
            }
        stacked = {
            method: np.stack([content["scores"].numpy() for content in by_seed.values()])
            for method, by_seed in contents.items()
        }
        return gathered(self._setup.experiment, stacked, contents)

    def _losses(self, n_subsets: int, seeds: list[int]) -> SubsetLosses:
        """Return the losses of models trained on subsets, trained where they are not yet."""
        with without_drawing(self._device):
            return SubsetLosses.of(self._in_memory.truth(n_subsets, seeds))


def _rate(alpha: float) -> float:
    """Return a level that was asked for."""
    if not 0 < alpha < 1:
        raise UserError(f"alpha is {alpha!r}, not a number between 0 and 1")
    return alpha
