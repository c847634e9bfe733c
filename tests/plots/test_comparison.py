"""Figures that compare experiments: nothing is drawn outside of its axes but marks on them."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.collections import LineCollection

from src.plots.comparison import by_model


def test_a_bar_down_to_zero_ends_at_a_logarithmic_axis():
    names = ("mean_pvalue_ttest", "mean_std", "mean_abs_mean")
    ends = {"": 0.5, "_low": 0.0, "_high": 1.0}
    row = {f"{name}{end}": value for name in names for end, value in ends.items()}
    index = pd.MultiIndex.from_product([["cnn2", "cnn3"], ["loo", "gd"]], names=["model", "method"])
    figure = by_model(pd.DataFrame([row] * 4, index))
    for axis in figure.axes:
        bars = [c for c in axis.collections if isinstance(c, LineCollection)]
        assert len(bars) == 2
        assert all(bar.get_clip_on() for bar in bars)
    plt.close(figure)
