"""The surfaces of things in `scenes`, one function each, and the noise that they and the grounds are made with.

A surface is `f(u, v, amount, noise) -> (mix, shade)`. `u` and `v` (h, w) are coordinates in the part's frame, about
-1..1; `amount` is its count of stripes, dots or the like; `noise` (h, w) is in -1..1. `mix` in 0..1 blends the part's
colour to its partner's, `shade` multiplies the brightness.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Rng = np.random.Generator
Shape = tuple[int, int]
Array = NDArray[np.floating[Any]]
Look = tuple[Array, Array]
"""Share of the partner's colour and brightness."""
Surface = Callable[[Array, Array, float, Array], Look]
TAU = 2 * np.pi


def fractal(rng: Rng, shape: Shape, *, cells: float, octaves: int, fade: float = 0.55, stretch: float = 1.0) -> Array:
    """(H, W) noise of about -1..1: octaves of random grids, `cells` over the longest side at first."""
    h, w = shape
    total = np.zeros(shape, np.float32)
    weight, norm = 1.0, 0.0
    for octave in range(octaves):
        step = max(h, w) / (cells * 2**octave)
        rows, columns = int(h / step) + 3, int(w / (step * stretch)) + 3
        if step < 1.5:
            break
        grid = Image.fromarray(rng.uniform(-1, 1, (rows, columns)).astype(np.float32))
        area = (0.5, 0.5, 0.5 + w / (step * stretch), 0.5 + h / step)
        total += weight * np.asarray(grid.resize((w, h), Image.Resampling.BICUBIC, box=area))
        norm += weight**2
        weight *= fade
    return total * np.float32(1.3 / np.sqrt(max(norm, 1e-6)))


def soft(x: Array, width: float = 0.12) -> Array:
    """0 below zero, 1 above, with a ramp of `width` against jagged edges."""
    return np.clip(x * np.float32(1 / width) + np.float32(0.5), 0, 1)


def _wave(x: Array) -> Array:
    return np.cos(x * np.float32(TAU))


def _saw(x: Array) -> Array:
    """Distance 0..0.5 to the nearest integer."""
    return np.abs(x - np.rint(x))


def _flat(noise: Array) -> Array:
    return 1 + 0.06 * noise


def plain(u: Array, v: Array, amount: float, noise: Array) -> Look:
    """One colour, a little uneven."""
    return 0.15 * noise + 0.1, _flat(noise)


def stripes(u: Array, v: Array, amount: float, noise: Array) -> Look:
    """Straight bands across u."""
    return soft(_wave(u * amount / 2 + 0.05 * noise), 0.4), _flat(noise)


def rays(u: Array, v: Array, amount: float, noise: Array) -> Look:
    """Lines that spread from the frame's origin."""
    line = _wave(np.arctan2(v, u) * np.float32(amount / TAU))
    return 0.35 + 0.3 * line, 0.92 + 0.14 * line + 0.05 * noise


def scales(u: Array, v: Array, amount: float, noise: Array) -> Look:
    """Overlapping scales in columns."""
    x, y = u * amount * 1.3, v * amount * 1.3
    best_mix, best_shade = np.zeros_like(x), np.zeros_like(x)
    column = np.floor(x)
    for back in (1, 0):
        c = column + back
        dy = y - np.rint(y - 0.5 * (c % 2)) - 0.5 * (c % 2)
        far = np.hypot((x - c) * 0.9 + 0.25, dy * 1.25)
        inside = soft(0.72 - far, 0.15)
        best_mix = best_mix * (1 - inside) + inside * np.clip(far * 1.3 - 0.25, 0, 1)
        best_shade = best_shade * (1 - inside) + inside * (1.2 - 0.75 * far**2)
    return 0.8 * best_mix + 0.15 * noise, np.maximum(best_shade, 0.6) + 0.05 * noise


def dots(u: Array, v: Array, amount: float, noise: Array) -> Look:
    """Dots of uneven sizes in shifted rows."""
    x, y = u * amount + 0.12 * noise, v * amount * 1.1 + 0.1 * noise
    row = np.rint(y)
    x = x + 0.5 * (row % 2)
    cell = np.sin(np.rint(x) * 12.9 + row * 78.2) * 0.5 + 0.5
    dot = soft(0.2 + 0.2 * cell - np.hypot(x - np.rint(x), y - row), 0.1)
    return dot, _flat(noise) + 0.1 * dot


