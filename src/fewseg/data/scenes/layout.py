"""Where things stand in a scene. Label maps are drawn from this geometry alone, without any shading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fewseg.data.scenes import texture
from fewseg.data.scenes.kinds import KINDS
from fewseg.data.scenes.outlines import WOOD, Pair, Part, Points, bezier, blob, ribbon
from fewseg.data.scenes.texture import Rng

SUPERSAMPLING = 3
"""Outlines are rounded to a third of a pixel: edges are smooth, and label maps are the same on any machine."""
_GRID = 96
"""Longest side of the grid on which placement is tried: it does not depend on the image's size, nor does the scene."""
_VISIBLE = 0.62
"""Share of an object that those in front of it must leave uncovered."""


@dataclass(frozen=True)
class Thing:
    """One individual in a scene; class 0 is clutter. Scene coordinates: the image's longest side is 1."""

    class_id: int
    parts: tuple[Part, ...]
    matrix: NDArray[np.float64]
    """(2, 2) from bent object coordinates to scene coordinates."""
    centre: Pair
    bend: float
    diameter: float

    @cached_property
    def outlines(self) -> list[Points]:
        """Every part's outline in scene coordinates."""
        return [bent(part.outline, self.bend) @ self.matrix.T + self.centre for part in self.parts]

    @cached_property
    def bounds(self) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1 in scene coordinates."""
        every = np.concatenate(self.outlines)
        return (*every.min(0), *every.max(0))

    def draw(self, draw: ImageDraw.ImageDraw, scale: float, value: int, *, origin: Pair = (0.0, 0.0)) -> None:
        """Fill the silhouette (holes left out) on a canvas whose pixels are 1 / `scale` wide."""
        for part, outline in zip(self.parts, self.outlines, strict=True):
            draw.polygon(pixels(outline - origin, scale), fill=0 if part.cut else value)


@dataclass(frozen=True)
class Scene:
    """Aspect, light and things, back to front."""

    shape: Pair
    """(height, width) with the longest 1."""
    light: float
    """Direction from which light falls, radians."""
    things: tuple[Thing, ...]

    def pixels(self, size: int) -> tuple[int, int]:
        """(H, W) of the image whose longest side is `size`."""
        return round(self.shape[0] * size), round(self.shape[1] * size)


def bent(points: Points, bend: float) -> Points:
    """Object coordinates with x shifted by the square of y: invertible, so that surfaces bend along."""
    return points + np.stack([bend * points[:, 1] ** 2, np.zeros(len(points))], 1)


def pixels(outline: Points, scale: float) -> list[tuple[int, int]]:
    """Integer polygon corners on a canvas whose pixels are 1 / `scale` wide."""
    return [(x, y) for x, y in np.rint(outline * scale - 0.5).astype(int).tolist()]


def arrange(rng: Rng, first: int, *, crowded: bool) -> Scene:
    """A scene around class `first`: that one object alone, or 3 to 6 of at least two classes among clutter."""
    aspect = np.exp(rng.uniform(-np.log(4 / 3), np.log(4 / 3)))
    shape = (1.0, aspect) if aspect < 1 else (1 / aspect, 1.0)
    light = rng.uniform(-0.85 * np.pi, -0.15 * np.pi)
    if not crowded:
        placed = _place(rng, shape, [first], (0.52, 0.85), inside=0.49)
        return Scene(shape, light, tuple(placed))
    wanted = [first, 1 + (first + int(rng.integers(0, len(KINDS) - 1))) % len(KINDS)]
    wanted += (1 + rng.integers(0, len(KINDS), int(rng.integers(1, 5)))).tolist()
    back = [_clutter(rng, shape) for _ in range(int(rng.integers(4, 11)))]
    front = [_clutter(rng, shape) for _ in range(int(rng.integers(0, 3)))]
    return Scene(shape, light, (*back, *_place(rng, shape, wanted, (0.4, 0.66)), *front))


def label_map(scene: Scene, size: int) -> NDArray[np.uint8]:
    """(H, W) uint8: 0 background, 1..20, 255 on a line of about two pixels along every visible outline."""
    h, w = scene.pixels(size)
    scale = size * SUPERSAMPLING
    fine = Image.new("L", (w * SUPERSAMPLING, h * SUPERSAMPLING))
    for number, thing in enumerate(scene.things, 1):
        if any(part.cut for part in thing.parts):
            silhouette = Image.new("L", fine.size)
            thing.draw(ImageDraw.Draw(silhouette), scale, 255)
            fine.paste(number, mask=silhouette)
        else:
            thing.draw(ImageDraw.Draw(fine), scale, number)
    ids = np.asarray(fine)[1::SUPERSAMPLING, 1::SUPERSAMPLING]
    labels = np.array([0, *(thing.class_id for thing in scene.things)], np.uint8)[ids]
    labels[_edges(np.where(labels > 0, ids, 0), max(1, round(size / 256)))] = 255
    return labels


def _edges(ids: NDArray[np.uint8], width: int) -> NDArray[np.bool_]:
    """Where a pixel differs from one of the `width` pixels before or after it in its row or column."""
    edges = np.zeros(ids.shape, bool)
    for numbers, near in ((ids, edges), (ids.T, edges.T)):
        changes = numbers[:, 1:] != numbers[:, :-1]
        for away in range(min(width, changes.shape[1])):
            near[:, 1 + away :] |= changes[:, : changes.shape[1] - away]
            near[:, : changes.shape[1] - away] |= changes[:, away:]
    return edges


def _individual(rng: Rng, class_id: int, diameter: float) -> Thing:
    kind = KINDS[class_id - 1]
    parts = list(kind.build(rng))
    angle, bend = rng.uniform(-kind.tilt, kind.tilt), rng.uniform(-kind.bend, kind.bend)
    flip = rng.choice([-1.0, 1.0])
    longer, shear = np.exp(rng.uniform(-0.22, 0.22)), rng.uniform(-0.15, 0.15)
    shape = np.array([[flip * longer, shear], [0, 1 / longer]])
    return _fit(class_id, parts, diameter, angle=angle, bend=bend, shape=shape)


def _fit(class_id: int, parts: list[Part], diameter: float, *, angle: float, bend: float, shape: NDArray) -> Thing:
    """The thing centred at (0, 0) and scaled until the mean of its longest and geometric mean extent is `diameter`."""
    c, s = np.cos(angle), np.sin(angle)
    matrix = np.array([[c, -s], [s, c]]) @ shape
    every = bent(np.concatenate([part.outline for part in parts]), bend) @ matrix.T
    low, high = every.min(0), every.max(0)
    extent = high - low
    scale = diameter / (0.5 * (extent.max() + np.sqrt(extent.prod())))
    x, y = -scale * (low + high) / 2
    return Thing(class_id, tuple(parts), matrix * scale, (float(x), float(y)), bend, diameter)


def _moved(thing: Thing, x: float, y: float, scale: float = 1.0) -> Thing:
    centre = (thing.centre[0] * scale + x, thing.centre[1] * scale + y)
    return replace(thing, matrix=thing.matrix * scale, centre=centre, diameter=thing.diameter * scale)


def _clutter(rng: Rng, shape: Pair) -> Thing:
    """A pebble, twig or blade of no class, small and anywhere."""
    kind = rng.integers(0, 3)
    sway = rng.uniform(-0.4, 0.4)
    if kind == 0:
        part, size = Part(blob(rng, 0, 0, 1, 0.2), texture.speckle, int(rng.integers(0, 5))), rng.uniform(0.03, 0.1)
    elif kind == 1:
        part = Part(ribbon(bezier((-1, 0), (0, sway), (1, 0)), 0.08, 0.05), texture.fibres, WOOD)
        size = rng.uniform(0.1, 0.24)
    else:
        part, size = Part(ribbon(bezier((-1, 0), (0, sway * 2), (1, 0)), 0.09, 0.005)), rng.uniform(0.1, 0.22)
    thing = _fit(0, [part], size, angle=rng.uniform(-np.pi, np.pi), bend=0.0, shape=np.eye(2))
    return _moved(thing, rng.uniform(0, shape[1]), rng.uniform(0, shape[0]))


def _place(rng: Rng, shape: Pair, wanted: Sequence[int], sizes: Pair, *, inside: float = 0.4) -> list[Thing]:
    """Things of the `wanted` classes that leave each other visible: a crowded one shrinks, in the end it is dropped."""
    grid = (round(shape[0] * _GRID), round(shape[1] * _GRID))
    placed: list[Thing] = []
    owner = np.zeros(grid, np.uint8)
    areas: list[int] = []
    for class_id in wanted:
        original = _individual(rng, class_id, rng.uniform(*sizes) * min(shape))
        for attempt in range(24 if len(placed) < 3 else 8):
            scale = 0.93 ** max(0, attempt - 3)
            thing = _moved(original, *_spot(rng, original, shape, scale * inside), scale)
            mask = _coarse(thing, grid)
            after = np.where(mask, np.uint8(len(placed) + 1), owner)
            kept = np.bincount(after.ravel(), minlength=len(placed) + 2)[1:-1]
            if np.all(kept >= _VISIBLE * np.array(areas)):
                placed.append(thing)
                areas.append(int(mask.sum()))
                owner = after
                break
    return placed


def _spot(rng: Rng, thing: Thing, shape: Pair, reach: float) -> Pair:
    """A random centre at least `reach` of the thing's width and height from the image's border."""
    x0, y0, x1, y1 = thing.bounds
    margins = min(reach * (x1 - x0), shape[1] / 2), min(reach * (y1 - y0), shape[0] / 2)
    x, y = (float(rng.uniform(margin, side - margin)) for margin, side in zip(margins, shape[::-1], strict=True))
    return x, y


def _coarse(thing: Thing, grid: tuple[int, int]) -> NDArray[np.bool_]:
    image = Image.new("1", (grid[1], grid[0]))
    thing.draw(ImageDraw.Draw(image), _GRID, 1)
    return np.asarray(image)
