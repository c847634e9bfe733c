"""Figures of accuracy: axes that can be read."""

import pandas as pd
import pytest

from src.plots.accuracy import accuracy_by_cost


@pytest.mark.parametrize("trainings", [1, 2, 32])
@pytest.mark.parametrize("draws", [(1, 2), (1, 2, 3), (1, 5, 10), (1, 10, 100)])
def test_two_numbers_at_least_stand_at_either_axis(draws, trainings):
    rows = [
        {"method": m, "losses": "all", "draws": n, "lds": 0.5, "trainings": n * one}
        for m, one in (("gd", 1), ("loo", trainings))
        for n in draws
    ]
    figure = accuracy_by_cost(pd.DataFrame(rows))
    figure.canvas.draw()
    for axis in figure.axes:
        boxes = [
            tick.label1.get_window_extent()
            for tick in axis.xaxis.get_major_ticks()
            if axis.get_xlim()[0] <= tick.get_loc() <= axis.get_xlim()[1]
        ]
        assert len(boxes) >= 2
        assert all(a.x1 < b.x0 for a, b in zip(boxes, boxes[1:], strict=False))