def fibres(u: Array, v: Array, amount: float, noise: Array) -> Look:
    """Fine lines along u."""
    line = _wave(v * amount + 0.5 * noise) * (0.6 + 0.4 * _wave(v * amount * 0.37))
    return 0.25 + 0.22 * line, 0.95 + 0.12 * line + 0.06 * noise


def veins(u: Array, v: Array, amount: float, noise: Array) -> Look:
    """A leaf's midrib, side veins and fine veins."""
    x = np.abs(u)
    rib = soft(0.025 - x, 0.03)
    along = v + 0.75 * x - 0.25 * x * x + 0.02 * noise
    vein = soft(0.055 - _saw(along * amount), 0.08)
    fine = soft(0.08 - _saw((v - 0.9 * x) * amount * 3), 0.2)
    quilt = 0.12 * _wave(along * amount)
    line = np.maximum(rib, np.maximum(vein * 0.85, 0.25 * fine))
    return line + 0.12 * noise, 1 - quilt + 0.12 * noise


def eyespot(u: Array, v: Array, amount: float, noise: Array) -> Look:
    """A butterfly wing's ringed spot, dark margin and veins."""
    far = np.hypot(u, v) * amount + 0.06 * noise
    ring = soft(far - 0.28, 0.12) * soft(0.52 - far, 0.12)
    edge = soft(far - 1.1, 0.3) * soft(u + 0.1, 0.8)
    vein = _wave(np.arctan2(v, u + 1.6) * np.float32(34 / TAU)) * soft(far - 0.55, 0.3)
    pupil = soft(0.2 - far, 0.1)
    root = soft(-u - 0.9, 1.2)
    mix = np.maximum(ring, edge * 0.9) + 0.15 * vein + 0.35 * root
    return mix, (1 - 0.65 * pupil) * (1 - 0.5 * edge) + 0.08 * vein - 0.12 * root + 0.05 * noise


def plates(u: Array, v: Array, amount: float, noise: Array) -> Look:
    """The hexagonal plates of a tortoise, with growth rings."""
    x, y = u * amount, v * amount
    best = np.full(x.shape, 9, np.float32)
    hexagon = best
    for shift in (0.0, 0.5):
        cx, cy = np.rint(x - shift) + shift, (np.rint(y / 1.732 - shift) + shift) * 1.732
        dx, dy = np.abs(x - cx), np.abs(y - cy)
        far = np.hypot(dx, dy)
        hexagon = np.where(far < best, np.maximum(dx, 0.5 * dx + 0.866 * dy), hexagon)
        best = np.minimum(best, far)
    seam = soft(hexagon - 0.44, 0.06)
    growth = 0.5 + 0.5 * _wave(best * 5)
    mix = np.maximum(seam, 0.4 * growth * soft(best - 0.15, 0.1))
    return mix, (1.18 - 0.5 * best) * (1 - 0.35 * seam) + 0.07 * noise


def streaks(u: Array, v: Array, amount: float, noise: Array) -> Look:
    """Streaks along a petal, darker at its root."""
    line = _wave(np.arctan2(v, np.maximum(u, 0.02)) * np.float32(amount * 4 / TAU) + 0.3 * noise)
    base = np.clip(1.1 - 1.9 * np.abs(u), 0, 1)
    return base * (0.6 + 0.4 * line), 0.82 + 0.28 * np.clip(u, 0, 1) + 0.08 * line + 0.04 * noise


def seeds(u: Array, v: Array, amount: float, noise: Array) -> Look:
    """Packed round seeds in shifted rows."""
    x, y = u * amount * 1.4, v * amount * 1.4
    x = x + 0.5 * (np.rint(y) % 2)
    far = np.hypot(x - np.rint(x), y - np.rint(y))
    return 0.7 * soft(0.32 - far, 0.2), 1.15 - 0.7 * far + 0.1 * noise


