"""What computing an experiment would cost here, from short measurements of each stage.

Each stage is timed on a few training samples, a few steps and one checkpoint, by the functions that
do the whole of it, and multiplied up. Nothing is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from src.ensemble.draws import load_seeds
from src.ensemble.evaluation import evaluate
from src.ensemble.generators import without_drawing
from src.ensemble.members import PerSampleLoss, State, repeat
from src.ensemble.memory import steps_at_once, vectors_at_once
from src.ensemble.setup import Setup
from src.tda.ats import additional_step
from src.tda.gradient_similarity import gradient_similarity
from src.tda.influence import InfluenceFunction, influence

_STEPS = 6  # of training that are timed
_ROWS = {"cpu": 8}  # training samples that are scored for it; elsewhere
_MOST_ROWS = 64


def seconds_of_steps(setup: Setup) -> dict[str, float]:
    """Return how long one seed of an experiment takes, by "training" and step of PAPER_STEPS.

    Processes start beside that, which takes seconds; what an earlier run left is not counted.

    Args:
        setup: The experiment, with the samples that are scored.

    Raises:
        UserError: A training, or a solver, diverges.
    """
    [seed] = load_seeds(1)
    with without_drawing(setup.device):
        timed = _Timed(setup, setup.start(seed))
        return {
            "training": timed.training(),
            "loo": timed.leave_one_out(),
            "if": timed.influence(),
            "ats": timed.additional_step(),
            "gd_and_gc": timed.gradient_similarity(),
        }


class _Timed:
    """Times the stages of one experiment, from a state that a few steps of training have left."""

    def __init__(self, setup: Setup, start: State) -> None:
        self._setup = setup
        self._start = start
        e, self._n = setup.experiment, len(setup.scored)
        self._n_steps = e.epochs * -(-len(setup.train) // e.batch_size)
        self._n_checkpoints = len(e.kept_epochs)
        self._n_rows = min(self._n, _ROWS.get(setup.device.type, _MOST_ROWS))
        self._rows = setup.scored_samples.at(slice(self._n_rows))
        step, self._state = self._step(1)
        self._seconds_of_training = self._n_steps * step

    def training(self) -> float:
        """Return the seconds of one training."""
        return self._seconds_of_training

    def leave_one_out(self) -> float:
        """Return the seconds of a training without each sample, and of its evaluations."""
        setup = self._setup
        n_members = min(setup.procedure.members_at_once(self._start), self._n_rows)
        step, _ = self._step(n_members)
        members = repeat(self._state, n_members)
        evaluation = self._time(lambda: evaluate(setup.measure, members, setup.test))
        of_members = self._n_steps * step + self._n_checkpoints * evaluation
        return (self._n + 1) / n_members * of_members

    def additional_step(self) -> float:
        """Return the seconds of a step on each sample, and its evaluation, at all checkpoints."""
        setup = self._setup
        chunk_size = min(steps_at_once(setup.loss, self._state, setup.train), self._n_rows)

        def steps() -> None:
            for _ in additional_step(
                setup.loss,
                [self._state],
                self._rows,
                setup.test,
                optimizer=setup.optimizer,
                chunk_size=chunk_size,
                measure=setup.measure,
            ):
                pass

        return self._n / self._n_rows * self._n_checkpoints * self._time(steps)

    def influence(self) -> float:
        """Return the seconds of solving for each of the smaller side's gradients.

        What all share is told from what each adds by solving for half as many.
        """
        setup, solver = self._setup, InfluenceFunction().solver
        n_solved, few = min(self._n, len(setup.test)), min(self._n_rows, len(setup.test))

        def seconds(n: int) -> float:
            rows = self._rows.at(slice(n))
            return self._time(
                lambda: influence(
                    setup.loss,
                    self._state,
                    setup.train,
                    setup.test,
                    solver,
                    chunk_size=vectors_at_once(setup.loss, self._state, setup.train),
                    measure=setup.measure,
                    scored=rows,
                )
            )

        half = -(-few // 2)
        whole = seconds(few)
        each = max(0.0, (whole - seconds(half)) / (few - half)) if few > half else whole
        return self._n_checkpoints * (whole + (n_solved - few) * each)

    def gradient_similarity(self) -> float:
        """Return the seconds of all products of gradients, at all checkpoints."""
        setup = self._setup
        return self._n_checkpoints * self._time(
            lambda: gradient_similarity(
                setup.loss,
                self._state,
                setup.scored_samples,
                setup.test,
                chunk_size=vectors_at_once(setup.loss, self._state, setup.train),
                measure=setup.measure,
            )
        )

    def _step(self, n_members: int) -> tuple[float, State]:
        """Return the seconds of one step of so many members, and the first one after a few."""
        setup = self._setup
        batch = min(setup.experiment.batch_size, len(setup.train))
        positions = torch.arange(batch, device=setup.device)
        with _training(setup.loss):
            trainer = setup.procedure.trainer(repeat(self._start, n_members))
            trainer.step(positions)

            def steps() -> None:
                for _ in range(_STEPS):
                    trainer.step(positions)

            seconds = self._time(steps) / _STEPS
        return seconds, trainer.member(0)

    def _time(self, run: Callable[[], object]) -> float:
        """Return the seconds that something takes on the device."""
        self._wait()
        start = time.perf_counter()
        run()
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        device = self._setup.device
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elif device.type == "mps":
            torch.mps.synchronize()


@contextmanager
def _training(loss: PerSampleLoss) -> Iterator[None]:
    was_training = loss.model.training
    loss.model.train()
    try:
        yield
    finally:
        loss.model.train(was_training)
