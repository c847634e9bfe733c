"""How long scores took: recorded beside the logs, of a computation that one process did."""

import math

import pytest

from src.experiments import Paths, parse_experiment
from src.tda.pieces import PartialFile
from src.tda.timing import mean_seconds, record_seconds
from tests.conftest import DIGITS
from tests.tools import call

EXPERIMENT = parse_experiment(DIGITS)


def test_every_score_file_has_its_record(digits_root):
    paths = Paths(digits_root)
    found = {m: mean_seconds(paths, EXPERIMENT, m, [446]) for m in ("loo", "if", "gd", "gc")}
    assert min(found.values()) > 0
    assert found["gd"] == found["gc"]  # computed together
    assert math.isnan(mean_seconds(paths, EXPERIMENT, "gd", [446, 724]))


def test_of_an_interrupted_computation_nothing_is_known(digits_root, copy_of, monkeypatch):
    root = copy_of(digits_root)
    arguments = ("run_gd_and_gc", "--root", root, "--experiment", DIGITS, "--seed_id", 0)
    add = PartialFile.add

    def add_and_stop(self, piece):
        add(self, piece)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PartialFile, "add", add_and_stop)
        assert call(*arguments, "--overwrite").code == 130
    for method in ("gd", "gc"):
        Paths(root).scores(EXPERIMENT, method, 446).unlink()
    assert call(*arguments).code == 0
    assert math.isnan(mean_seconds(Paths(root), EXPERIMENT, "gd", [446]))


def test_a_record_that_is_no_number_is_not_known(tmp_path):
    paths = Paths(tmp_path)
    record_seconds(paths, EXPERIMENT, ["gd"], 446, 1.25)
    assert mean_seconds(paths, EXPERIMENT, "gd", [446]) == pytest.approx(1.25)
    paths.seconds(EXPERIMENT, "gd", 446).write_text("long")
    assert math.isnan(mean_seconds(paths, EXPERIMENT, "gd", [446]))
