"""Work in a process beside this one: its result, its errors, and its end."""

import os
import signal
import time
from pathlib import Path

import pytest

from src.errors import UserError
from src.reports.beside import beside


def test_result_comes_from_another_process():
    here = [0]

    def work() -> tuple[int, list[int]]:
        here[0] += 1
        return os.getpid(), here

    with beside(work) as result:
        pid, counted = result()
    assert pid != os.getpid()
    assert (counted, here) == ([1], [0])


def test_ctrl_c_is_left_to_who_waits():
    def work() -> str:
        os.kill(os.getpid(), signal.SIGINT)  # which a terminal sends to all
        return "done"

    with beside(work) as result:
        assert result() == "done"


def test_error_is_raised_where_it_is_waited_for():
    def work() -> None:
        raise UserError("cannot write a file")

    with pytest.raises(UserError, match="^cannot write a file$"), beside(work) as result:
        result()


def test_a_process_that_is_killed():
    with pytest.raises(RuntimeError, match="exit code 7"), beside(lambda: os._exit(7)) as result:
        result()


def test_work_that_is_not_waited_for_ends_with_the_block(tmp_path: Path):
    there = tmp_path / "file"

    def work() -> None:
        time.sleep(60)
        there.touch()

    since = time.monotonic()
    with pytest.raises(UserError, match="of the block"), beside(work):
        raise UserError("of the block")
    assert time.monotonic() - since < 30
    assert not there.exists()


def test_a_signal_to_end_that_is_lost_is_sent_again(tmp_path: Path):
    """As one is that comes while a fork calls Python back, where errors are printed and no more."""
    ready = tmp_path / "ready"

    def lose_one(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def work() -> None:
        signal.signal(signal.SIGTERM, lose_one)
        ready.touch()
        time.sleep(60)

    since = time.monotonic()
    with beside(work):
        while not ready.exists():
            time.sleep(0.01)
    assert time.monotonic() - since < 30