def coil(u: Array, v: Array, amount: float, noise: Array) -> Look:
    """The whorls of a logarithmic spiral that grows by `amount` a radian, with cross ribs."""
    radius = np.hypot(u, v) + 1e-4
    angle = np.arctan2(v, u)
    turn = (np.log(radius) / np.float32(amount) - angle) / np.float32(TAU)
    across = turn - np.floor(turn)
    rib = _wave((angle + 1.3 * across) * np.float32(26 / TAU))
    seam = soft(np.minimum(across, 1 - across) - 0.05, 0.07)
    band = soft(0.12 - np.abs(across - 0.62), 0.1)
    tube = 0.42 + 0.8 * np.sin(np.pi * across) ** 0.8
    return np.maximum(0.3 + 0.3 * rib, 0.85 * band), (tube + 0.1 * rib) * (0.45 + 0.55 * seam) + 0.05 * noise


def ribs(u: Array, v: Array, amount: float, noise: Array) -> Look:
    """Upright ribs with spines."""
    groove = _wave(u * amount)
    spine = soft(0.16 - np.hypot(_saw(u * amount) * 0.8, _saw(v * 3 + 0.5 * (np.rint(u * amount) % 2))), 0.1)
    return np.maximum(0.12 - 0.1 * groove, spine * 0.7), 0.88 + 0.2 * groove + 0.15 * spine + 0.06 * noise


def speckle(u: Array, v: Array, amount: float, noise: Array) -> Look:
    """Grainy stone."""
    grain = np.sin(u * 61 + 7 * noise) * np.sin(v * 53 - 9 * noise)
    return 0.35 * soft(grain - 0.5, 0.4) + 0.2 * noise, 0.95 + 0.2 * noise + 0.08 * grain


def cases(u: Array, v: Array, amount: float, noise: Array) -> Look:
    """Two wing cases with a seam and spots."""
    seam = soft(0.022 - np.abs(u), 0.02)
    x, y = np.abs(u) * amount * 1.25 - 0.05, v * amount * 0.95
    far = np.hypot(x - np.rint(x - 0.5) - 0.5, y - np.rint(y))
    return soft(0.28 - far + 0.05 * noise, 0.09), (1 - 0.75 * seam) * _flat(noise)


def diamonds(u: Array, v: Array, amount: float, noise: Array) -> Look:
    """A barrel's diamond cells, each with a dot."""
    bulge = u * (1 + 0.25 * u * u)
    a, b = (bulge + 0.7 * v) * amount, (bulge - 0.7 * v) * amount
    da, db = _saw(a), _saw(b)
    groove = soft(0.1 - (0.5 - np.maximum(da, db)), 0.12)
    dot = soft(0.13 - np.hypot(da, db), 0.1)
    return np.maximum(groove * 0.7, dot), 1.22 - 0.62 * np.maximum(da, db) - 0.3 * groove + 0.06 * noise


def feathers(u: Array, v: Array, amount: float, noise: Array) -> Look:
    """Overlapping feathers in rows."""
    return scales(v, u, amount * 0.8, noise)


def arms(u: Array, v: Array, amount: float, noise: Array) -> Look:
    """The folded arms of a star: a bright and a dark face each."""
    sector = np.arctan2(v, u) * np.float32(amount / TAU)
    side = sector - np.rint(sector)
    face = soft(side, 0.03)
    gloss = 0.5 + 0.5 * _wave(np.hypot(u, v) * 5 + 0.3 * noise)
    return 0.45 * face + 0.2 * gloss, 0.7 + 0.5 * face + 0.06 * gloss + 0.04 * noise


def turned(u: Array, v: Array, amount: float, noise: Array) -> Look:
    """Turned metal: fine rings and a sheen."""
    radius = np.hypot(u, v)
    ring = _wave(radius * amount + 0.1 * noise)
    sheen = _wave(np.arctan2(v, u) * np.float32(2 / TAU) + 0.1)
    return 0.2 + 0.15 * ring, 0.95 + 0.09 * ring + 0.22 * sheen + 0.04 * noise


def bands(u: Array, v: Array, amount: float, noise: Array) -> Look:
    """Painted bands: lines, zigzags and solid stripes."""
    y = v * amount + 0.02 * noise
    zone = np.floor(y)
    inside = y - zone
    line = soft(0.06 - np.minimum(inside, 1 - inside), 0.05)
    zigzag = soft(0.1 - np.abs(inside - 0.5 - 0.5 * (_saw(u * amount * 2.2) - 0.25) * 1.6), 0.08)
    solid = np.where(zone % 3 == 2, np.float32(1), np.float32(0)) * soft(0.33 - np.abs(inside - 0.5), 0.06)
    return np.maximum(line, np.maximum(zigzag * (zone % 2 == 0), solid * 0.9)), _flat(noise)


