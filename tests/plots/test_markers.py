"""Every method is drawn with its own marker, whatever their number."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from src.analysis.mislabelled import BY, Detection
from src.experiments import METHODS
from src.plots.accuracy import accuracy_beside_reliability
from src.plots.mislabelled import detection_by_method
from src.plots.style import COLOURS, MARKERS
from src.plots.top_samples import consistency_of_top

N = len(METHODS)


def accuracy():
    columns = ("reliability", "draw_other", "mean_other")
    values = np.random.default_rng(0).uniform(0.1, 0.9, (N, 3))
    table = pd.DataFrame(values, index=list(METHODS), columns=list(columns))
    return accuracy_beside_reliability(table, (0.9, 0.8, 1.0), 5, 0.05)


def top_samples():
    row = {"k": 1, "jaccard": 0.5, "low": 0.4, "high": 0.6, "by_chance": 0.1}
    return consistency_of_top(pd.DataFrame([{"method": method} | row for method in METHODS]))


def mislabelled():
    flipped = np.array([True, False, False])
    draws = np.random.default_rng(0).normal(size=(4, 3))
    return detection_by_method(
        {(method, by): Detection.of(draws, flipped) for method in METHODS for by in BY}
    )


@pytest.mark.parametrize("draw", [accuracy, top_samples, mislabelled])
def test_all_methods_have_their_markers(draw):
    figure = draw()
    drawn = {(line.get_marker(), line.get_color()) for axis in figure.axes for line in axis.lines}
    assert drawn >= {(MARKERS[method], COLOURS[method]) for method in METHODS}
    plt.close(figure)
