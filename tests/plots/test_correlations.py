"""Correlations of many methods: numbers that do not run into each other."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from src.experiments import METHODS
from src.plots.correlations import correlation_heatmaps


@pytest.mark.parametrize(
    "n_methods", [5, *(pytest.param(n, marks=pytest.mark.slow) for n in (8, 11)), len(METHODS)]
)
def test_numbers_stay_in_their_cells(n_methods):
    methods = list(METHODS)[:n_methods]
    values = np.full((n_methods, n_methods), -0.504)
    values[0, 1], values[1, 0] = 0.504, 0.0
    np.fill_diagonal(values, 1.0)
    frame = pd.DataFrame(values, methods, methods)
    keys = [(s, c) for s in ("mean", "std", "pvalue") for c in ("pearson", "spearman")]
    figure = correlation_heatmaps(dict.fromkeys(keys, frame))
    figure.canvas.draw()
    axis = figure.axes[0]
    (left, _), (right, _) = axis.transData.transform([(0, 0), (1, 0)])
    for text in axis.texts:
        assert text.get_window_extent().width <= abs(right - left)
    written = [text.get_text() for text in axis.texts[:3]]
    assert written == (["1", ".50", "-.50"] if n_methods > 10 else ["1.00", "0.50", "-0.50"])
    assert axis.texts[n_methods].get_text() == (".00" if n_methods > 10 else "0.00")
    plt.close(figure)
