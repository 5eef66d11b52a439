"""The made and mineral things of `scenes`: each function draws one individual's parts from a random stream."""

from __future__ import annotations

import numpy as np

from fewseg.data.scenes.outlines import (
    ACCENT,
    DARK,
    MAIN,
    PALE,
    WOOD,
    Frame,
    Part,
    bezier,
    blob,
    box,
    ellipse,
    polar,
    polygon,
    profile,
    ribbon,
    rounded,
    turn,
)

Rng = np.random.Generator
UP = np.pi / 2


def star(rng: Rng) -> list[Part]:
    """A star of folded arms: every arm has a bright and a dark face."""
    arms, inner = int(rng.integers(5, 8)), rng.uniform(0.36, 0.56)
    steps = np.abs(((np.arange(arms * 8) / 8 + 0.5) % 1) - 0.5) * 2
    fold = 1 / ((1 - steps) + steps / inner)
    return [Part(polar(fold), "arms", MAIN, arms, relief=0.5)]


def gear(rng: Rng) -> list[Part]:
    """A toothed wheel of turned metal with a bore, a raised hub and bolt holes."""
    teeth, depth = int(rng.integers(9, 17)), rng.uniform(0.13, 0.24)
    t = np.linspace(0, teeth, teeth * 12, endpoint=False) % 1
    tooth = np.clip((0.27 - np.abs(t - 0.5)) / 0.09 + 0.5, 0, 1)
    hub, bore = rng.uniform(0.3, 0.4), rng.uniform(0.14, 0.24)
    parts = [
        Part(polar(1 - depth + depth * tooth), "turned", MAIN, 16, relief=0.8),
        Part(ellipse(0, 0, 0.92 - depth - 0.06), "turned", MAIN, 22, shade=0.78, relief=0.2),
        Part(ellipse(0, 0, hub), "turned", ACCENT, 16),
    ]
    bolts = int(rng.integers(3, 7))
    parts += [Part(turn(ellipse(0.55, 0, 0.1, n=24), 2 * np.pi * k / bolts), cut=True) for k in range(bolts)]
    return [*parts, Part(ellipse(0, 0, bore), cut=True)]


def vase(rng: Rng) -> list[Part]:
    """A thrown pot with painted bands, a lip, a dark mouth and, often, two handles."""
    neck, belly, lip = rng.uniform(0.16, 0.3), rng.uniform(0.5, 0.72), rng.uniform(0.28, 0.46)
    foot, waist = rng.uniform(0.24, 0.4), rng.uniform(-0.1, 0.35)
    body = profile((-1, -0.9, -0.62, waist, 0.85, 1), (lip, lip * 0.9, neck, belly, foot, foot * 1.1))
    parts: list[Part] = []
    if rng.random() < 0.6:
        for s in (1, -1):
            handle = bezier((s * neck, -0.66), (s * (belly + 0.45), -0.75), (s * belly * 0.9, waist - 0.1), 18)
            parts.append(Part(ribbon(handle, 0.06), tone=MAIN, shade=0.9))
    return [
        *parts,
        Part(body, "bands", MAIN, rng.uniform(1.6, 2.4), frame=Frame(0, waist)),
        Part(ellipse(0, -0.99, lip, 0.1), tone=ACCENT, relief=0.6),
        Part(ellipse(0, -0.98, lip * 0.82, 0.06), tone=DARK, relief=0),
    ]


