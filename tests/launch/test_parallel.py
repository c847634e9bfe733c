"""Locks, and which jobs the launcher runs in what order."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from src.argument_types import seed_ids, seed_ids_text
from src.ensemble.draws import load_seeds
from src.errors import UserError
from src.experiments import PAPER_STEPS, Paths, parse_experiment
from src.launch.jobs import plan
from src.launch.parallel import all_gpus, make_slots
from src.steps import seeds
from src.storage import locks
from src.storage.locks import HeldError, Holder, holder, lock, wait_for_lock
from tests.conftest import DIGITS
from tests.tools import Result, call, call_well

EXPERIMENT = parse_experiment(DIGITS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a lock is made."""
    return tmp_path / "folder" / ".446.lock"


def put(path: Path, owner: Holder, age: float = 0) -> Holder:
    """Make a lock as `owner` would have made it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(owner)))
    os.utime(path, (time.time() - age,) * 2)
    return owner


def ended() -> Holder:
    """Return a holder whose process has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return replace(Holder.this(), pid=process.pid, started="1")


def forbid(path: Path, *_: object, **__: object) -> None:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def hide_processes(monkeypatch: pytest.MonkeyPatch, signalled: type[OSError]) -> None:
    """Show no other process in /proc; a signal to one raises an error."""

    def kill(pid: int, number: int) -> None:
        raise signalled

    opened = io.open

    def open_(path: object, *args: object, **options: object) -> io.IOBase:
        if re.fullmatch(r"/proc/\d+/stat", str(path)) and f"/{os.getpid()}/" not in str(path):
            raise FileNotFoundError(str(path))
        return opened(path, *args, **options)

    monkeypatch.setattr(io, "open", open_)  # which Path opens with
    monkeypatch.setattr(os, "kill", kill)


