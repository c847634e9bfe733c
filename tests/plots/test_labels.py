"""Labels of crowded points: none over another, over a mark, over a line or outside."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from src.plots.labels import place_labels
from src.plots.style import apply


@pytest.mark.parametrize("crowd", [0.02, 0.2])
def test_eighteen_labels_do_not_meet(crowd):
    apply()
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.uniform(size=(9, 2)), 0.8 + crowd * rng.uniform(-1, 1, (9, 2))])
    points = points.clip(0.02, 0.98)
    figure, axis = plt.subplots(figsize=(3.9, 4.1))
    axis.plot(*points.T, "o")
    axis.set(xlim=(-0.05, 1.05), ylim=(-0.05, 1.05))
    names = [f"method {k}" for k in range(len(points))]
    rules = [0.5, 0.88]
    place_labels(axis, points, names, ["k"] * len(points), points, 7, rules)
    figure.canvas.draw()
    assert [text.get_text() for text in axis.texts] == names
    frame, pixels = axis.get_window_extent(), axis.transData.transform(points)
    heights = axis.transData.transform([(0, rule) for rule in rules])[:, 1]
    for k, text in enumerate(axis.texts):
        own = plt.Text.get_window_extent(text)
        for other in axis.texts[:k]:
            assert not own.overlaps(plt.Text.get_window_extent(other))
        assert frame.contains(*own.min) and frame.contains(*own.max)
        assert not any(own.contains(*at) for at in pixels)
        assert not ((own.y0 < heights) & (heights < own.y1)).any()
    plt.close(figure)
