"""How far a computation is: lines in a pipe, by a clock that the tests set."""

from __future__ import annotations

import io
import runpy
import sys
import time

import pytest

from src import progress as module
from src.progress import Lines, note, progress


class Clock:
    """A clock that stands still but while somebody waits; also the event that is waited for.

    Args:
        done_by: How many more are done by each minute; with the last one the computation ends.
    """

    def __init__(self, done_by: list[int]) -> None:
        self.now, self.done_by = 1000.0, iter(done_by)
        self.lines: Lines | None = None

    def monotonic(self) -> float:
        return self.now

    def wait(self, timeout: float) -> bool:
        assert timeout == 60
        for n in self.done_by:
            self.now += timeout
            self.lines.advance(n)
            return False
        return True


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    """Returns the lines that are said, minute by minute, while so many are done by each minute."""

    def tell(done_by: list[int], total: int, done: int = 0) -> list[str]:
        clock = Clock(done_by)
        monkeypatch.setattr(time, "monotonic", clock.monotonic)
        # As it is outside of tests.
        monkeypatch.setattr(module, "TOLD_EVERY", runpy.run_path(module.__file__)["TOLD_EVERY"])
        clock.lines = Lines("loo seed 446", "members", total, done)
        clock.lines.tell_until(clock)
        return capsys.readouterr().err.splitlines()

    return tell


def test_a_line_a_minute(told):
    assert told([40, 40, 40], 151) == [
        "loo seed 446: 40 of 151 members, 1 min, about 3 min left",
        "loo seed 446: 80 of 151 members, 2 min, about 2 min left",
        "loo seed 446: 120 of 151 members, 3 min, less than 1 min left",
    ]


def test_what_was_done_before_says_nothing_of_the_pace(told):
    assert told([0, 1], 100, done=90) == [
        "loo seed 446: 90 of 100 members, 1 min",
        "loo seed 446: 91 of 100 members, 2 min, about 18 min left",
    ]


def test_nothing_is_left_when_all_is_done(told):
    assert told([5], 5) == ["loo seed 446: 5 of 5 members, 1 min"]


def test_hours(told):
    lines = told([1] * 61, 183)
    assert lines[60] == "loo seed 446: 61 of 183 members, 1 h 1 min, about 2 h 2 min left"


def test_what_is_done_of_one_that_takes_hours(monkeypatch, capsys):
    lines = Lines("loo seed 446", "members", 4)
    lines.note("2 in training, epoch 3 of 15")
    assert lines.line() == "loo seed 446: 0 of 4 members, 2 in training, epoch 3 of 15, 0 min"
    lines.advance(2)
    assert "in training" not in lines.line()

    monkeypatch.setattr(module, "TOLD_EVERY", 0.01)
    note("of nothing")
    err = ""
    with progress("loo seed 446", "members", 4), progress("inner", "steps", 9):
        note("step 3")
        while "step 3" not in err:
            time.sleep(0.01)
            err += capsys.readouterr().err
    assert "inner: 0 of 9 steps, step 3, 0 min" in err
    assert "of nothing" not in err
    assert "members, step 3" not in err


def test_less_than_a_minute_is_silent(capsys: pytest.CaptureFixture):
    with progress("loo seed 446", "members", 3) as advance:
        advance(3)
    assert capsys.readouterr().err == ""


def test_lines_come_while_one_piece_is_computed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    """What is counted may take longer than a minute each; with the block the lines end."""
    monkeypatch.setattr(module, "TOLD_EVERY", 0.01)
    err = ""
    with progress("if seed 446", "checkpoints", 5, done=2):
        while err.count("\n") < 3:
            time.sleep(0.01)
            err += capsys.readouterr().err
    assert err.splitlines()[:2] == [
        "if seed 446: going on from 2 of 5 checkpoints",
        "if seed 446: 2 of 5 checkpoints, 0 min",
    ]
    capsys.readouterr()
    time.sleep(0.05)
    assert capsys.readouterr().err == ""


def test_a_bar_in_a_terminal(monkeypatch: pytest.MonkeyPatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(module, "TOLD_EVERY", 0.001)
    monkeypatch.setattr(module, "SHOWN_EVERY", 0.1)
    with progress("loo seed 446", "members", 4) as advance:
        note("too soon")
        time.sleep(0.11)  # tqdm draws ten times a second at most
        note("epoch 3 of 15")
        advance(2)
    assert "too soon" not in terminal.getvalue()
    assert "epoch 3 of 15" in terminal.getvalue()
    assert "loo seed 446:  50%" in terminal.getvalue()
    assert "2/4" in terminal.getvalue()
    assert "\n" not in terminal.getvalue()


def test_a_bar_in_a_notebook(monkeypatch: pytest.MonkeyPatch):
    """Whose standard error says that it is no terminal."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setitem(sys.modules, "ipykernel", None)
    with progress("loo seed 446", "members", 151) as advance:
        time.sleep(0.11)
        advance(40)
    assert "40/151" in stream.getvalue()
