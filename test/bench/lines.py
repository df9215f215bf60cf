"""Line charts side by side in one PNG, drawn by OpenCV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

_WIDTH, _HEIGHT = 620, 520
_LEFT, _RIGHT, _TOP, _BOTTOM = 92, 26, 96, 70
_BACK, _TEXT, _DIM, _RULE = (255, 255, 255), (39, 31, 27), (133, 112, 102), (235, 230, 227)
_COLOURS = ((133, 112, 102), (26, 87, 194), (214, 98, 59))  # BGR, one a curve
_FACE = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True)
class Chart:
    """Curves over one axis.

    Attributes:
        title: Stands above it.
        x_name: What x is.
        curves: Points ``(x, y)`` by name, x ascending; the same names in every chart of a picture.
        spans: Lower and upper end of the interval at each point, by name; may be empty.
        logarithmic: The scale of y, which else begins at 0.
    """

    title: str
    x_name: str
    curves: Mapping[str, Sequence[tuple[float, float]]]
    spans: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    logarithmic: bool = False


def draw(charts: Sequence[Chart]) -> NDArray[np.uint8]:
    """Return the charts side by side, ``[h, w, 3]`` BGR."""
    return np.hstack([_draw(chart) for chart in charts])


def write(path: Path, charts: Sequence[Chart]) -> None:
    """Write the charts as a PNG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), draw(charts)):
        raise OSError(f"{path} cannot be written: expected a folder that can be")


def _draw(chart: Chart) -> NDArray[np.uint8]:
    canvas = np.full((_HEIGHT, _WIDTH, 3), _BACK, np.uint8)
    xs = [x for points in chart.curves.values() for x, _ in points]
    ys = [y for points in chart.curves.values() for _, y in points]
    ys += [end for spans in chart.spans.values() for span in spans for end in span]
    if chart.logarithmic:
        ys = [y for y in ys if y > 0]
        low, high = (np.floor(np.log10(min(ys))), np.ceil(np.log10(max(ys))))
        ticks = [10.0**power for power in range(int(low), int(high) + 1)]
    else:
        low, high = 0.0, max(ys) * 1.05 or 1.0
        unit = 10.0 ** np.floor(np.log10(high))
        step = next(s * unit for s in (0.2, 0.25, 0.5, 1.0, 2.0) if high / (s * unit) <= 6)
        ticks = [float(tick) for tick in np.arange(0, high + 1e-9, step)]

    def at(x: float, y: float) -> tuple[int, int]:
        value = np.log10(max(y, 10.0**low)) if chart.logarithmic else y
        across = (x - min(xs)) / ((max(xs) - min(xs)) or 1.0)
        up = (value - low) / ((high - low) or 1.0)
        return (
            round(_LEFT + across * (_WIDTH - _LEFT - _RIGHT)),
            round(_HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM)),
        )

    _text(canvas, chart.title, (_LEFT, 34), 0.62, _TEXT)
    for tick in ticks:
        x, y = at(min(xs), tick)
        cv2.line(canvas, (x, y), (_WIDTH - _RIGHT, y), _RULE, 1)
        _text(canvas, f"{tick:g}", (_LEFT - 12, y + 5), 0.5, _DIM, ends=True)
    for value in sorted(set(xs)):
        x, y = at(value, ticks[0])
        _text(canvas, f"{value:g}", (x + 12, _HEIGHT - _BOTTOM + 26), 0.5, _DIM, ends=True)
    _text(canvas, chart.x_name, (_LEFT, _HEIGHT - 16), 0.5, _DIM)
    for i, (name, points) in enumerate(chart.curves.items()):
        colour = _COLOURS[i % len(_COLOURS)]
        cv2.line(canvas, (_LEFT + 150 * i, 62), (_LEFT + 150 * i + 26, 62), colour, 3)
        _text(canvas, name, (_LEFT + 150 * i + 36, 67), 0.5, _TEXT)
        # Curves that share an x stand a little apart, so that intervals can be told from another.
        places = [at(x, y) for x, y in points]
        for (x, _), (begin, end) in zip(points, chart.spans.get(name, ()), strict=False):
            shift = 5 * (i - 1)
            (column, lower), (_, upper) = at(x, begin), at(x, end)
            cv2.line(canvas, (column + shift, lower), (column + shift, upper), colour, 2)
        cv2.polylines(canvas, [np.array(places, np.int32)], False, colour, 2, cv2.LINE_AA)
        for place in places:
            cv2.circle(canvas, place, 5, colour, -1, cv2.LINE_AA)
    return canvas


def _text(
    canvas: NDArray[np.uint8],
    text: str,
    at: tuple[int, int],
    size: float,
    colour: tuple[int, int, int],
    *,
    ends: bool = False,
) -> None:
    width = cv2.getTextSize(text, _FACE, size, 1)[0][0] if ends else 0
    cv2.putText(canvas, text, (at[0] - width, at[1]), _FACE, size, colour, 1, cv2.LINE_AA)
