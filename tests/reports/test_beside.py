"""Work in a process beside this one: its result, its errors, and its end."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from src.errors import UserError
from src.reports.beside import beside

context = multiprocessing.get_context("fork")


def test_result_comes_from_another_process():
    here, begun = [0], context.Event()

    def work() -> tuple[int, list[int]]:
        begun.set()
        here[0] += 1
        return os.getpid(), here

    with beside(work) as results:
        assert begun.wait(30)
        ((pid, counted),) = results()
    assert pid != os.getpid()
    assert (counted, here) == ([1], [0])


def test_who_waits_does_what_is_not_begun():
    """Each work once, and results stand in the order of the works, also ones that fill a pipe."""
    begun, taken = context.Event(), context.Event()

    def first() -> tuple[int, bytes]:
        begun.set()
        assert taken.wait(30)
        return os.getpid(), bytes(10**6)

    def second() -> tuple[int, bytes]:
        taken.set()
        return os.getpid(), b""

    with beside(first, second) as results:
        assert begun.wait(30)
        (one, large), (other, small) = results()
    assert one != os.getpid() == other
    assert (len(large), len(small)) == (10**6, 0)


def test_many_works_are_done_once():
    works = [lambda k=k: (time.sleep(0.01), k)[1] for k in range(20)]
    with beside(*works) as results:
        time.sleep(0.05)
        assert results() == [*range(20)]


def test_ctrl_c_is_left_to_who_waits():
    begun = context.Event()

    def work() -> str:
        begun.set()
        os.kill(os.getpid(), signal.SIGINT)  # which a terminal sends to all
        return "done"

    with beside(work) as results:
        assert begun.wait(30)
        assert results() == ["done"]


def test_error_is_raised_where_it_is_waited_for():
    begun = context.Event()

    def work() -> None:
        begun.set()
        raise UserError("cannot write a file")

    with pytest.raises(UserError, match="^cannot write a file$"), beside(work) as results:
        assert begun.wait(30)
        results()


def test_a_process_that_is_killed():
    begun = context.Event()

    def work() -> None:
        begun.set()
        os._exit(7)

    with pytest.raises(RuntimeError, match="exit code 7"), beside(work) as results:
        assert begun.wait(30)
        results()


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
