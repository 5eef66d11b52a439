"""Outlines from which the classes of `scenes` are built: ellipses, ribbons, profiles, petals, in object coordinates.

Object coordinates: x to the right, y down, an upright object of about two units; every outline is (N, 2) float64.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fewseg.data.scenes import texture

Points = NDArray[np.float64]
Pair = tuple[float, float]

MAIN, ACCENT, DARK, PALE, WOOD = range(5)
"""Tones: places in an individual's own random palette, so that no class can be told by its colour."""


class Frame(NamedTuple):
    """Where a part's surface pattern sits: origin, direction of its u axis (radians) and length of its unit."""

    x: float = 0.0
    y: float = 0.0
    angle: float = 0.0
    unit: float = 1.0


@dataclass(frozen=True)
class Part:
    """One painted piece of an object; later parts cover earlier ones."""

    outline: Points
    surface: texture.Surface = texture.plain
    tone: int = MAIN
    amount: float = 1.0
    """What the surface counts: stripes, teeth, dots per unit."""
    shade: float = 1.0
    relief: float = 1.0
    """How strongly the part bulges under the light; 0 is flat."""
    frame: Frame = field(default=Frame())
    cut: bool = False
    """The outline is a hole through everything painted before it in the same object."""


def ellipse(x: float, y: float, rx: float, ry: float | None = None, *, n: int = 40) -> Points:
    """An ellipse, a circle without `ry`."""
    t = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return np.stack([x + rx * np.cos(t), y + (rx if ry is None else ry) * np.sin(t)], 1)


def turn(points: Points, angle: float, *, to: Pair = (0.0, 0.0)) -> Points:
    """Points rotated about the origin, then moved by `to`."""
    c, s = np.cos(angle), np.sin(angle)
    return points @ np.array([[c, s], [-s, c]]) + np.array(to)


def polar(radius: Points, x: float = 0.0, y: float = 0.0) -> Points:
    """The outline whose distance from (x, y) at evenly spaced angles is `radius` (N,)."""
    t = np.linspace(0, 2 * np.pi, len(radius), endpoint=False)
    return np.stack([x + radius * np.cos(t), y + radius * np.sin(t)], 1)


def blob(rng: texture.Rng, x: float, y: float, size: float, rough: float = 0.12) -> Points:
    """A rounded irregular lump of radius about `size`."""
    t = np.linspace(0, 2 * np.pi, 36, endpoint=False)
    radius = np.ones(36)
    for k in (2, 3, 5):
        radius += rough / k * 2 * rng.uniform(-1, 1) * np.cos(k * t + rng.uniform(0, 6.3))
    return polar(size * radius, x, y)


def polygon(*corners: Pair, steps: int = 6) -> Points:
    """Straight sides, cut into `steps` pieces each so that a bent object bends them too."""
    a = np.array(corners, float)
    t = np.arange(steps)[:, None, None] / steps
    return (a + t * (np.roll(a, -1, 0) - a)).transpose(1, 0, 2).reshape(-1, 2)


def box(x0: float, y0: float, x1: float, y1: float) -> Points:
    """An upright rectangle."""
    return polygon((x0, y0), (x1, y0), (x1, y1), (x0, y1))


def rounded(*corners: Pair) -> Points:
    """A closed outline through soft corners: each of three rounds cuts every corner at a quarter of its sides."""
    points = np.array(corners, float)
    for _ in range(3):
        after = np.roll(points, -1, 0)
        points = np.stack([0.75 * points + 0.25 * after, 0.25 * points + 0.75 * after], 1).reshape(-1, 2)
    return points


def bezier(p: Pair, q: Pair, r: Pair, n: int = 14) -> Points:
    """A quadratic curve from p to r pulled towards q."""
    t = np.linspace(0, 1, n)[:, None]
    return (1 - t) ** 2 * np.array(p) + 2 * t * (1 - t) * np.array(q) + t**2 * np.array(r)


def ribbon(path: ArrayLike, start: float, end: float | None = None, *, middle: float | None = None) -> Points:
    """A band along a path (N, 2) whose half width goes from `start` to `end` (through `middle`), with rounded ends."""
    path = np.asarray(path, float)
    last = start if end is None else end
    at = np.linspace(0, 1, len(path))
    half = np.interp(at, (0, 0.5, 1), (start, (start + last) / 2 if middle is None else middle, last))
    along = np.gradient(path, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-9
    side = np.stack([-along[:, 1], along[:, 0]], 1) * half[:, None]
    t = np.linspace(0, np.pi, 7)[1:-1, None]
    head = path[-1] + np.cos(t) * side[-1] + np.sin(t) * along[-1] * half[-1]
    tail = path[0] - np.cos(t) * side[0] - np.sin(t) * along[0] * half[0]
    return np.concatenate([path + side, head, (path - side)[::-1], tail])


def profile(heights: tuple[float, ...], half_widths: tuple[float, ...], n: int = 44) -> Points:
    """A body of revolution seen from the side: half widths at heights (ascending), smoothly joined."""
    y = np.linspace(heights[0], heights[-1], n)
    half = np.interp(y, heights, half_widths)
    for _ in range(3):
        half = np.convolve(np.pad(half, 2, mode="edge"), np.full(5, 0.2), "valid")
    return mirrored(half, y)


def mirrored(half: Points, y: Points) -> Points:
    """An outline that is as wide to the left as to the right: half widths (N,) at heights y (N,)."""
    return np.concatenate([np.stack([half, y], 1), np.stack([-half, y], 1)[::-1]])


def petal(
    x: float, y: float, length: float, width: float, angle: float, *, belly: float = 0.55, tip: float = 1.0
) -> Points:
    """A lobe growing from (x, y) in direction `angle`, `width` at `belly`; `tip` < 1 rounds its ends."""
    t = np.linspace(0, 1, 18)
    power = np.log(0.5) / np.log(belly)
    half = width * np.sin(np.pi * t**power) ** tip
    lobe = np.concatenate([np.stack([length * t, half], 1), np.stack([length * t, -half], 1)[::-1]])
    return turn(lobe, angle, to=(x, y))
