"""Sheets of pairs: what stands in which row, of images, of texts and of rows of numbers."""

from __future__ import annotations

import dataclasses

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.container import BarContainer
from matplotlib.offsetbox import AnnotationBbox

from src.analysis.pairs import influences
from src.experiments.tasks import TASKS
from src.plots.exhibits import Pictures
from src.plots.pairs import influence_sheet, pair_sheet
from src.plots.style import METHOD_LABELS

N_TRAIN, N_TEST, N_DRAWS = 7, 6, 4
SIDES = {"lowest": [(3, 1), (0, 5)], "highest": [(6, 0)]}


def of_images(n):
    return {"images": torch.arange(n, dtype=torch.uint8)[:, None, None, None].repeat(1, 1, 4, 6)}


def of_rows(n):
    return {"inputs": torch.arange(n)[:, None] + torch.arange(5) / 8}


def pictures(of_samples, **of_task):
    splits = {
        name: of_samples(n) | {"labels": torch.arange(n) % 3, "indices": torch.arange(n) + first}
        for name, n, first in (("train", N_TRAIN, 10), ("test", N_TEST, 20))
    }
    return Pictures(splits, dataclasses.replace(TASKS["digits3"], **of_task), None)


@pytest.fixture(autouse=True)
def closed():
    """No figure stays open."""
    yield
    plt.close("all")


@pytest.fixture
def samples():
    return np.random.default_rng(0).normal(size=(N_DRAWS, N_TRAIN, N_TEST))


def shown(axis):
    """The images of an axis by their height, and what stands beside them."""
    boxes = [child for child in axis.get_children() if isinstance(child, AnnotationBbox)]
    by_height = {box.xy[1]: box.offsetbox.get_data() for box in boxes}
    words = {text.xy[1]: text.get_text() for text in axis.texts if hasattr(text, "xy")}
    return by_height, words


def test_every_row_of_a_sheet_is_its_pair(samples):
    p = np.random.default_rng(1).uniform(size=(N_TRAIN, N_TEST))
    figure = pair_sheet(samples, p, SIDES, pictures(of_images), "loo")
    for side, pairs in zip(figure.subfigs, SIDES.values(), strict=True):
        train, test, scores = side.axes
        for axis, first, positions in zip(
            (train, test), (10, 20), zip(*pairs, strict=True), strict=True
        ):
            images, words = shown(axis)
            assert list(images) == list(words) == list(range(len(pairs)))
            for height, position in enumerate(positions):
                assert (images[height] == position).all()
                assert words[height] == f"{first + position}\nclass {position % 3}"
        _, dots, means = scores.lines
        by_pair = np.reshape(dots.get_xdata(), (len(pairs), N_DRAWS))
        heights = np.reshape(dots.get_ydata(), (len(pairs), N_DRAWS))
        for height, (i, j) in enumerate(pairs):
            assert (heights[height] == height).all()
            own, largest = samples[:, i, j], np.abs(samples[:, i, j]).max()
            np.testing.assert_allclose(by_pair[height], own / largest)
            assert means.get_xdata()[height] == pytest.approx(own.mean() / largest)
            above, below = scores.texts[2 * height : 2 * height + 2]
            assert above.get_text() == f"p = {p[i, j]:.3f}"
            assert below.get_text() == f"max |τ| {largest:.2g}"
            assert height - 0.5 < above.get_position()[1] < height
            assert height < below.get_position()[1] < height + 0.5
        low, high = scores.get_xlim()
        assert low < by_pair.min() < by_pair.max() < high


def test_every_bar_of_a_sheet_is_its_train_sample(samples):
    samples[:, 2, 3] = (5, 5.1, 4.9, 5)  # told from noise
    found = influences(samples[:, :, 3], "loo", 2, 0.05)
    of_others = influences(samples[:, :, 3], "gd", 1, 0.05)  # fewer rows
    by_method = {"loo": found, "gd": of_others}
    figure = influence_sheet(by_method, pictures(of_images), 3, 0.05)
    top, bottom = figure.subfigs
    images, words = shown(top.axes[0])
    assert (images[0] == 3).all()
    assert words[0] == "23\nclass 0"
    for column, own in zip(bottom.subfigs, by_method.values(), strict=True):
        axis, bars = column.axes
        images, words = shown(axis)
        assert [int(image[0, 0]) for image in images.values()] == own.train.tolist()
        assert list(words.values()) == [f"{10 + position}" for position in own.train]
        (drawn,) = (c for c in bars.containers if isinstance(c, BarContainer))
        assert [bar.get_width() for bar in drawn] == own.mean.tolist()
        assert [bar.get_y() + bar.get_height() / 2 for bar in drawn] == pytest.approx(
            range(len(own.train))
        )
        stars = [text.get_position()[1] for text in bars.texts]
        assert stars == np.flatnonzero(own.pvalue < 0.05).tolist() != []
        assert bars.get_ylim() == (len(found.train) - 0.5, -0.5)


