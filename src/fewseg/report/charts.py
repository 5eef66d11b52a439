"""Axes and learning curves as what the template prints: positions in per cent, SVG paths, words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from fewseg.report.contents import Curve

MAX_POINTS = 240


@dataclass(frozen=True)
class Tick:
    """A label at a position (0 to 100 % of the axis)."""

    at: float
    label: str


@dataclass(frozen=True)
class Axis:
    """A linear axis from `low` to `high` with ticks."""

    low: float
    high: float
    ticks: tuple[Tick, ...]

    def at(self, value: float) -> float:
        """Position of a value in per cent of the axis."""
        return round(100 * (value - self.low) / (self.high - self.low), 2)


@dataclass(frozen=True)
class Line:
    """One drawn curve: SVG paths in a 100 x 100 box, y downwards."""

    name: str
    words: str
    """The curve in words."""
    path: str
    band: str
    best: tuple[float, float] | None
    """Position (x, y) in per cent from the left and from the bottom."""


@dataclass(frozen=True)
class Chart:
    """Curves on shared axes."""

    title: str
    summary: str
    lines: tuple[Line, ...]
    x: Axis
    y: Axis
    banded: bool


def iou_axis(values: Sequence[float]) -> Axis:
    """From 0 to the next full ten above the largest value, so that bars are honest and still fill the space."""
    top = max((100 * v for v in values if not math.isnan(v)), default=0.0)
    high = min(100, max(10, 10 * math.ceil(top / 10 - 1e-9)))
    return _axis(0, high)


def _axis(low: float, high: float, *, widen: bool = False) -> Axis:
    """An axis with three to six round ticks; `widen` moves both ends outwards to a tick."""
    if not high > low:
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / 4
    power = 10 ** math.floor(math.log10(rough))
    step = power * next(m for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    if widen:
        low, high = step * math.floor(low / step + 1e-9), step * math.ceil(high / step - 1e-9)
    first = math.ceil(low / step - 1e-9)
    values = [step * i for i in range(first, math.floor(high / step + 1e-9) + 1)]
    ticks = tuple(Tick(round(100 * (v - low) / (high - low), 2), f"{v:,.10g}".replace("-", "−")) for v in values)
    return Axis(low, high, ticks)


def charts(curves: Sequence[Curve]) -> tuple[Chart, ...]:
    """Curves that share a chart on common axes; one without a finite value is left out."""
    grouped: dict[str, list[Curve]] = {}
    for curve in curves:
        if np.isfinite(np.asarray(curve.values, float)).any():
            grouped.setdefault(curve.chart or curve.name, []).append(curve)
    return tuple(_chart(title, drawn) for title, drawn in grouped.items())


def _chart(title: str, curves: Sequence[Curve]) -> Chart:
    series = [(c, np.asarray(c.steps, float), np.asarray(c.values, float) * (100 if c.percent else 1)) for c in curves]
    values = np.concatenate([v[np.isfinite(v)] for _, _, v in series])
    steps = np.concatenate([s for _, s, _ in series])
    x = _axis(min(0.0, float(steps.min())), float(steps.max()))
    y = _axis(min(0.0, float(values.min())), float(values.max()), widen=True)
    if not any(c.percent for c in curves) and values.min() > 0.5 * values.max():
        y = _axis(float(values.min()), float(values.max()), widen=True)
    lines = tuple(_line(c, s, v, x=x, y=y) for c, s, v in series)
    summary = "; ".join(f"{line.name}: {line.words}" for line in lines)
    shown = f"{title} (%)" if all(c.percent for c in curves) else title
    return Chart(shown, summary, lines, x, y, any(line.band for line in lines))


def _line(curve: Curve, steps: Any, values: Any, *, x: Axis, y: Axis) -> Line:
    best = int(np.nanargmax(values)) if curve.percent else None
    marker = None if best is None else (x.at(steps[best]), y.at(values[best]))
    thinned = thin(steps, values)
    points = list(zip(thinned.steps, thinned.values, strict=True))
    band = ""
    if thinned.low is not None and thinned.high is not None:
        upper, lower = (list(zip(thinned.steps, bound, strict=True)) for bound in (thinned.high, thinned.low))
        band = _path(upper + lower[::-1], x, y) + "Z"
    return Line(curve.name, _describe(curve, steps, values), _path(points, x, y), band, marker)


def _path(points: Sequence[tuple[float, float]], x: Axis, y: Axis) -> str:
    """SVG path data; a point without a finite value leaves a gap."""
    parts, pen = [], "M"
    for step, value in points:
        if not math.isfinite(value):
            pen = "M"
            continue
        parts.append(f"{pen}{x.at(step):g} {100 - y.at(value):.2f}")
        pen = "L"
    return "".join(parts)


def _describe(curve: Curve, steps: Any, values: Any) -> str:
    """A curve in words, for those who do not see it."""
    finite = np.flatnonzero(np.isfinite(values))
    first, last = finite[0], finite[-1]
    shown = (lambda v: f"{v:.1f} %") if curve.percent else (lambda v: f"{v:.4g}")
    start, end = (f"{shown(values[i])} at step {steps[i]:,.0f}" for i in (first, last))
    if not curve.percent or first == last:
        return f"from {start} to {end}" if first != last else end
    best = int(np.nanargmax(values))
    tail = "its best" if best == last else f"best {shown(values[best])} at step {steps[best]:,.0f}"
    return f"from {start} to {end}, {tail}"


@dataclass(frozen=True)
class Thinned:
    """A curve short enough to draw; where it was shortened, `low` and `high` bound what each point stands for."""

    steps: NDArray[np.float64]
    values: NDArray[np.float64]
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None


def thin(steps: ArrayLike, values: ArrayLike) -> Thinned:
    """The mean and range of 240 stretches of a long curve, finite values only; a short one as it is."""
    x, y = np.asarray(steps, np.float64), np.asarray(values, np.float64)
    if len(x) <= MAX_POINTS:
        return Thinned(x, y)
    finite = np.isfinite(y)
    pairs = list(zip(*(np.array_split(a[finite], MAX_POINTS) for a in (x, y)), strict=True))
    pairs = [(s, v) for s, v in pairs if len(v)]
    stack = np.array([(s.mean(), v.mean(), v.min(), v.max()) for s, v in pairs]).reshape(-1, 4)
    return Thinned(*stack.T)
