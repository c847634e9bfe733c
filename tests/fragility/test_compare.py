"""How predicted and actual changes are compared, on numbers whose answers are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student_t

from src.fragility.compare import agreement, over_seeds, summary, with_raw


def test_agreement_of_known_numbers():
    predicted = np.array([1.0, 2.0, 3.0, -1.0])
    found = agreement(predicted, 3 * predicted)
    assert found == pytest.approx({"pearson": 1, "spearman": 1, "slope": 3, "same_sign": 1})
    found = agreement(predicted, predicted**3 * np.array([1, 1, 1, -1]))
    assert found["spearman"] == pytest.approx(
        4.5 / (5 * 4.5) ** 0.5
    )  # ranks 2, 3, 4, 1 and 1.5, 3, 4, 1.5
    assert found["same_sign"] == 0.75
    assert np.isnan(agreement(predicted, np.ones(4))["pearson"])
    assert np.isnan(agreement(np.zeros(4), predicted)["slope"])


def test_the_control_moves_slope_and_signs_and_no_correlation():
    predicted = np.array([1.0, 2.0, 3.0])
    found = with_raw(predicted, 2 * predicted, 2 * predicted - 10)
    assert found["pearson"] == pytest.approx(found["pearson_raw"]) == 1
    assert found["slope"] == pytest.approx(2)
    assert found["slope_raw"] == pytest.approx((2 * 14 - 10 * 6) / 14)
    assert (found["same_sign"], found["same_sign_raw"]) == (1, 0)


def test_the_interval_over_seeds_is_students():
    values = np.array([0.1, 0.5, 0.3, np.nan, 0.9])
    there = values[~np.isnan(values)]
    low, high = student_t.interval(0.95, 3, there.mean(), there.std(ddof=1) / 2)
    assert over_seeds(values) == pytest.approx((there.mean(), low, high))
    assert over_seeds(np.array([0.4])) == pytest.approx((0.4, np.nan, np.nan), nan_ok=True)
    assert over_seeds(np.array([np.nan])) == pytest.approx((np.nan,) * 3, nan_ok=True)


def test_the_summary_has_a_row_for_each_group_and_column():
    frame = pd.DataFrame(
        {"name": ["b", "b", "a"], "decay": [0.1, 0.1, 0.0], "x": [1.0, 3.0, np.nan], "y": [1, 1, 2]}
    )
    found = summary(frame, ["name", "decay"], ["x", "y"])
    assert found[["name", "value", "mean", "seeds"]].to_numpy().tolist()[:2] == [
        ["b", "x", 2.0, 2],
        ["b", "y", 1.0, 2],
    ]
    assert found["seeds"].tolist() == [2, 2, 0, 1]
