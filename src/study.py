"""Attribution of a network of one's own in a notebook, by the code that the scripts run.

    study = Study(Network, (images, labels), (test_images, test_labels), epochs=20)
    scores = study.scores(["loo", "gd"], n_seeds=3)  # {"loo": (3, 5, n_train, n_test), "gd": ...}
    study.report("report", n_seeds=3)

All of it stays in memory; `report` alone writes, and only to the folder that it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from src.ensemble.draws import load_seeds
from src.ensemble.generators import without_drawing
from src.ensemble.given import States, number_of_each, take_trainings
from src.ensemble.members import State
from src.ensemble.own import Pair, own_setup
from src.ensemble.predictions import predictions
from src.errors import DivergedError, UserError
from src.experiments import MOST_SEEDS, N_SEEDS, PAPER_METHODS
from src.progress import progress
from src.steps import choose_device
from src.tda.estimator import Draws, Estimator, compute
from src.tda.estimators import estimators_of
from src.tda.pieces import Pieces
from src.tda.scoring import score_content, score_settings

TESTS = ("ttest", "snr")

Methods = Sequence[str | Estimator]


class Study:
    """Attribution scores of a network on data of one's own, over several trainings.

    What was computed is kept and not computed again: trainings for every method, scores for more
    seeds or a report. A computation that was interrupted goes on from where it was.

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
        self._is_given = checkpoints is not None
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
            self._setup = own_setup(
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
        self._seeds = load_seeds(MOST_SEEDS)
        self._trained: dict[int, list[State]] = {}
        if checkpoints is not None:
            self._trained = dict(enumerate(take_trainings(self._setup, checkpoints)))
            self._seeds = list(self._trained)
        self._pieces: dict[tuple[Estimator, int], Pieces] = {}
        self._contents: dict[tuple[Estimator, int], dict[str, dict]] = {}

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
        return _stacked(self._computed(wanted, seeds))

    def report(
        self,
        folder: str | Path,
        methods: Methods = PAPER_METHODS,
        n_seeds: int | None = None,
        *,
        test: str = "ttest",
        alpha: float = 0.05,
        test_index: int | None = None,
    ) -> Path:
        """Write tables, figures and the page that shows them, and return the page's path.

        They are those of `run_pvalues.py` and `run_correlations.py`.

        Args:
            folder: Where they go: a new or an empty folder, or one with this study's report.
            methods: As for `scores`.
            n_seeds: As for `scores`, at least 2.
            test: "ttest", or "snr": the published code's formula.
            alpha: Significance level, and false discovery rate.
            test_index: Position of a test sample whose proponents and opponents are drawn.

        Raises:
            UserError: As `scores`; or the folder holds something else, or cannot be written.
        """
        from src.plots.notebook import own_style

        wanted, seeds = self._wanted(methods), self._first_seeds(n_seeds, at_least=2)
        n_test = len(self._setup.test)
        if test not in TESTS:
            raise UserError(f"test is {test!r}: choose from {', '.join(TESTS)}")
        if not 0 < alpha < 1:
            raise UserError(f"alpha is {alpha!r}, not a number between 0 and 1")
        if test_index is not None and test_index not in range(n_test):
            raise UserError(f"test_index is {test_index!r}, not a position from 0 to {n_test - 1}")
        with own_style():
            return self._write(Path(folder), wanted, seeds, test, alpha, test_index)

    def _write(
        self,
        folder: Path,
        wanted: dict[str, Estimator],
        seeds: list[int],
        test: str,
        alpha: float,
        test_index: int | None,
    ) -> Path:
        from src.analysis.fit import Fit, quantities
        from src.reports.experiment import write_agreement, write_reliability
        from src.reports.overview import Page
        from src.reports.parts import check_output
        from src.reports.scores import gathered

        setup = self._setup
        title = setup.experiment.task.name
        check_output(folder, title)
        contents = self._computed(wanted, seeds)
        scores = gathered(setup.experiment, _stacked(contents), contents)
        last = {seed: self._checkpoints(seed)[-1] for seed in seeds}
        fit = Fit.known(
            {seed: setup.fit(params) for seed, params in last.items()},
            quantities(setup.experiment.task),
        )
        page = replace(Page.of_experiment(folder, scores, fit), title=title)
        shown = {
            split: {
                "inputs": samples.images.cpu(),
                "labels": samples.labels.cpu(),
                "indices": samples.indices,
            }
            for split, samples in (("train", setup.scored_samples), ("test", setup.test))
        }
        write_reliability(
            page,
            scores,
            shown,
            lambda train, test: predictions(setup, [*last.values()], train, test),
            test=test,
            alpha=alpha,
            test_index=test_index,
        )
        return write_agreement(page, scores, alpha)[1]

    def _wanted(self, methods: Methods) -> dict[str, Estimator]:
        """Return what computes each method that was asked for."""
        wanted = estimators_of(methods)
        for method, estimator in wanted.items():
            if self._is_given and estimator.retrains:
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
            n_seeds = most if self._is_given else N_SEEDS
        if type(n_seeds) is not int or not at_least <= n_seeds <= most:
            what = "trainings were given" if self._is_given else "seeds there are"
            raise UserError(
                f"n_seeds is {n_seeds!r}, not a whole number from {at_least} to {most}: so many "
                + what
            )
        return self._seeds[:n_seeds]

    def _computed(
        self, wanted: dict[str, Estimator], seeds: list[int]
    ) -> dict[str, dict[int, dict]]:
        """Return what score files would hold, by method and seed, computed where it is not yet."""
        with without_drawing(self._device):
            return {
                method: {seed: self._of_seed(estimator, seed)[method] for seed in seeds}
                for method, estimator in wanted.items()
            }

    def _of_seed(self, estimator: Estimator, seed: int) -> dict[str, dict]:
        key = estimator, seed
        if key not in self._contents:
            checkpoints = self._checkpoints(seed)
            pieces = self._pieces.setdefault(key, Pieces())
            try:
                results = compute(estimator, Draws(self._setup, seed, checkpoints, pieces))
            except DivergedError:
                del self._pieces[key]
                raise
            settings = score_settings(self._setup, estimator, checkpoints, given=self._is_given)
            self._contents[key] = {
                method: score_content(self._setup, method, seed, result, settings)
                for method, result in results.items()
            }
            del self._pieces[key]
        return self._contents[key]

    def _checkpoints(self, seed: int) -> list[State]:
        if seed not in self._trained:
            experiment, kept = self._setup.experiment, []
            with progress(f"training seed {seed}", "epochs", experiment.epochs) as advance:
                for state in self._setup.training(seed):
                    if state.epoch in experiment.kept_epochs:
                        kept.append(state.params)
                    advance(1)
            self._trained[seed] = kept
        return self._trained[seed]


def _stacked(contents: dict[str, dict[int, dict]]) -> dict[str, np.ndarray]:
    """Return the scores (T, C, n_train, n_test) of each method."""
    return {
        method: np.stack([content["scores"].numpy() for content in by_seed.values()])
        for method, by_seed in contents.items()
    }