def house(rng: Rng) -> list[Part]:
    """Brick walls, a tiled roof with a chimney, a door and lit windows."""
    wide, high, eave = rng.uniform(0.62, 0.85), rng.uniform(0.75, 1.0), rng.uniform(0.08, 0.18)
    peak = rng.uniform(0.55, 0.85)
    ridge = rng.uniform(0.0, 0.4)
    x = rng.choice([-1, 1]) * rng.uniform(0.3, 0.45)
    roof = polygon((-wide - eave, 0.06), (-ridge - 0.02, -peak), (ridge + 0.02, -peak), (wide + eave, 0.06))
    parts = [
        Part(box(x - 0.1, -peak - 0.1, x + 0.1, -0.1), "bricks", ACCENT, 8, relief=0.3),
        Part(box(-wide, 0, wide, high), "bricks", MAIN, rng.uniform(5, 7), relief=0.3),
        Part(roof, "shingles", ACCENT, rng.uniform(5, 7), shade=0.85, relief=0.4),
    ]
    door = rng.uniform(-0.3, 0.3) * wide
    parts.append(
        Part(box(door - 0.14, high - 0.5, door + 0.14, high), "fibres", WOOD, 10, frame=Frame(angle=UP, unit=0.5))
    )
    for s in (1, -1):
        w = door + s * 0.45
        if abs(w) < wide - 0.14:
            parts.append(Part(box(w - 0.14, 0.22, w + 0.14, 0.52), tone=PALE, relief=0.3))
            parts += [
                Part(box(w - 0.11 + d, 0.25, w - 0.01 + d, 0.49), "plain", DARK, relief=0, shade=1.8) for d in (0, 0.12)
            ]
    return parts


def crystal(rng: Rng) -> list[Part]:
    """A cluster of pointed prisms, each with a bright, a middle and a dark face, on a rough matrix."""
    parts = [Part(blob(rng, 0, 0.75, 0.36) * (1.7, 1), "speckle", WOOD)]
    count = int(rng.integers(3, 6))
    leans = np.linspace(-0.75, 0.75, count) + rng.uniform(-0.12, 0.12, count)
    for k in sorted(range(count), key=lambda j: -abs(leans[j])):
        long_ = rng.uniform(1.0, 1.3) if abs(leans[k]) > 0.3 else rng.uniform(1.45, 1.8)
        half = rng.uniform(0.16, 0.25)
        a, b, point, cut = (
            -half * 0.45,
            half * rng.uniform(0.2, 0.6),
            half * rng.uniform(-0.3, 0.3),
            rng.uniform(1.1, 1.8) * half,
        )
        faces = (
            ((-half, 0), (a, 0), (a, cut * 1.15 - long_), (point, -long_), (-half, cut - long_), 0.82),
            ((a, 0), (b, 0), (b, cut * 1.15 - long_), (point, -long_), (a, cut * 1.15 - long_), 1.25),
            ((b, 0), (half, 0), (half, cut - long_), (point, -long_), (b, cut * 1.15 - long_), 0.55),
        )
        seat = (0.3 * leans[k], 0.8)
        whole = turn(
            polygon((-half, 0), (half, 0), (half, cut - long_), (point, -long_), (-half, cut - long_)),
            leans[k],
            to=seat,
        )
        parts.append(Part(whole, "frost", MAIN, 4, shade=0.8, relief=0))
        for *corners, shade in faces:
            face = turn(polygon(*corners), leans[k], to=seat)
            parts.append(Part(face, "frost", MAIN, 4, shade=shade, relief=0, frame=Frame(angle=leans[k])))
    return parts


def umbrella(rng: Rng) -> list[Part]:
    """An open canopy of panels with a scalloped edge, a tip, a shaft and a hooked handle."""
    wide, high, scallops = rng.uniform(0.95, 1.15), rng.uniform(0.55, 0.85), int(rng.integers(5, 8))
    t = np.linspace(np.pi, 2 * np.pi, 36)
    dome = np.stack([wide * np.cos(t), high * np.sin(t)], 1)
    x = np.linspace(1, -1, scallops * 8 + 1)
    edge = np.stack([wide * x, -0.13 * np.abs(np.sin((x + 1) / 2 * scallops * np.pi)) + 0.02], 1)
    hook = np.concatenate(
        [[(0.0, -0.3), (0.0, 0.3), (0.0, 0.7)], bezier((0, 0.85), (0, 1.15), (0.17, 1.12)), [(0.3, 1.08), (0.32, 0.9)]]
    )
    return [
        Part(ribbon(hook, 0.045, 0.065), "fibres", WOOD, 6),
        Part(ribbon(np.array([(0, -high + 0.1), (0, -high), (0, -high - 0.18)]), 0.035), tone=WOOD),
        Part(np.concatenate([dome, edge]), "panels", MAIN, scallops, frame=Frame(0, -high, 0, wide)),
    ]


