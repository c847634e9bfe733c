"""Leave-one-out beside its floor, of planted effects and evaluations that differ."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from src.analysis.floor import floor_table
from tests.reports.test_readings import made

N_DRAWS, SHAPE = 8, (5, 7)


def with_evaluations(scores, size):
    """The same scores where checkpoints and members are evaluated on other crops, seed by seed."""
    rng = np.random.default_rng(1)
    floors = {s: size * rng.normal(size=(5, SHAPE[1])) for s in scores.common_seeds}
    added = np.stack([floors[seed] for seed in scores.common_seeds])[:, :, None]
    return replace(scores, scores={"loo": scores.scores["loo"] + added}, floors=floors)


def test_less_the_floor_evaluations_do_not_count():
    same = made("significant", N_DRAWS, ["loo"], SHAPE)
    cropped = with_evaluations(same, 50.0)
    table, expected = floor_table(cropped, 0.05), floor_table(same, 0.05)
    for name, value in expected.loc["score"].items():
        assert table.loc["less_floor", name] == pytest.approx(value, rel=1e-4)
    assert table.loc["score", "variance"] > 100 * expected.loc["score", "variance"]
    assert table.loc["less_floor", "mean_pvalue"] < 1e-6 < table.loc["score", "mean_pvalue"]
    samples = cropped.scores["loo"].mean(axis=1, dtype=np.float64)
    p = ttest_1samp(samples, 0).pvalue
    assert table.loc["score", "mean_pvalue"] == pytest.approx(p.mean(), rel=1e-6)
    assert table.loc["score", "significant"] == (p < 0.05).mean()
    assert table.loc["score", "median_size"] == pytest.approx(np.median(np.abs(samples)))
    assert table.loc["score", "variance"] == pytest.approx(samples.var(axis=0, ddof=1).mean())
    floors = np.stack([cropped.floors[seed].mean(axis=0) for seed in cropped.common_seeds])
    of_floor = ttest_1samp(floors, 0).pvalue
    assert table.loc["floor", "mean_pvalue"] == pytest.approx(of_floor.mean())
    assert table.loc["floor", "variance"] == pytest.approx(floors.var(axis=0, ddof=1).mean())


def test_a_floor_of_nothing_takes_nothing_away():
    table = floor_table(made("noise", N_DRAWS, ["loo"], SHAPE), 0.05)
    assert (table.loc["score"] == table.loc["less_floor"]).all()
    assert table.loc["floor"].tolist() == [1, 0, 0, 0, 0]


def test_first_seeds_have_their_own_floors():
    """Whose order is that of the seeds, not of the files."""
    scores = with_evaluations(made("significant", N_DRAWS, ["loo"], SHAPE), 50.0)
    shuffled = replace(scores, floors=dict(reversed(scores.floors.items())))
    first = floor_table(shuffled.at_seeds(shuffled.common_seeds[2:5]), 0.05)
    assert first.loc["less_floor", "mean_pvalue"] < 1e-3
