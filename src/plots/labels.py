"""Labels of points, placed so that they cover neither each other nor what is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np

_REACHES = (5, 9, 14, 20, 28, 38, 50, 64)  # distances from the point, in points of 1/72 inch
_N_ANGLES = 24
_MARK = 3.0  # half the size of a mark, in points
_PASSES = 8
_SAMPLES = 12  # points of a line to a label
_LED = 6  # a label that is further away has a line to its point
_GAP = 1.5  # around a label, in points
# What a point of length costs: of being nearer to another mark, of lying over a label, the frame, a
# mark and a line, and of the distance.
_NEARER, _LABEL, _FRAME, _MARKED, _LINE, _AWAY = 3.0, 100.0, 100.0, 20.0, 6.0, 0.3
_LED_OVER = 15.0  # each point of a line to a label that lies over another label or mark

Box = np.ndarray  # left, bottom, right, top


def place_labels(
    axis: plt.Axes,
    points: np.ndarray,
    texts: Sequence[str],
    colours: Sequence[object],
    starts: np.ndarray,
    size: float,
    rules: Sequence[float] = (),
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
        rules: Heights, in data, of lines from one side of the axes to the other; NaN: none.
    """
    figure = axis.figure
    figure.get_layout_engine().execute(figure)
    scale = 72 / figure.dpi  # from pixels to points
    ends, begins = (axis.transData.transform(own) * scale for own in (points, starts))
    corners = axis.get_window_extent().extents * scale
    heights = axis.transData.transform(np.array([(0, rule) for rule in rules]).reshape(-1, 2))[:, 1]
    renderer = figure.canvas.get_renderer()
    half_sizes = []
    for text in texts:
        artist = axis.text(0, 0, text, fontsize=size)
        box = artist.get_window_extent(renderer)
        half_sizes.append(np.array([box.width, box.height]) * scale / 2 + _GAP)
        artist.remove()
    centres = _places(ends, begins, np.array(half_sizes), corners, heights * scale)
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


@dataclass(frozen=True)
class _Candidates:
    """Places of one label.

    Attributes:
        centres: (n, 2).
        boxes: (n, 4).
        leaders: Points on the lines to the label's point, (n, _SAMPLES, 2); NaN: there is none.
    """

    centres: np.ndarray
    boxes: np.ndarray
    leaders: np.ndarray

    @classmethod
    def of(cls, end: np.ndarray, half: np.ndarray) -> _Candidates:
        """Return places around a point of a label of a size."""
        angles = np.arange(_N_ANGLES) * 2 * np.pi / _N_ANGLES
        ways = np.tile(np.stack([np.cos(angles), np.sin(angles)], axis=1), (len(_REACHES), 1))
        # The side that faces the point is so far away, not the centre.
        centres = end + np.repeat(_REACHES, _N_ANGLES)[:, None] * ways + half * ways
        shares = np.linspace(0.1, 0.9, _SAMPLES)[:, None, None]
        leaders = (end + shares * (centres - end)).transpose(1, 0, 2)
        leaders[_distances(centres, half, end[None])[:, 0] <= _LED] = np.nan
        return cls(centres, np.concatenate([centres - half, centres + half], axis=1), leaders)


def _places(
    ends: np.ndarray, begins: np.ndarray, halves: np.ndarray, frame: Box, rules: np.ndarray
) -> np.ndarray:
    """Return the centres of labels (n, 2), all lengths in points."""
    candidates = [_Candidates.of(end, half) for end, half in zip(ends, halves, strict=True)]
    lines = (begins + np.linspace(0, 1, 33)[:, None, None] * (ends - begins)).reshape(-1, 2)
    spacing = np.tile(np.hypot(*(ends - begins).T) / 32, 33)
    marks = np.concatenate([ends, begins])
    marks = np.concatenate([marks - _MARK, marks + _MARK], axis=1)
    fixed = []
    for own, half, end in zip(candidates, halves, ends, strict=True):
        outside = (frame[:2] - own.boxes[:, :2]).clip(0) + (own.boxes[:, 2:] - frame[2:]).clip(0)
        away = _distances(own.centres, half, end[None])[:, 0]
        crossed = np.abs(own.centres[:, 1:] - rules) < half[1]
        is_other = (ends != end).any(axis=1)
        to_others = _distances(own.centres, half, ends[is_other])
        fixed.append(
            _FRAME * outside.sum(axis=1)
            + _MARKED * _overlap(own.boxes, marks)
            + _LINE * (_inside(lines, own.boxes) @ spacing + 2 * half[0] * crossed.sum(axis=1))
            + _AWAY * away
            + _NEARER * (away[:, None] + _MARK - to_others).clip(0).sum(axis=1)
            + _LED_OVER * _led_over(own.leaders, marks[: len(ends)][is_other])
        )
    chosen = [int(np.argmin(cost)) for cost in fixed]
    for _ in range(_PASSES):
        for i, own in enumerate(candidates):
            others = [
                (c, k) for j, (c, k) in enumerate(zip(candidates, chosen, strict=True)) if j != i
            ]
            boxes = np.array([c.boxes[k] for c, k in others]).reshape(-1, 4)
            leaders = np.array([c.leaders[k] for c, k in others]).reshape(-1, 2)
            cost = _LABEL * _overlap(own.boxes, boxes)
            cost += _LED_OVER * _led_over(own.leaders, boxes)
            cost += _LED_OVER * _inside(leaders, own.boxes).sum(axis=1)
            chosen[i] = int(np.argmin(fixed[i] + cost))
    return np.array([c.centres[k] for c, k in zip(candidates, chosen, strict=True)])


def _inside(points: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return which points (m, 2) lie in which boxes (n, 4), bool (n, m)."""
    points = points[None]
    return ((points > boxes[:, None, :2]) & (points < boxes[:, None, 2:])).all(axis=-1)


def _led_over(leaders: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return how many of the points on lines (n, _SAMPLES, 2) lie in one of the boxes, (n,)."""
    in_boxes = _inside(leaders.reshape(-1, 2), boxes)
    return in_boxes.any(axis=0).reshape(leaders.shape[:2]).sum(axis=1)


def _distances(centres: np.ndarray, half: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return how far labels (n, 2) of one size are from points (m, 2), (n, m)."""
    gaps = (np.abs(centres[:, None] - points) - half).clip(0)
    return np.hypot(gaps[..., 0], gaps[..., 1])


def _overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return how far boxes (n, 4) reach into others (m, 4): the shorter side, summed, (n,)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return (high - low).clip(0).min(axis=-1).sum(axis=1)
