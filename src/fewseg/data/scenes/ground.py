"""Grounds under the things of `scenes`: grass, sand, planks, cloth, tiles, water, stone, earth and a landscape."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fewseg.data.scenes.texture import Array, Rng, Shape, fractal, soft

Range = tuple[float, float]


def paint_ground(rng: Rng, shape: Shape) -> Array:
    """(H, W, 3) float32 in about 0..1: one ground of a random kind, with broad uneven light."""
    ground = GROUNDS[int(rng.integers(0, len(GROUNDS)))](rng, shape)
    patch = fractal(rng, shape, cells=2, octaves=2)
    return ground * (1 + np.float32(rng.uniform(0.05, 0.16)) * patch)[..., None]


def _colour(rng: Rng, hue: Range, rich: Range, bright: Range) -> NDArray[np.float32]:
    return np.array(colorsys.hsv_to_rgb(rng.uniform(*hue) % 1.0, rng.uniform(*rich), rng.uniform(*bright)), np.float32)


def _blend(a: Array, b: Array, t: Array) -> Array:
    return a + np.clip(t, 0, 1)[..., None] * (b - a)


def _axes(shape: Shape) -> tuple[Array, Array]:
    """Pixel positions x (1, W) and y (H, 1), the longest side being 1."""
    y, x = (np.arange(side, dtype=np.float32) / max(shape) for side in shape)
    return x[None], y[:, None]


def _grass(rng: Rng, shape: Shape) -> Array:
    base = _colour(rng, (0.18, 0.36), (0.35, 0.6), (0.3, 0.45))
    tip = _colour(rng, (0.14, 0.3), (0.3, 0.55), (0.5, 0.72))
    noise = fractal(rng, shape, cells=6, octaves=5, fade=0.7)
    lawn = np.clip(_blend(base * 0.75, tip * 0.85, 0.4 + 0.3 * noise), 0, 1)
    image = Image.fromarray((lawn * 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    longest = max(shape)
    starts = rng.uniform(0, 1, (900, 2)) * (shape[1], shape[0])
    blades = rng.normal(0, 1, (900, 2)) * (0.012, 0.01) * longest + (0, -0.04 * longest)
    tones = rng.uniform(0, 1, 900)
    for (x, y), (dx, dy), tone in zip(starts.tolist(), blades.tolist(), tones.tolist(), strict=True):
        r, g, b = (255 * (base * 0.7 * (1 - tone) + tip * tone)).astype(int).tolist()
        draw.line((x, y, x + dx, y + dy), fill=(r, g, b), width=1 if tone < 0.7 else max(1, longest // 170))
    return np.asarray(image, np.float32) * np.float32(1 / 255)


def _sand(rng: Rng, shape: Shape) -> Array:
    light = _colour(rng, (0.07, 0.13), (0.18, 0.4), (0.75, 0.92))
    noise = fractal(rng, shape, cells=3, octaves=4)
    x, y = _axes(shape)
    angle, waves = rng.uniform(0, 3.14), rng.uniform(9, 18)
    ripple = np.sin((np.cos(angle) * x + np.sin(angle) * y) * np.float32(6.28 * waves) + 2.2 * noise)
    grains = rng.standard_normal(shape, np.float32)
    return light * (0.9 + rng.uniform(0.02, 0.07) * ripple + 0.06 * noise + 0.035 * grains)[..., None]


def _planks(rng: Rng, shape: Shape) -> Array:
    wood = _colour(rng, (0.04, 0.11), (0.25, 0.6), (0.45, 0.75))
    upright = rng.random() < 0.5
    turned = (shape[1], shape[0]) if upright else shape
    grain = fractal(rng, turned, cells=26, octaves=3, stretch=10)
    boards = rng.uniform(3.2, 6.5)
    _, y = _axes(turned)
    row = np.floor(y * boards)
    tone = np.sin(row * 57.3 + rng.uniform(0, 6)) * 0.1
    gap = soft(0.02 - np.minimum(y * boards - row, row + 1 - y * boards), 0.03)
    ring = np.sin(y * np.float32(180) + 5 * grain + 20 * tone)
    value = (0.9 + tone + 0.1 * grain + 0.035 * ring) * (1 - 0.65 * gap)
    ground = wood * value[..., None]
    return np.ascontiguousarray(ground.transpose(1, 0, 2)) if upright else ground


def _cloth(rng: Rng, shape: Shape) -> Array:
    a = _colour(rng, (0, 1), (0.08, 0.42), (0.45, 0.9))
    related = rng.random() < 0.5
    b = a * np.float32(rng.uniform(0.65, 0.85)) if related else _colour(rng, (0, 1), (0.05, 0.35), (0.5, 0.9))
    x, y = _axes(shape)
    count = np.float32(6.28 * rng.uniform(4, 9))
    checked = rng.random() < 0.6
    plaid = 0.25 * (np.sin(x * count) > 0.55) + 0.25 * (np.sin(y * count) > 0.55) if checked else np.zeros(shape)
    thread = np.sin(x * 400) * np.sin(y * 400)
    fold = fractal(rng, shape, cells=2.5, octaves=2, stretch=rng.uniform(1, 2))
    return _blend(a, b, (plaid + 0.1).astype(np.float32)) * (0.95 + 0.05 * thread + 0.1 * fold)[..., None]


def _tiles(rng: Rng, shape: Shape) -> Array:
    a = _colour(rng, (0, 1), (0.04, 0.26), (0.55, 0.85))
    x, y = _axes(shape)
    angle, count = rng.uniform(-0.5, 0.5), rng.uniform(3.5, 7)
    u, v = (np.cos(angle) * x + np.sin(angle) * y) * count, (np.cos(angle) * y - np.sin(angle) * x) * count
    column, row = np.floor(u), np.floor(v)
    inside = np.minimum(np.minimum(u - column, column + 1 - u), np.minimum(v - row, row + 1 - v)).astype(np.float32)
    tone = np.sin(column * 12.99 + row * 78.23 + rng.uniform(0, 6)).astype(np.float32)
    marble = fractal(rng, shape, cells=5, octaves=5, fade=0.65)
    grout = soft(0.03 - inside, 0.03)
    tile = _blend(a, a * 0.82, 0.3 * np.abs(marble) + 0.25 + 0.25 * tone)
    return tile * (1 + 0.1 * soft(inside - 0.06, 0.05) - 0.3 * grout)[..., None]


def _water(rng: Rng, shape: Shape) -> Array:
    deep = _colour(rng, (0.47, 0.62), (0.45, 0.75), (0.32, 0.5))
    bright = _colour(rng, (0.47, 0.58), (0.15, 0.4), (0.7, 0.9))
    a = fractal(rng, shape, cells=7, octaves=3, stretch=1.9)
    b = fractal(rng, shape, cells=5, octaves=3, stretch=1.5)
    caustic = np.clip(1 - 2.2 * np.abs(a + 0.35 * b), 0, 1)
    return _blend(deep, bright, 0.2 + 0.18 * b + 0.45 * caustic**2)


def _stone(rng: Rng, shape: Shape) -> Array:
    a = _colour(rng, (0.03, 0.65), (0.02, 0.18), (0.45, 0.75))
    noise = fractal(rng, shape, cells=5, octaves=6, fade=0.7)
    crack = soft(0.035 - np.abs(fractal(rng, shape, cells=2.5, octaves=4)), 0.06)
    speck = rng.standard_normal(shape, np.float32)
    return a * (0.95 + 0.13 * noise - 0.3 * crack + 0.03 * speck)[..., None]


def _earth(rng: Rng, shape: Shape) -> Array:
    soil = _colour(rng, (0.03, 0.1), (0.3, 0.55), (0.38, 0.58))
    litter = _colour(rng, (0.04, 0.2), (0.3, 0.55), (0.55, 0.75))
    noise = fractal(rng, shape, cells=9, octaves=5, fade=0.75)
    fleck = fractal(rng, shape, cells=36, octaves=2)
    ground = _blend(soil * 0.85, litter, 0.25 + 0.15 * noise + 0.5 * soft(fleck - 0.9, 0.5))
    return ground * (1 + 0.1 * noise + 0.07 * fleck)[..., None]


def _landscape(rng: Rng, shape: Shape) -> Array:
    x, y = _axes(shape)
    bottom = shape[0] / max(shape)
    horizon = np.float32(rng.uniform(0.3, 0.65) * bottom)
    sky = _colour(rng, (0.53, 0.62), (0.25, 0.6), (0.7, 0.95))
    haze = _colour(rng, (0.02, 0.15), (0.03, 0.25), (0.85, 0.97))
    cloud = fractal(rng, shape, cells=3.5, octaves=5, stretch=1.8)
    clear = _blend(sky, haze, y / horizon * np.ones_like(x) * 0.8)
    air = _blend(clear, np.ones(3, np.float32), 0.75 * soft(cloud - 0.35, 1.0))
    ridge = horizon - np.float32(0.07) * np.abs(fractal(rng, (1, shape[1]), cells=3, octaves=4))
    hill = _blend(air, _colour(rng, (0.25, 0.6), (0.15, 0.4), (0.4, 0.6)), 0.75 * soft(y - ridge, 0.006))
    field = (_grass, _sand, _earth)[int(rng.integers(0, 3))](rng, shape)
    near = field * (0.8 + 0.3 * np.clip((y - horizon) / max(bottom - horizon, 0.1), 0, 1))[..., None]
    return _blend(hill, near, soft(y - horizon - 0.004 * cloud, 0.008))


GROUNDS = (_grass, _sand, _planks, _cloth, _tiles, _water, _stone, _earth, _landscape)
