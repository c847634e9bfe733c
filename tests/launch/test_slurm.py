"""Job arrays on a real Slurm: they run, interrupted tasks go on, results are those of a direct run.

The cluster is of one node, on the loopback; it is started and ended here.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from src.ensemble.draws import load_seeds
from src.errors import UserError
from src.experiments import Paths, parse_experiment
from src.launch import slurm as slurm_module
from src.launch.jobs import Job, plan
from src.launch.slurm import Task, submit
from tests.conftest import DIGITS
from tests.slurm_cluster import Cluster
from tests.tools import call, call_well, run_script, tree

EXPERIMENT = parse_experiment(DIGITS)
OPTIONS = ("--slurm", "--gpus_per_task", 0, "--cpus_per_task", 1, "--mem_gb", 1, "--time", 30)
SECONDS = 400  # for all jobs together

slurm = [
    pytest.mark.slurm,
    pytest.mark.skipif(
        bool(Cluster.missing()), reason=f"not installed: {', '.join(Cluster.missing())}"
    ),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running cluster."""
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


@pytest.fixture(scope="module")
def done(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A root whose jobs ran on the cluster, and how often each array task was restarted.

    One task is told of a preemption, as Slurm tells it; one is requeued without a word.
    """
    root, elsewhere = tmp_path_factory.mktemp("root"), tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "src").mkdir()
    (elsewhere / "src" / "__init__.py").write_text("raise RuntimeError('another src')")
    call_well("run_subset_generation", "--root", root, "--task", "digits3")
    arguments = ("--root", root, "--experiment", DIGITS, "--seed_id", "0-1", *OPTIONS)
    submitted = run_script(
        "run_parallel.py",
        *arguments,
        "--methods",
        "loo",
        "gd_and_gc",
        cwd=elsewhere,
        **cluster.environment,
    )
    assert submitted.code == 0, submitted
    array = re.search(rf"submitted array (\d+): {DIGITS} loo, 2 tasks", submitted.out).group(1)
    paths = Paths(root)
    interruptions = (
        ("scancel", "--signal", "USR2", f"{array}_0"),
        ("scontrol", "requeue", f"{array}_1"),
    )
    for command, seed in zip(interruptions, load_seeds(), strict=False):
        partial = paths.partial_scores(EXPERIMENT, "loo", seed)
        wait_until(partial.exists, f"no {partial}")
        cluster.run(*command)
    restarts: dict[str, str] = {}

    def ended() -> bool:
        for task in (f"{array}_0", f"{array}_1"):
            shown = cluster.run("scontrol", "show", "job", task).stdout
            if found := re.search(r"Restarts=(\d+)", shown):  # a job is forgotten after a while
                restarts[task] = found.group(1)
        return not cluster.run("squeue", "-h").stdout.strip()

    wait_until(ended, "the queue does not become empty")
    return root, restarts


class TestOnACluster:
    pytestmark = slurm

    def test_results_equal_those_of_a_direct_run(self, done, digits_root: Path, copy_of):
        root, direct = done[0], copy_of(digits_root)
        for script in ("run_loo", "run_gd_and_gc"):  # of seed 0 they are there
            call_well(script, "--root", direct, "--experiment", DIGITS, "--seed_id", 1)
        trained = [f"models/{DIGITS}/{seed}" for seed in load_seeds()[:2]]
        for folder in (*trained, *(f"tda_scores/{DIGITS}/{m}" for m in ("loo", "gd", "gc"))):
            assert tree(root / folder) == tree(direct / folder)

    def test_interrupted_tasks_were_requeued_and_went_on(self, done):
        root, restarts = done
        assert [*restarts.values()] == ["1", "1"]
        for seed in load_seeds()[:2]:
            log = Paths(root).log(EXPERIMENT, "loo", seed).read_text()
            assert log.count("run_loo.py") == 2, log
            assert re.search(r"going on from \d+ of 31 members", log), log


def test_arrays_wait_for_what_they_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Models on subsets for the training, scores for these; where they are there, for that one."""
    submitit = pytest.importorskip("submitit")
    monkeypatch.setattr(submitit.SlurmExecutor, "affinity", lambda: 2)
    waits: dict[str, str | None] = {}

    def submit_array(array: list[Job], resources: object, folder: Path, after: str | None) -> str:
        waits[array[0].step] = after
        return f"id of {array[0].step}"

    monkeypatch.setattr(slurm_module, "_submit_array", submit_array)
    jobs = plan([EXPERIMENT], ["subsets", "gd_and_gc", "shapley"], [(0, 446)], tmp_path, [])
    submit(jobs, None, tmp_path)
    training, subsets = "id of training", "id of subsets_permutations"
    expected = {"training": None, "subsets_truth": training, "subsets_permutations": training}
    assert waits == {**expected, "gd_and_gc": training, "shapley": subsets}
    waits.clear()
    there = Paths(tmp_path).subsets(EXPERIMENT, "permutations", 446)
    there.parent.mkdir(parents=True)
    there.touch()
    submit(jobs, None, tmp_path)
    assert waits["shapley"] == training


def test_code_of_another_repository_is_not_run(tmp_path: Path):
    (tmp_path / "src").mkdir()
    job = plan([EXPERIMENT], [], [(0, 446)], tmp_path, [])[0]
    with pytest.raises(UserError, match=f"a script of {tmp_path} was called"):
        Task(job, "cpu", {"OMP_NUM_THREADS": "1"}, repository=tmp_path)()


def test_without_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    call_well("run_subset_generation", "--root", tmp_path, "--task", "digits3")
    call("run_parallel", "--root", tmp_path, "--experiment", DIGITS, "--slurm").check_refused(
        "there is no Slurm here"
    )
