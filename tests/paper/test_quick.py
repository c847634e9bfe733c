"""The paper's argument on the bundled digits, from nothing to the page, as `make paper` does."""

import pytest

from src.experiments import PAPER_METHODS, Paths
from src.paper.exhibits import EXHIBITS
from tests.tools import call_well


@pytest.mark.slow
@pytest.mark.drawn
def test_all_exhibits_are_computed_and_drawn(tmp_path):
    call_well("run_subset_generation", "--root", tmp_path, "--task", "digits3")
    arguments = ("--root", tmp_path, "--scale", "quick")
    said = call_well("run_paper", *arguments, "--run", "--workers", 2)
    assert all(f"{name}: drawn" in said for name in EXHIBITS)
    figures = {p.stem for p in (Paths(tmp_path).paper("quick") / "figures").glob("*.png")}
    assert {f"{m}_pairs_cnn2_digits3_10pc" for m in PAPER_METHODS} < figures
    assert "correlations_cnn2_digits3_50pc" in figures
    assert call_well("run_paper", *arguments, "--list").endswith("all scores are there\n")