class TestLock:
    def test_the_second_sees_who_is_first(self, path: Path):
        with lock(path):
            assert holder(path).pid == os.getpid()
            with (
                pytest.raises(HeldError, match=f"{socket.gethostname()}:{os.getpid()}"),
                lock(path),
            ):
                pass
        assert holder(path) is None
        assert list(path.parent.iterdir()) == []

    def test_an_error_releases_it(self, path: Path):
        with pytest.raises(ZeroDivisionError), lock(path):
            raise ZeroDivisionError
        assert not path.exists()

    def test_a_process_that_ended(self, path: Path):
        put(path, ended())
        assert holder(path) is None
        with lock(path):
            assert holder(path).pid == os.getpid()

    def test_a_process_id_that_was_used_again(self, path: Path):
        put(path, replace(Holder.this(), started="1"))
        with lock(path):
            pass

    def test_another_process_of_this_machine(self, path: Path):
        """However old its lock is: that it lives can be seen."""
        process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        pid = process.pid
        put(path, replace(Holder.this(), pid=pid, started=locks._started(pid)), age=1e6)
        with pytest.raises(HeldError), lock(path):
            pass
        process.kill()
        process.communicate()
        with lock(path):
            pass

    @pytest.mark.parametrize("other", [{"host": "elsewhere"}, {"machine": "before the reboot"}])
    def test_another_machine(self, path: Path, other: dict):
        elsewhere = put(path, replace(ended(), **other), age=locks.STALE_AFTER - 20)
        with pytest.raises(HeldError, match=str(elsewhere)), lock(path):
            pass
        put(path, elsewhere, age=locks.STALE_AFTER + 20)
        with lock(path):
            pass

    def test_a_process_that_is_hidden(self, path: Path, monkeypatch: pytest.MonkeyPatch):
        """As another person's are where /proc is mounted with hidepid: its lock's age decides."""
        hide_processes(monkeypatch, PermissionError)
        hidden = put(path, replace(Holder.this(), pid=os.getppid()))
        assert holder(path) == hidden
        with pytest.raises(HeldError, match=str(hidden)), lock(path):
            pass
        put(path, hidden, age=locks.STALE_AFTER + 20)
        with lock(path):
            pass

    def test_a_process_that_ended_where_others_are_hidden(self, path: Path, monkeypatch):
        hide_processes(monkeypatch, ProcessLookupError)
        put(path, replace(Holder.this(), pid=os.getppid()))
        with lock(path):
            pass

    def test_a_lock_that_cannot_be_read(self, path: Path, monkeypatch: pytest.MonkeyPatch):
        put(path, Holder.this())
        monkeypatch.setattr(Path, "read_text", forbid)
        says = f"{path.owner()} .whose lock {path} cannot be read"
        assert re.search(says, str(holder(path)))
        with pytest.raises(HeldError, match=says), lock(path):
            pass
        os.utime(path, (time.time() - locks.STALE_AFTER - 20,) * 2)
        assert holder(path) is None
        locks._break(path, locks._read(path))
        assert not path.exists()

    def test_everybody_may_see_who_holds_it(self, path: Path):
        before = os.umask(0o077)
        try:
            with lock(path):
                assert path.stat().st_mode & 0o777 == 0o644
        finally:
            os.umask(before)

    def test_it_is_renewed(self, path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(locks, "RENEWED_EVERY", 0.02)
        with lock(path):
            os.utime(path, (0, 0))
            deadline = time.monotonic() + 10
            while path.stat().st_mtime == 0:
                assert time.monotonic() < deadline
                time.sleep(0.02)

    @pytest.mark.parametrize("text", ["", '{"host"', "{}"])
    def test_a_crash_before_its_content_was_written(self, path: Path, text: str):
        path.parent.mkdir()
        path.write_text(text)
        os.utime(path, (time.time() - locks.EMPTY_FOR - 5,) * 2)
        with lock(path):
            pass

    def test_what_another_made_is_left(self, path: Path):
        with lock(path):
            other = put(path, replace(Holder.this(), token="other"))
        assert holder(path) == other

    def test_a_crash_while_a_stale_lock_was_broken(self, path: Path):
        stale = put(path, ended())
        put(path.with_name(f"{path.name}.{stale.token}"), replace(ended(), token="breaker"))
        with lock(path):
            pass
        assert list(path.parent.iterdir()) == []

    def test_a_late_breaker_spares_the_fresh_lock(self, path: Path):
        """Two see a stale lock; one breaks it and locks before the other does anything."""
        stale = put(path, ended())
        with lock(path):
            locks._break(path, stale)
            assert holder(path).pid == os.getpid()

    def test_who_breaks_a_stale_lock_breaks_it_alone(self, path: Path):
        stale = put(path, ended())
        breaker = put(path.with_name(f"{path.name}.{stale.token}"), Holder.this())
        locks._break(path, stale)
        assert path.exists()
        assert holder(path.with_name(f"{path.name}.{stale.token}")) == breaker

    @pytest.mark.parametrize("_repetition", range(20))
    def test_one_of_many_gets_a_stale_one(self, path: Path, _repetition: int):
        put(path, ended_once())
        start, counting = threading.Barrier(8), threading.Lock()
        inside, most, n_got = 0, 0, 0

        def attempt() -> None:
            nonlocal inside, most, n_got
            start.wait()
            try:
                with lock(path):
                    with counting:
                        inside, n_got = inside + 1, n_got + 1
                        most = max(most, inside)
                    time.sleep(0.005)
                    with counting:
                        inside -= 1
            except HeldError:
                pass

        threads = [threading.Thread(target=attempt) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most == 1
        assert n_got >= 1
        assert list(path.parent.iterdir()) == []

    def test_waiting(self, path: Path, monkeypatch, capsys):
        monkeypatch.setattr(locks, "WAITED_SILENTLY", 0)
        release = threading.Event()

        def hold() -> None:
            with lock(path):
                release.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        while holder(path) is None:
            time.sleep(0.01)
        threading.Timer(0.2, release.set).start()
        with wait_for_lock(path):
            assert release.is_set()
        thread.join()
        assert capsys.readouterr().err.startswith(f"waiting for {socket.gethostname()}:")

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path):
        (tmp_path / "file").touch()
        with pytest.raises(UserError, match="cannot write"), lock(tmp_path / "file" / ".446.lock"):
            pass


_ENDED: list[Holder] = []


def ended_once() -> Holder:
    """Return the holder of another lock of a process that has ended."""
    if not _ENDED:
        _ENDED.append(ended())
    return replace(_ENDED[0], token=Holder.this().token)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with the samples of digits3."""
    call_well("run_subset_generation", "--root", tmp_path, "--task", "digits3")
    return tmp_path


class TestTwoOnOneJob:
    """A script leaves a job to the process that is at it, says so and goes on with other seeds."""

    def test_training(self, root: Path):
        with lock(Paths(root).training_lock(EXPERIMENT, 446)):
            arguments = ("--root", root, "--experiment", DIGITS, "--seed_id", "0-2")
            result = call("run_cnn_training", *arguments)
        assert result.code == 3
        assert result.err.splitlines() == [
            f"{root}/models/{DIGITS}/446: {Holder.this()} is at work on it"
        ]
        assert len(result.out.splitlines()) == 2

    def test_scores(self, digits_root: Path, copy_of: Callable[[Path], Path]):
        root = copy_of(digits_root)
        with lock(Paths(root).scores_lock(EXPERIMENT, "gd", 724)):
            arguments = ("--root", root, "--experiment", DIGITS, "--seed_id")
            first, second = (call("run_gd_and_gc", *arguments, k) for k in (0, 1))
        assert (first.code, first.err) == (0, "")
        assert (second.code, second.out) == (3, "")
        assert "is at work on it" in second.err

    def test_scores_of_a_seed_that_is_being_trained(self, digits_root, copy_of):
        root = copy_of(digits_root)
        with lock(Paths(root).training_lock(EXPERIMENT, 724)):
            result = call("run_gd_and_gc", "--root", root, "--experiment", DIGITS, "--seed_id", 1)
        assert result.code == 3
        assert "is at work on it" in result.err


class TestPlan:
    def test_every_job_stands_behind_its_training(self, root: Path):
        experiments = [parse_experiment(n) for n in (DIGITS, "cnn3_digits3_20pc")]
        jobs = plan(experiments, list(PAPER_STEPS), [(0, 446), (5, 968)], root, [])
        assert len(jobs) == 2 * 2 * 5
        for i, job in enumerate(jobs):
            assert (job.step == "training") == (job.after is None)
            assert job.after is None or job.after in jobs[:i]
            assert str(job.seed_id) in job.arguments

    def test_what_is_run_makes_what_is_waited_for(self, digits_root: Path):
        for job in plan([EXPERIMENT], list(PAPER_STEPS), [(0, 446)], digits_root, []):
            assert job.is_done(), job

    def test_methods_bring_the_subsets_that_they_need(self, tmp_path: Path):
        methods = ["shapley", "gd_and_gc", "datamodel", "downsampling"]
        jobs = plan([EXPERIMENT], methods, [(0, 446), (1, 724)], tmp_path, [], 7)
        after = {job.step: job.after.step for job in jobs if job.after is not None}
        assert after == {
            "subsets_half": "training",
            "subsets_permutations": "training",
            "gd_and_gc": "training",
            "downsampling": "subsets_half",
            "datamodel": "subsets_half",
            "shapley": "subsets_permutations",
        }
        for i, job in enumerate(jobs):
            assert set(job.needs) <= set(jobs[:i])
            assert {needed.seed_id for needed in job.needs} <= {job.seed_id}
            is_of_subsets = job.arguments[0] == "run_subsets.py"
            assert is_of_subsets == job.step.startswith("subsets_")
            if is_of_subsets:  # which are of all training samples
                assert job.arguments[1:3] == ("--kind", job.step.removeprefix("subsets_"))
                assert "--train_samples" not in job.arguments
        methods, seed = ["subsets", "downsampling"], [(0, 446)]
        numbers = {
            job.step: job.arguments[-2:] == ("--n_subsets", "40")
            for job in plan([EXPERIMENT], methods, seed, tmp_path, [], n_subsets=40)
        }
        # The number is that of what accuracy is measured by alone.
        assert numbers == {
            "training": False,
            "subsets_half": False,
            "subsets_truth": True,
            "downsampling": False,
        }

    def test_who_is_at_work_on_what_is_needed(self, tmp_path: Path):
        training, subsets, scores = plan([EXPERIMENT], ["banzhaf"], [(0, 446)], tmp_path, [])
        assert scores.needs == (subsets, training)
        for needed in scores.needs:
            assert scores.holder() is None
            with lock(needed.lock):
                assert scores.holder().pid == os.getpid()

    def test_seeds_beyond_the_ten(self, tmp_path: Path):
        numbered = seeds([9, 37])
        jobs = plan([EXPERIMENT], ["gd_and_gc"], numbered, tmp_path, [])
        assert [job.seed_id for job in jobs] == [9, 37, 9, 37]
        for job, seed in zip(jobs, 2 * [470, load_seeds(38)[37]], strict=True):
            assert job.arguments[3:5] == ("--seed_id", str(job.seed_id))
            assert job.log.stem == str(seed)
            assert all(str(seed) in str(path.relative_to(tmp_path)) for path in job.outputs)

    def test_options_of_a_vit_go_to_its_training_alone(self, root: Path):
        jobs = plan(
            [parse_experiment("vit_digits3_10pc")], ["ats"], [(0, 446)], root, ["--random_crop"]
        )
        assert [job.arguments[0] for job in jobs] == ["run_vit_finetuning.py", "run_ats.py"]
        assert ["--random_crop" in job.arguments for job in jobs] == [True, False]

    @pytest.mark.parametrize(
        ("text", "numbers"),
        [("3", [3]), ("0-9", [*range(10)]), ("7,0-2,2", [0, 1, 2, 7]), ("4-4", [4])],
    )
    def test_seed_ids(self, text: str, numbers: list[int]):
        assert seed_ids(text) == numbers
        assert seed_ids(seed_ids_text(reversed(numbers))) == numbers

    def test_slots(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setattr("src.launch.parallel.n_cores", lambda: 16)
        assert [s.environment for s in make_slots(["0", "3"], 1)] == [
            {"CUDA_VISIBLE_DEVICES": "0", "OMP_NUM_THREADS": "8"},
            {"CUDA_VISIBLE_DEVICES": "3", "OMP_NUM_THREADS": "8"},
        ]
        assert [s.environment for s in make_slots([], 4)] == [{"OMP_NUM_THREADS": "4"}] * 4
        assert make_slots([], 99)[0].environment == {"OMP_NUM_THREADS": "1"}

    @pytest.mark.parametrize(
        ("given", "n_threads", "says"),
        [
            ("3", "3", ""),
            (" 3, 2", "3", ""),
            ("", "4", ""),
            (" ", "4", ""),
            *((given, "4", given) for given in ("auto", "0", "-1", "2.5", "${UNSET}")),
        ],
    )
    def test_threads_asked_for(self, monkeypatch, capsys, given: str, n_threads: str, says: str):
        monkeypatch.setenv("OMP_NUM_THREADS", given)
        monkeypatch.setattr("src.launch.parallel.n_cores", lambda: 16)
        assert make_slots([], 4)[0].environment == {"OMP_NUM_THREADS": n_threads}
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == bool(says)
        assert all(line.startswith(f"OMP_NUM_THREADS={given} is no number") for line in lines)

    def test_gpus_are_those_that_may_be_seen(self, monkeypatch: pytest.MonkeyPatch):
        """Not the first ones of the machine, which are others' where a cluster gave out some."""
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-5b1e")
        slots = make_slots(["0", "1", "0"], 1)
        assert [s.environment["CUDA_VISIBLE_DEVICES"] for s in slots] == ["2", "GPU-5b1e", "2"]

    def test_gpus(self, monkeypatch: pytest.MonkeyPatch):
        """As many seeds on each as there are cores for; the first jobs go to GPUs of their own."""
        monkeypatch.setattr("src.launch.parallel.n_cores", lambda: 6)
        assert all_gpus(2, one_seed_fills_one=False) == ["0", "1"] * 3
        assert all_gpus(1, one_seed_fills_one=False) == ["0"] * 4
        assert all_gpus(8, one_seed_fills_one=False) == [str(k) for k in range(8)]
        assert all_gpus(2, one_seed_fills_one=True) == ["0", "1"]
        assert all_gpus(0, one_seed_fills_one=False) == []


def launch(root: Path, *arguments: object) -> Result:
    return call("run_parallel", "--root", root, "--experiment", DIGITS, "--workers", 2, *arguments)


def test_what_is_there_is_not_run(digits_root: Path):
    result = launch(digits_root, "--seed_id", 0)
    assert result.code == 0
    assert result.out == (
        "5 of 5 jobs were done before, by the names of their files: reports check what these hold\n"
    )
    assert not [*(digits_root / "logs").rglob("*.log")]
    for method in ("gd", "gc", "gd_and_gc"):  # of one step
        result = launch(digits_root, "--seed_id", 0, "--methods", method)
        assert result.out.startswith("2 of 2 jobs were done before")


def test_scores_wait_for_subsets_and_these_for_their_training(
    digits_root: Path, copy_of: Callable[[Path], Path]
):
    root = copy_of(digits_root)
    Paths(root).checkpoint(EXPERIMENT, 724, 14).write_bytes(b"damaged")
    Paths(root).checkpoint(EXPERIMENT, 724, 12).unlink()  # so that it is trained again, which fails
    subsets = Paths(root).subsets(EXPERIMENT, "half", 446)
    arguments = ("--kind", "half", "--n_subsets", 12, "--seed_id", 0)
    call_well("run_subsets", "--root", root, "--experiment", DIGITS, *arguments)
    result = launch(root, "--seed_id", "0-1", "--methods", "downsampling")
    assert result.code == 1, result
    assert f" s downsampling of {DIGITS}, seed_id 0" in result.out
    for step in ("subsets_half", "downsampling"):
        assert f"skipped          {step} of {DIGITS}, seed_id 1: its training failed" in result.out
    assert "1 failed, 2 skipped" in result.out
    assert subsets.exists()
    assert Paths(root).scores(EXPERIMENT, "downsampling", 446).exists()


def test_a_failure_is_reported_and_the_others_go_on(digits_root, copy_of):
    root = copy_of(digits_root)
    damaged, missing = (Paths(root).checkpoint(EXPERIMENT, seed, 12) for seed in load_seeds()[1:3])
    damaged.write_bytes(damaged.read_bytes()[:1000])
    Paths(root).scores(EXPERIMENT, "gd", load_seeds()[0]).unlink()
    missing.write_bytes(b"damaged")
    missing.with_name("ckpt_epoch_14.pt").unlink()
    result = launch(root, "--seed_id", "0-2", "--methods", "gd_and_gc")
    assert result.code == 1, result
    job, log = f"gd_and_gc of {DIGITS}, seed_id", f"{root}/logs/{DIGITS}"
    assert f"FAILED           {job} 1 (exit code 2), log {log}/gd_and_gc/724.log" in result.out
    assert f"    error: {damaged} is damaged" in result.out
    assert f" s {job} 0\n" in result.out
    assert f"skipped          {job} 2: its training failed" in result.out
    assert "2 failed, 1 skipped; what is missing is run by: python run_parallel" in result.out
