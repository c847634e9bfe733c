"""Attribution of a network of one's own in a notebook, by the code that the scripts run.

    study = Study(Network, (images, labels), (test_images, test_labels), epochs=20)
    scores = study.scores(["loo", "gd"], n_seeds=3)  # {"loo": (3, 5, n_train, n_test), "gd": ...}
    study.report("report", n_seeds=3)

All of it stays in memory; `report` alone writes, and only to the folder that it is given.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from src.data.loaded import checked
from src.data.samples import Samples, network_inputs
from src.ensemble.draws import load_seeds, without_drawing
from src.ensemble.given import take_states
from src.ensemble.members import State
from src.ensemble.predictions import predictions
from src.ensemble.setup import Setup
from src.errors import DivergedError, UserError
from src.experiments import METHODS, Experiment, Model, Task
from src.models import build
from src.progress import progress
from src.steps import choose_device
from src.tda.estimator import Draws, Estimator, compute
from src.tda.estimators import estimator_of
from src.tda.pieces import Pieces
from src.tda.scoring import score_content, score_settings

TESTS = ("ttest", "snr")

Pair = tuple[Any, Any]
States = Sequence[Sequence[Mapping[str, Tensor]]]
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
        device: str | None = None,
        checkpoints: States | None = None,
        **hyperparameters: Any,
    ) -> None:
        self._is_given = checkpoints is not None
        if checkpoints is not None:
            n_each = _number_of_each(checkpoints)
            hyperparameters = {"epochs": n_each, "n_checkpoints": n_each, **hyperparameters}
        data = checked({"train": train, "test": test}, "Study")
        task = _task_of(
            data,
            name,
            load=lambda: data,
            n_classes=n_classes,
            class_names=tuple(class_names),
            feature_names=tuple(feature_names),
            text=text,
            criterion=criterion,
            measure=measure,
        )
        makes = _taking_a_task(factory)
        self._device = choose_device(device)
        with without_drawing(self._device):
            experiment = _experiment_of(makes, task, hyperparameters)
            splits = (
                Samples(
                    network_inputs(inputs, task),
                    torch.from_numpy(targets),
                    torch.arange(len(targets)),
                )
                for inputs, targets in (data["train"], data["test"])
            )
            self._setup = Setup.of(experiment, *splits, self._device)
        self._seeds = load_seeds()
        self._trained: dict[int, list[State]] = {}
        if checkpoints is not None:
            self._seeds = list(range(len(checkpoints)))
            for seed, of_training in enumerate(checkpoints):
                called = [
                    (f"checkpoint {c} of training {seed}", s) for c, s in enumerate(of_training)
                ]
                self._trained[seed] = take_states(self._setup, called)
        self._pieces: dict[tuple[Estimator, int], Pieces] = {}
        self._contents: dict[tuple[Estimator, int], dict[str, dict]] = {}

    def scores(
        self, methods: Methods = METHODS, n_seeds: int | None = None
    ) -> dict[str, np.ndarray]:
        """Return the scores of all pairs by method, (T, C, n_train, n_test), float32.

        Args:
            methods: Names of methods, or estimators with options of one's own, for example
                `InfluenceFunction(ConjugateGradient())` of `src.tda.influence`.
            n_seeds: Number of trainings T; None: ten, or all that were given.

        Raises:
            UserError: An argument is not allowed, a training or a solver diverges, or a method
                repeats a training that is not known.
        """
        wanted, seeds = self._wanted(methods), self._first_seeds(n_seeds, at_least=1)
        contents = self._computed(wanted, seeds)
        return {
            method: np.stack([content["scores"].numpy() for content in by_seed.values()])
            for method, by_seed in contents.items()
        }

    def report(
        self,
        folder: str | Path,
        methods: Methods = METHODS,
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
        scores = gathered(setup.experiment, self._computed(wanted, seeds))
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
            for split, samples in (("train", setup.train), ("test", setup.test))
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
        wanted: dict[str, Estimator] = {}
        for given in [methods] if isinstance(methods, str) else methods:
            estimator = estimator_of(given) if isinstance(given, str) else given
            if isinstance(estimator, type) or not hasattr(estimator, "methods"):
                raise UserError(
                    f"{given!r} is neither a method ({', '.join(METHODS)}) nor an estimator with "
                    "its options, such as GradientSimilarity()"
                )
            for method in (given,) if isinstance(given, str) else estimator.methods:
                if wanted.setdefault(method, estimator) != estimator:
                    raise UserError(f"{method} is asked for twice, with different options")
            if self._is_given and estimator.retrains:
                raise UserError(
                    f"{estimator.methods[0]} repeats each training without a sample, and how the "
                    "given checkpoints were trained is not known: leave it out, ask for "
                    "LeaveOneOut('continue') of src.tda.loo, or have the study train"
                )
        if not wanted:
            raise UserError(f"no method is asked for: choose from {', '.join(METHODS)}")
        return wanted

    def _first_seeds(self, n_seeds: int | None, *, at_least: int) -> list[int]:
        most = len(self._seeds)
        n_seeds = most if n_seeds is None else n_seeds
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
            by_seed = [
                {e: self._of_seed(e, seed) for e in dict.fromkeys(wanted.values())}
                for seed in seeds
            ]
        return {
            method: {
                seed: of_estimators[estimator][method]
                for seed, of_estimators in zip(seeds, by_seed, strict=True)
            }
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


def _number_of_each(checkpoints: States) -> int:
    """Return how many checkpoints there are of each training."""
    numbers = [len(of_training) for of_training in checkpoints]
    if not numbers or min(numbers) < 1:
        raise UserError("checkpoints are none: give a list of state dicts of each training")
    if min(numbers) != max(numbers):
        raise UserError(f"checkpoints are {numbers} of the trainings, not as many of each")
    return numbers[0]


def _task_of(data: Mapping[str, tuple[Tensor, np.ndarray]], name: str, **given: Any) -> Task:
    """Return a task that says what the data are like.

    Raises:
        UserError: There are no samples, or more classes than were said.
    """
    (inputs, targets), (_, test_targets) = data["train"], data["test"]
    if not (len(targets) and len(test_targets)):
        raise UserError("train and test must hold a sample each, at least")
    shape = tuple(inputs.shape[1:])
    if targets.dtype.kind == "f":
        return Task(
            name, (len(targets),), 1, input_shape=shape, target_shape=targets.shape[1:], **given
        )
    classes, counts = np.unique(targets, return_counts=True)
    largest = int(max(targets.max(), test_targets.max()))
    n_classes = given.pop("n_classes") or len(given["class_names"]) or largest + 1
    if largest >= n_classes:
        raise UserError(
            f"a sample is of class {largest}, and n_classes is {n_classes}: classes are 0 to "
            f"{n_classes - 1}"
        )
    # Of as many samples as all classes have; the experiment's number of samples tells whether it is
    # that of all.
    return Task(
        name,
        (int(counts.min()),),
        1,
        classes=tuple(classes.tolist()),
        n_classes=n_classes,
        input_shape=shape,
        **given,
    )


def _taking_a_task(factory: Callable[..., nn.Module]) -> Callable[[Task], nn.Module]:
    """Return a factory that takes a task, and passes it on only where it is asked for."""
    if isinstance(factory, nn.Module) or not callable(factory):
        raise UserError(
            f"factory is {type(factory).__name__}, not a function that makes a new network: give "
            "the network's class, or lambda: Network(...)"
        )
    try:
        parameters = inspect.signature(factory).parameters.values()
    except ValueError:  # of some that are written in C
        return lambda task: factory()
    takes_task = any(
        p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        for p in parameters
    )
    return factory if takes_task else lambda task: factory()


def _experiment_of(
    makes: Callable[[Task], nn.Module], task: Task, hyperparameters: dict[str, Any]
) -> Experiment:
    """Return the experiment of a factory, whose model is called after the network's class."""
    model = Model("network", makes, hyperparameters)
    experiment = Experiment(model, task, *task.n_per_class)
    network = build(experiment)
    if build(experiment) is network:
        raise UserError(
            "factory returns the same network each time, so that no seed would start anew: have it "
            "make one, lambda: Network(...)"
        )
    kind = re.sub(r"[^A-Za-z0-9]+", "-", type(network).__name__).strip("-")
    return replace(experiment, model=replace(model, name=kind))