def bricks(u: Array, v: Array, amount: float, noise: Array) -> Look:
    """Rows of bricks with mortar."""
    y = v * amount * 1.3
    row = np.floor(y)
    x = u * amount * 0.6 + 0.5 * (row % 2)
    mortar = soft(np.maximum(0.07 - np.minimum(y - row, row + 1 - y), (0.05 - _saw(x)) * 1.4), 0.07)
    tone = np.sin(np.floor(x) * 37.7 + row * 91.3)
    return 0.2 * tone + 0.1 + 0.5 * mortar, 0.95 + 0.13 * tone * (1 - mortar) + 0.12 * mortar + 0.08 * noise


def shingles(u: Array, v: Array, amount: float, noise: Array) -> Look:
    """Rows of round shingles."""
    y = v * amount * 1.2
    row = np.floor(y)
    x = u * amount + 0.5 * (row % 2)
    drop = y - row
    gap = soft(drop - 0.97 + 0.55 * (2 * _saw(x + 0.5) - 0.5) ** 2 * 2 - 0.15, 0.15)
    tone = np.sin(np.rint(x) * 51.7 + row * 23.9)
    return 0.2 + 0.2 * tone, (0.78 + 0.38 * drop) * (1 - 0.45 * gap) + 0.09 * tone + 0.05 * noise


def frost(u: Array, v: Array, amount: float, noise: Array) -> Look:
    """Translucent veined mineral."""
    vein = soft(0.3 - np.abs(noise), 0.5)
    return np.clip(0.25 + 0.5 * v + 0.3 * noise, 0, 1), 1 + 0.14 * vein + 0.12 * _wave(v * 1.3 + 0.4 * u)


def panels(u: Array, v: Array, amount: float, noise: Array) -> Look:
    """The panels of a canopy, spread from its tip."""
    x = u / np.maximum(np.sqrt(np.maximum(v, 0.003)) * 1.12, np.abs(u) * 0.9)
    seat = np.clip((x + 1) / 2, 0, 0.999) * amount
    piece = np.floor(seat)
    seam = soft(0.05 - _saw(seat), 0.05)
    mix = np.where(piece % 2 == 1, np.float32(0.9), np.float32(0))
    return mix, (1.12 - 0.5 * (seat - piece - 0.35) ** 2) * (1 - 0.3 * seam) + 0.04 * noise


def grain(u: Array, v: Array, amount: float, noise: Array) -> Look:
    """Sawn wood."""
    ring = _wave(v * amount + 0.22 * noise + 0.15 * u * u)
    fine = np.sin(v * 70 + 2 * noise)
    return 0.3 + 0.3 * ring + 0.05 * fine, 0.97 + 0.08 * ring + 0.04 * fine


def gores(u: Array, v: Array, amount: float, noise: Array) -> Look:
    """A balloon's gores with a zigzag belt."""
    half = np.sqrt(np.maximum(1.03 - np.where(v < 0, v * v, 0.42 * v * v), 0.02))
    seat = np.arcsin(np.clip(u / half, -1, 1)) * np.float32(amount / np.pi * 2)
    seam = soft(0.06 - _saw(seat), 0.06)
    belt = soft(0.16 - np.abs(v - 0.15), 0.03)
    zig = soft(_saw(seat) - 0.25 - 0.8 * (v - 0.15), 0.1)
    stripe = np.floor(seat) % 2
    return stripe * (1 - belt) + belt * zig, 1 - 0.22 * seam + 0.03 * noise


def weave(u: Array, v: Array, amount: float, noise: Array) -> Look:
    """Wickerwork."""
    over = np.sin(u * amount * np.pi) * np.sin(v * amount * np.pi)
    return 0.3 + 0.4 * soft(over, 0.6), 0.9 + 0.2 * np.abs(over) + 0.05 * noise


def tread(u: Array, v: Array, amount: float, noise: Array) -> Look:
    """A tyre's tread at its rim."""
    block = soft(0.25 - _saw(np.arctan2(v, u) * np.float32(amount / TAU)), 0.12)
    outer = soft(np.hypot(u, v) - 0.88, 0.03)
    return 0.1 * block, 0.9 + 0.9 * outer * (block - 0.5) + 0.07 * noise
