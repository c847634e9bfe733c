"""Labels of points, placed so that they cover neither each other nor what is drawn."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np

_REACHES = (5, 9, 14, 20, 28, 38, 50, 64)  # distances from the point, in points of 1/72 inch
_N_ANGLES = 24
_MARK = 3.0  # half the size of a mark, in points
_PASSES = 8
_LED = 9  # a label that is further away has a line to its point
# Of overlapping with a label, with the frame, with a mark, and with a line, by a point of length.
_LABEL, _FRAME, _MARKED, _LINE, _AWAY = 100.0, 100.0, 20.0, 2.0, 0.15

Box = np.ndarray  # left, bottom, right, top


def place_labels(
    axis: plt.Axes,
    points: np.ndarray,
    texts: Sequence[str],
    colours: Sequence[object],
    starts: np.ndarray,
    size: float,
) -> None:
    """Write a label beside each point, with a thin line to it where it stands further away.

    Every label takes the best of some hundred places, the others being where they are, a few times
    over. Call it when all else is drawn: the axes' limits must not change any more.

    Args:
        axis: The axes.
        points: Where the points are, in data, (n, 2).
        texts: Their labels.
        colours: Of the lines.
        starts: The other ends of lines that end in the points, in data, (n, 2).
        size: Of letters, in points.
    """
    figure = axis.figure
    figure.get_layout_engine().execute(figure)
    scale = 72 / figure.dpi  # from pixels to points
    ends, begins = (axis.transData.transform(own) * scale for own in (points, starts))
    corners = axis.get_window_extent().extents * scale
    renderer = figure.canvas.get_renderer()
    half_sizes = []
    for text in texts:
        artist = axis.text(0, 0, text, fontsize=size)
        box = artist.get_window_extent(renderer)
        half_sizes.append(np.array([box.width, box.height]) * scale / 2)
        artist.remove()
    centres = _places(ends, begins, np.array(half_sizes), corners)
    for point, end, centre, text, colour in zip(points, ends, centres, texts, colours, strict=True):
        offset = centre - end
        led = np.hypot(*(np.abs(offset) - half_sizes[list(texts).index(text)]).clip(0)) > _LED
        label = axis.annotate(
            text,
            point,
            offset,
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=size,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 0.4,
                "shrinkA": 0,
                "shrinkB": _MARK,
                "alpha": 0.8,
            }
            if led
            else None,
        )
        label.set_in_layout(False)


def _places(ends: np.ndarray, begins: np.ndarray, halves: np.ndarray, frame: Box) -> np.ndarray:
    """Return the centres of labels (n, 2), all lengths in points."""
    angles = np.arange(_N_ANGLES) * 2 * np.pi / _N_ANGLES
    ways = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    reaches = np.repeat(_REACHES, _N_ANGLES)[:, None]
    offsets = reaches * np.tile(ways, (len(_REACHES), 1))
    # The side that faces the point is so far away, not the centre.
    candidates = [
        end + offsets + np.sign(offsets.round(6)) * half * np.abs(np.tile(ways, (len(_REACHES), 1)))
        for end, half in zip(ends, halves, strict=True)
    ]
    samples = np.linspace(0, 1, 33)[:, None, None]
    lines = (begins + samples * (ends - begins)).reshape(-1, 2)
    spacing = np.tile(np.hypot(*(ends - begins).T) / 32, 33)
    fixed = []
    for centres, half, end in zip(candidates, halves, ends, strict=True):
        boxes = np.concatenate([centres - half, centres + half], axis=1)
        marks = np.concatenate([ends - _MARK, ends + _MARK], axis=1)
        starts = np.concatenate([begins - _MARK, begins + _MARK], axis=1)
        outside = (frame[:2] - boxes[:, :2]).clip(0) + (boxes[:, 2:] - frame[2:]).clip(0)
        inside = (lines > boxes[:, None, :2]).all(-1) & (lines < boxes[:, None, 2:]).all(-1)
        away = np.hypot(*(np.abs(centres - end) - half).clip(0).T)
        fixed.append(
            _FRAME * outside.sum(axis=1)
            + _MARKED * (_overlap(boxes, marks) + _overlap(boxes, starts))
            + _LINE * inside @ spacing
            + _AWAY * away
        )
    chosen = [int(np.argmin(cost)) for cost in fixed]
    for _ in range(_PASSES):
        for i, (centres, half) in enumerate(zip(candidates, halves, strict=True)):
            others = np.array(
                [
                    np.concatenate([c[k] - h, c[k] + h])
                    for j, (c, k, h) in enumerate(zip(candidates, chosen, halves, strict=True))
                    if j != i
                ]
            ).reshape(-1, 4)
            boxes = np.concatenate([centres - half, centres + half], axis=1)
            chosen[i] = int(np.argmin(fixed[i] + _LABEL * _overlap(boxes, others)))
    return np.array([c[k] for c, k in zip(candidates, chosen, strict=True)])


def _overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return how far boxes (n, 4) reach into others (m, 4): the shorter side, summed, (n,)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return (high - low).clip(0).min(axis=-1).sum(axis=1)
