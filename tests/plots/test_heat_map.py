"""Heat maps against seaborn's, and the room that their figures leave."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import seaborn as sns
from matplotlib.colors import to_rgb

from src.plots.heat_map import heat_map, make_room
from src.plots.style import save_figure
from tests.tools import contrast

LABELS = ["a", "b", "c"]


def test_heat_map_is_seaborns():
    matrix = np.array([[-1.0, 0.25, 0.5], [0.75, np.nan, 1.0]])
    figure, (own, reference) = plt.subplots(1, 2)
    meshes = [
        heat_map(own, matrix, (-1, 1), "vlag", ".2f", 7, LABELS[:2], LABELS),
        sns.heatmap(
            matrix, vmin=-1, vmax=1, cmap="vlag", annot=True, fmt=".2f", ax=reference
        ).collections[0],
    ]
    figure.canvas.draw()
    assert np.array_equal(*(mesh.get_facecolors() for mesh in meshes))
    assert own.get_ylim() == reference.get_ylim()
    texts, expected = (
        [(t.get_text(), t.get_position()) for t in a.texts] for a in (own, reference)
    )
    assert [text for text in texts if text[0] != "–"] == expected  # seaborn says nothing of NaN
    assert len(texts) == matrix.size
    assert [t.get_text() for t in own.get_xticklabels()] == LABELS
    plt.close(figure)


@pytest.mark.parametrize(("colours", "low"), [("vlag", -1), ("Blues", 0), ("gray", 0)])
def test_numbers_stand_out_from_their_cells(colours, low):
    """Over the whole colour map, its ends and a hole in it, by the ratio that WCAG 2 asks for."""
    matrix = np.append(np.linspace(low, 1, 400), np.nan)[None]
    figure, axis = plt.subplots()
    mesh = heat_map(axis, matrix, (low, 1), colours, ".2f", 7, [], [""] * matrix.size)
    for text, (*rgb, alpha) in zip(axis.texts, mesh.get_facecolors(), strict=True):
        on_paper = alpha * np.array(rgb) + 1 - alpha
        assert contrast(to_rgb(text.get_color()), on_paper) >= 4.5, text
    assert axis.texts[-1].get_text() == "–"
    plt.close(figure)


@pytest.mark.parametrize("n_maps", [1, 4])
def test_titles_have_room(tmp_path, n_maps):
    figure, axes = plt.subplots(1, n_maps, figsize=(6.75, 1.9), squeeze=False)
    for axis in axes[0]:
        heat_map(axis, np.eye(3), (0, 1), "Blues", ".0f", 7, LABELS, LABELS)
        axis.set(title="title", xlabel="label")
    make_room(figure)
    save_figure(figure, tmp_path, "maps")
    height = figure.bbox.height
    for axis in axes[0]:
        box = axis.get_tightbbox()
        assert 0 <= box.y0 < box.y1 <= height