def guitar(rng: Rng) -> list[Part]:
    """A waisted body of grained wood with a ringed sound hole, bridge, fretted neck and pegs."""
    lower, upper, waist = rng.uniform(0.5, 0.62), rng.uniform(0.38, 0.46), rng.uniform(0.3, 0.36)
    half = ((upper * 1.1, -0.06), (upper * 1.15, 0.36), (waist, 0.5), (lower * 1.1, 0.6), (lower * 1.15, 1.26))
    body = rounded(*half, *((-x, y) for x, y in reversed(half)))
    strings = [
        Part(ribbon(np.array([(x, -1.0), (x, 0.0), (x, 0.9)]), 0.011), tone=PALE, relief=0) for x in (-0.05, 0, 0.05)
    ]
    pegs = [Part(ellipse(s * 0.19, y, 0.06, 0.04, n=14), tone=PALE) for s in (1, -1) for y in (-1.0, -1.12, -1.24)]
    return [
        *pegs,
        Part(polygon((-0.1, -0.9), (-0.15, -1.32), (0.15, -1.32), (0.1, -0.9)), "grain", WOOD, 5, shade=0.8),
        Part(body, "grain", MAIN, rng.uniform(3, 5), frame=Frame(angle=UP)),
        Part(ellipse(0, 0.42, 0.21), "turned", ACCENT, 22, relief=0.2, frame=Frame(0, 0.42)),
        Part(ellipse(0, 0.42, 0.16), tone=DARK, relief=0),
        Part(box(-0.085, -0.95, 0.085, 0.3), "stripes", WOOD, 4, shade=0.65, frame=Frame(angle=UP), relief=0.4),
        Part(box(-0.2, 0.84, 0.2, 0.93), tone=DARK, relief=0.5),
        *strings,
    ]


def balloon(rng: Rng) -> list[Part]:
    """A hot-air balloon: striped gores, ropes and a woven basket."""
    wide, waist = rng.uniform(0.7, 0.85), rng.uniform(0.12, 0.2)
    t = np.linspace(0, 1, 30)
    half = wide * np.sqrt(np.clip(1 - (1 - t / 0.42) ** 2, 0, 1))
    half = np.where(t > 0.42, waist + (wide - waist) * np.cos(np.clip((t - 0.42) / 0.58, 0, 1) * UP) ** 0.85, half)
    y = -1.15 + 1.75 * t
    envelope = np.concatenate([np.stack([half, y], 1), np.stack([-half, y], 1)[::-1]])
    ropes = [
        Part(ribbon(np.array([(s * waist, 0.55), (s * waist, 0.7), (s * 0.16, 0.88)]), 0.016), tone=DARK, relief=0)
        for s in (1, -0.3, 0.3, -1)
    ]
    return [
        *ropes,
        Part(polygon((-0.19, 0.86), (0.19, 0.86), (0.15, 1.15), (-0.15, 1.15)), "weave", WOOD, 12),
        Part(envelope, "gores", MAIN, float(rng.integers(3, 6)), frame=Frame(0, -0.4, 0, wide)),
        Part(box(-waist * 1.05, 0.53, waist * 1.05, 0.62), tone=ACCENT),
    ]


def wheel(rng: Rng) -> list[Part]:
    """A wheel with a treaded tyre, a rim, see-through spokes and a hub."""
    tyre, spokes = rng.uniform(0.2, 0.3), int(rng.integers(5, 11))
    inner = 1 - tyre - 0.1
    parts = [
        Part(ellipse(0, 0, 1, n=64), "tread", DARK, float(rng.integers(22, 34)), shade=1.4),
        Part(ellipse(0, 0, 1 - tyre, n=56), "turned", MAIN, 14),
        Part(ellipse(0, 0, inner, n=48), cut=True),
    ]
    for k in range(spokes):
        bar = np.array([(0.0, 0.0), (inner / 2, 0.0), (inner + 0.03, 0.0)])
        parts.append(
            Part(
                turn(ribbon(bar, 0.085, 0.055), 2 * np.pi * k / spokes),
                "fibres",
                MAIN,
                8,
                frame=Frame(angle=2 * np.pi * k / spokes),
            )
        )
    return [*parts, Part(ellipse(0, 0, 0.24), "turned", ACCENT, 14), Part(ellipse(0, 0, 0.09), tone=DARK)]