@pytest.mark.parametrize("scale", [1.0, 1e-12])
@pytest.mark.parametrize("of_samples", [of_images, of_rows])
def test_labels_end_within_the_sheet(samples, of_samples, scale):
    method, samples = max(METHOD_LABELS, key=lambda m: len(METHOD_LABELS[m])), samples * scale
    found = influences(samples[:, :, 3], method, 2, 0.05)
    for sheet in (
        pair_sheet(samples, np.full((N_TRAIN, N_TEST), 0.5), SIDES, pictures(of_samples), method),
        influence_sheet(
            dict.fromkeys(list(METHOD_LABELS)[:5], found), pictures(of_samples), 3, 0.05
        ),
    ):
        sheet.canvas.draw()
        labels = [axis.xaxis.label for axis in sheet.axes if axis.get_xlabel()]
        assert len(labels) in (2, 5)
        for label in labels:
            box = label.get_window_extent()
            assert sheet.bbox.x0 <= box.x0 < box.x1 <= sheet.bbox.x1
    sheet = pair_sheet(
        samples, np.full((N_TRAIN, N_TEST), 1e-11), SIDES, pictures(of_samples), "loo"
    )
    sheet.canvas.draw()
    for side in sheet.subfigs:
        scores = side.axes[2]
        assert len(scores.texts) >= 2
        for text in scores.texts:
            box = text.get_window_extent()
            assert scores.bbox.x0 <= box.x0 < box.x1 <= scores.bbox.x1


@pytest.mark.parametrize(
    "of_task",
    [{}, {"text": lambda row: "a text of several words, " * 9}],
    ids=["numbers", "text"],
)
def test_samples_that_are_no_images_stand_as_words(samples, of_task):
    """They are written within the sheet, one below another."""
    sheet = pair_sheet(samples, samples[0] ** 2, SIDES, pictures(of_rows, **of_task), "loo")
    sheet.canvas.draw()
    for side, pairs in zip(sheet.subfigs, SIDES.values(), strict=True):
        for axis in side.axes[:2]:
            assert shown(axis)[0] == {}
            boxes = [text.get_window_extent() for text in axis.texts]
            assert len(boxes) == len(pairs)
            for above, below in zip(boxes, boxes[1:], strict=False):
                assert above.y0 > below.y1


@pytest.mark.parametrize("of_samples", [of_rows, lambda n: {"inputs": torch.zeros(n, 3, 40)}])
@pytest.mark.parametrize("n_methods", [1, 5])
def test_words_beside_bars_end_before_them(samples, of_samples, n_methods):
    """However narrow the columns are: what is cut is said to be by an ellipsis."""
    long = {"feature_names": tuple(f"a rather long name {i}" for i in range(5))}
    own = pictures(of_samples, **long if "x" not in of_samples(1) else {})
    words = pictures(of_samples, text=lambda row: "wordy words of different lengths, " * 9)
    found = influences(samples[:, :, 3], "loo", 2, 0.05)
    for shown_by in (own, words):
        sheet = influence_sheet(
            dict.fromkeys(list(METHOD_LABELS)[:n_methods], found), shown_by, 3, 0.05
        )
        sheet.canvas.draw()
        for column in sheet.subfigs[1].subfigs:
            axis, bars = column.axes
            for text in axis.texts:
                assert text.get_window_extent().x1 < bars.get_window_extent().x0
                assert 3 <= text.get_text().count("\n") <= 4 or n_methods == 1
    assert "…" in text.get_text()


@pytest.mark.parametrize(("named", "n_shown"), [(True, 4), (False, 3)])
def test_numbers_are_those_farthest_from_the_mean(named, n_shown):
    """As many as there is room for, in the order of the row."""
    rows = np.random.default_rng(0).normal(size=(N_TRAIN, 9)) * np.arange(1, 10)
    own = pictures(lambda n: {"inputs": torch.from_numpy(rows[:n])})
    figure, axis = plt.subplots()
    own.show(axis, "train", range(N_TRAIN), size=20, width=1, named=named)
    far = np.abs(rows - rows.mean(axis=0)) / rows.std(axis=0)
    for text, row, by_row in zip(axis.texts, rows, far, strict=True):
        chosen = sorted(np.argsort(-by_row)[:n_shown])
        assert text.get_text().split("\n")[1:] == [f"x{i} {row[i]:.3g}" for i in chosen]
    assert own.readings()[0].endswith("at most 4.")
    for n_numbers, n_sentences in ((4, 1), (3, 0)):  # of four, three are shown beside no label
        few = pictures(lambda n, k=n_numbers: {"inputs": torch.zeros(n, k)})
        assert len(few.readings()) == n_sentences
