"""How well flipped labels are found: against scikit-learn and all pairs, and on planted scores."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from src.analysis.mislabelled import (
    area_under_curve,
    detection_table,
    detections,
    ranking_table,
)

FLIPPED = np.array([True, False, False, True, False])


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("ties", [False, True])
def test_the_area_is_the_share_of_pairs_in_order(rng, ties):
    values, flipped = rng.normal(size=40), rng.random(40) < 0.3
    if ties:
        values = np.round(values)
    pairs = [
        1.0 if a > b else 0.5 if a == b else 0.0 for a in values[flipped] for b in values[~flipped]
    ]
    found = area_under_curve(values, flipped)
    assert found == pytest.approx(np.mean(pairs), rel=1e-9)
    assert found == pytest.approx(roc_auc_score(flipped, values), rel=1e-9)


def test_areas_of_extremes():
    assert area_under_curve(np.array([5.0, 1, 2, 4, 3]), FLIPPED) == 1
    assert area_under_curve(-np.array([5.0, 1, 2, 4, 3]), FLIPPED) == 0
    assert area_under_curve(np.zeros(5), FLIPPED) == 0.5
    assert np.isnan(area_under_curve(np.arange(5.0), np.zeros(5, dtype=bool)))
    assert np.isnan(area_under_curve(np.arange(5.0), np.ones(5, dtype=bool)))


def test_what_differs_by_rounding_alone_is_a_tie_whatever_its_size():
    rounding = 1 + 1e-7 * np.array([1, -1, -2, 2, 0])
    for size in (1e-12, 1.0, 3e5, -2.0):
        assert area_under_curve(size * rounding, FLIPPED) == 0.5
    # Small numbers are no ties because there are large ones.
    assert area_under_curve(np.array([2e-9, 1e-9, 1e-9, 1e9, 1e-10]), FLIPPED) == 1


@pytest.mark.parametrize(("method", "sign"), [("loo", 1), ("if", -1)])
def test_flipped_samples_help_themselves_and_harm_others(rng, method, sign):
    on_test = np.where(FLIPPED[:, None], -1.0, 1.0) + 0.1 * rng.normal(size=(3, 5, 4))
    on_itself = rng.normal(size=(3, 5, 5))  # beside the diagonal, noise of no concern
    on_itself[:, range(5), range(5)] = np.where(FLIPPED, 9.0, 1.0)
    found = detections({method: sign * on_test}, {method: sign * on_itself}, FLIPPED)
    table = detection_table(found)
    assert table.index.tolist() == [(method, "self"), (method, "test")]
    assert (table["draws"] == 3).all()
    assert (table.drop(columns="draws") == 1).all(axis=None)
    ranks = ranking_table(found, np.arange(10, 15), FLIPPED * 1, np.zeros(5, dtype=int))
    assert ranks["train_index"].tolist() == [10, 13, 11, 12, 14]
    assert ranks[f"{method}_self"].tolist() == [1.5, 1.5, 4, 4, 4]
    assert sorted(ranks[f"{method}_test"][:2]) == [1, 2]


def test_the_mean_over_draws_finds_what_each_finds_in_part(rng):
    """One sample after another is hidden by a draw's noise, none by the mean's."""
    on_itself = np.zeros((2, 5, 5))
    on_itself[0, range(5), range(5)] = [10, 1, 2, 0, 3]
    on_itself[1, range(5), range(5)] = [0, 1, 2, 10, 3]
    found = detections({}, {"gd": on_itself}, FLIPPED)
    row = detection_table(found).loc["gd", "self"]
    assert (row.one_draw, row.least, row.largest, row.mean_of_draws) == (0.5, 0.5, 0.5, 1)


def test_a_method_without_scores_on_itself_has_none():
    on_test = {"loo": np.ones((2, 5, 3))}
    assert [*detections(on_test, {}, FLIPPED)] == [("loo", "test")]
