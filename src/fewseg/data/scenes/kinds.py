"""The twenty classes of `scenes`: each function draws the parts of one individual from a random stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from fewseg.data.scenes import texture
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
    mirrored,
    petal,
    polar,
    polygon,
    profile,
    ribbon,
    rounded,
    turn,
)
from fewseg.data.scenes.texture import Rng

UP = np.pi / 2


class Kind(NamedTuple):
    """A class: its name, how its parts are drawn, and how far an individual may tilt (radians) or bend."""

    name: str
    build: Callable[[Rng], Iterator[Part]]
    tilt: float = 0.35
    bend: float = 0.12


def star(rng: Rng) -> Iterator[Part]:
    """A star of folded arms: every arm has a bright and a dark face."""
    arms, inner = int(rng.integers(5, 8)), rng.uniform(0.36, 0.56)
    steps = np.abs(((np.arange(arms * 8) / 8 + 0.5) % 1) - 0.5) * 2
    fold = 1 / ((1 - steps) + steps / inner)
    yield Part(polar(fold), texture.arms, MAIN, arms, relief=0.5)


def fish(rng: Rng) -> Iterator[Part]:
    """A side view: scaled body, rayed tail and fins, gill and eye; the head is at the left."""
    deep, tail = rng.uniform(0.34, 0.58), rng.uniform(0.35, 0.6)
    t = np.linspace(0, 1, 26)
    half = deep * np.sin(np.pi * t**0.8) ** 0.75 * (1 - 0.35 * t) + 0.09 * t
    x = -1 + 1.6 * t
    body = np.concatenate([np.stack([x, -half], 1), np.stack([x, 0.9 * half], 1)[::-1]])
    notch = rng.uniform(0.72, 0.9)
    back = polygon((0.5, 0), (1.0, -tail), (1.08, -0.8 * tail), (notch, 0.02), (1.08, 0.8 * tail), (1.0, tail))
    crest = rng.uniform(0.2, 0.42)
    top = polygon((-0.45, -0.6 * deep), (-0.2, -deep - crest), (0.3, -0.7 * deep - 0.4 * crest), (0.4, -0.25 * deep))
    low = polygon((-0.1, 0.6 * deep), (0.15, deep + 0.7 * crest), (0.35, 0.3 * deep))
    side = petal(-0.3, 0.22 * deep, 0.42, 0.14, 0.5)
    face = body[(body[:, 0] < -0.5)]
    cheek = bezier((-0.48, float(face[:, 1].min())), (-0.26, 0), (-0.48, float(face[:, 1].max())))
    middle = len(face) // 2
    head = np.concatenate([face[:middle], cheek, face[middle:]])
    mouth = ribbon(bezier((-0.97, 0.16 * deep), (-0.87, 0.22 * deep), (-0.79, 0.14 * deep)), 0.016)
    for fin, x, y in ((back, 0.2, 0), (top, 0, 0.3), (low, 0, -0.2)):
        yield Part(fin, texture.rays, ACCENT, 40, relief=0.4, frame=Frame(x, y))
    yield Part(body, texture.scales, MAIN, rng.uniform(4.5, 7))
    yield Part(head, tone=MAIN, shade=0.82, relief=0.7)
    yield Part(mouth, tone=DARK, relief=0)
    yield Part(side, texture.rays, ACCENT, 34, relief=0.4, frame=Frame(-0.45, 0.1))
    yield from _eye(-0.74, -0.22 * deep, 0.085)


def mushroom(rng: Rng) -> Iterator[Part]:
    """A dotted cap over rayed gills and a fibrous stem with a skirt."""
    wide, high = rng.uniform(0.75, 1.1), rng.uniform(0.5, 1.0)
    stem, lean = rng.uniform(0.14, 0.3), rng.uniform(-0.15, 0.15)
    t = np.linspace(np.pi, 2 * np.pi, 30)
    rise = np.abs(np.sin(t)) ** rng.uniform(0.7, 1.2)
    dome = np.stack([wide * np.cos(t), -high * rise], 1)
    rim = np.stack([wide * np.cos(t[::-1]), 0.16 * rise[::-1]], 1)
    stalk = ribbon(bezier((0, 0), (lean, 0.5), (lean, 1.05)), stem * 0.8, stem * rng.uniform(1, 1.6), middle=stem)
    skirt = polygon((-stem, 0.3), (stem, 0.3), (1.7 * stem, 0.48), (0, 0.54), (-1.7 * stem, 0.48))
    yield Part(stalk, texture.fibres, PALE, 9, frame=Frame(angle=UP, unit=0.5))
    yield Part(skirt, texture.rays, PALE, 40, shade=0.95, frame=Frame(0, -0.3))
    yield Part(ellipse(0, 0, wide * 0.98, 0.2), texture.rays, PALE, 50, shade=0.72, frame=Frame(0, -0.15), relief=0.3)
    yield Part(np.concatenate([dome, rim]), texture.dots, MAIN, rng.uniform(2.4, 3.6))


def gear(rng: Rng) -> Iterator[Part]:
    """A toothed wheel of turned metal with a bore, a raised hub and bolt holes."""
    teeth, depth = int(rng.integers(9, 17)), rng.uniform(0.13, 0.24)
    t = np.linspace(0, teeth, teeth * 12, endpoint=False) % 1
    tooth = np.clip((0.27 - np.abs(t - 0.5)) / 0.09 + 0.5, 0, 1)
    hub, bore = rng.uniform(0.3, 0.4), rng.uniform(0.14, 0.24)
    yield Part(polar(1 - depth + depth * tooth), texture.turned, MAIN, 16, relief=0.8)
    yield Part(ellipse(0, 0, 0.92 - depth - 0.06), texture.turned, MAIN, 22, shade=0.78, relief=0.2)
    yield Part(ellipse(0, 0, hub), texture.turned, ACCENT, 16)
    bolts = int(rng.integers(3, 7))
    yield from (Part(turn(ellipse(0.55, 0, 0.1, n=24), 2 * np.pi * k / bolts), cut=True) for k in range(bolts))
    yield Part(ellipse(0, 0, bore), cut=True)


def owl(rng: Rng) -> Iterator[Part]:
    """A perched bird from the front: feathered belly, folded wings, eared head, two large eyes, beak and feet."""
    fat, ear = rng.uniform(0.5, 0.66), rng.uniform(0.12, 0.28)
    body = profile((-0.85, -0.55, -0.25, 0.3, 0.8, 0.95), (0.3, 0.44, 0.46, fat, 0.42 * fat + 0.1, 0.1))
    yield from (Part(ellipse(s * 0.16, 0.98, 0.13, 0.07), tone=ACCENT) for s in (1, -1))
    yield from (Part(polygon((s * 0.14, -0.8), (s * 0.42, -0.82 - ear), (s * 0.44, -0.5)), tone=MAIN) for s in (1, -1))
    yield Part(body, texture.feathers, MAIN, rng.uniform(4, 6))
    for s in (1, -1):
        yield Part(petal(s * 0.4, -0.25, 1.15, 0.2, UP + s * 0.12), texture.feathers, MAIN, 6, shade=0.72)
    size = rng.uniform(0.17, 0.22)
    for x, y in ((0.21, -0.52), (-0.21, -0.52)):
        yield Part(ellipse(x, y, size * 1.25), texture.rays, ACCENT, 26, frame=Frame(x, y), relief=0.3)
        yield Part(ellipse(x, y, size * 0.8), tone=PALE, relief=0.5)
        yield Part(ellipse(x, y, size * 0.5), tone=DARK)
    yield Part(polygon((-0.08, -0.44), (0.08, -0.44), (0, -0.2)), tone=WOOD)


def leaf(rng: Rng) -> Iterator[Part]:
    """One blade with a toothed edge, a midrib and side veins, on its stalk."""
    wide, teeth = rng.uniform(0.38, 0.72), rng.integers(7, 15)
    belly = rng.uniform(0.35, 0.58)
    t = np.linspace(0, 1, 90)
    half = wide * np.sin(np.pi * t ** (np.log(0.5) / np.log(belly))) ** 0.9
    half *= 1 - rng.uniform(0.08, 0.24) * ((t * teeth) % 1.0)
    blade = mirrored(half, 0.75 - 1.75 * t)
    stalk = ribbon(bezier((0, 0.7), (0, 0.95), (rng.uniform(-0.25, 0.25), 1.2)), 0.035, 0.05)
    yield Part(stalk, tone=WOOD)
    yield Part(blade, texture.veins, MAIN, rng.uniform(3, 4.5), relief=0.7)


def butterfly(rng: Rng) -> Iterator[Part]:
    """Four wings with eyespots and a dark margin, a segmented body and two feelers."""
    upper, lower = rng.uniform(-0.7, -0.4), rng.uniform(0.55, 0.85)
    reach, spread = rng.uniform(0.95, 1.2), rng.uniform(0.75, 1.15)
    tail = rng.uniform(0.0, 0.35)
    tip = ((0.45 * reach, upper - 0.25), (reach, upper - 0.2), (0.98 * reach, upper + 0.3))
    fore = rounded((0.02, -0.3), *tip, (0.7, 0.1), (0.02, 0.12))
    margin = ((0.78 * spread, 0.2), (0.7 * spread, lower), (0.45, lower + tail), (0.3, lower))
    hind = rounded((0.02, 0.0), (0.55, 0.0), *margin, (0.02, 0.4))
    for wing, x, y, unit in ((hind, 0.46 * spread, 0.6 * lower, 0.36), (fore, 0.66 * reach, upper + 0.12, 0.42)):
        for side in (1, -1):
            frame = Frame(side * x, y, float(np.arctan2(y, side * x)), unit)
            yield Part(wing * (side, 1), texture.eyespot, MAIN, rng.uniform(1.0, 1.3), frame=frame, relief=0.3)
    for side in (1, -1):
        feeler = bezier((0, -0.4), (side * 0.08, -0.8), (side * 0.36, -0.92))
        yield Part(ribbon(feeler, 0.018, 0.04), tone=DARK, relief=0)
    yield Part(ellipse(0, 0.08, 0.1, 0.5), texture.stripes, DARK, 4, frame=Frame(angle=UP))
    yield Part(ellipse(0, -0.42, 0.11), tone=DARK)


def house(rng: Rng) -> Iterator[Part]:
    """Brick walls, a tiled roof with a chimney, a door and lit windows."""
    wide, high, eave = rng.uniform(0.62, 0.85), rng.uniform(0.75, 1.0), rng.uniform(0.08, 0.18)
    peak = rng.uniform(0.55, 0.85)
    ridge = rng.uniform(0.0, 0.4)
    x = rng.choice([-1, 1]) * rng.uniform(0.3, 0.45)
    roof = polygon((-wide - eave, 0.06), (-ridge - 0.02, -peak), (ridge + 0.02, -peak), (wide + eave, 0.06))
    yield Part(box(x - 0.1, -peak - 0.1, x + 0.1, -0.1), texture.bricks, ACCENT, 8, relief=0.3)
    yield Part(box(-wide, 0, wide, high), texture.bricks, MAIN, rng.uniform(5, 7), relief=0.3)
    yield Part(roof, texture.shingles, ACCENT, rng.uniform(5, 7), shade=0.85, relief=0.4)
    middle = rng.uniform(-0.3, 0.3) * wide
    door = box(middle - 0.14, high - 0.5, middle + 0.14, high)
    yield Part(door, texture.fibres, WOOD, 10, frame=Frame(angle=UP, unit=0.5))
    for w in (middle + 0.45, middle - 0.45):
        if abs(w) < wide - 0.14:
            yield Part(box(w - 0.14, 0.22, w + 0.14, 0.52), tone=PALE, relief=0.3)
            for d in (0, 0.12):
                yield Part(box(w - 0.11 + d, 0.25, w - 0.01 + d, 0.49), tone=DARK, relief=0, shade=1.8)


def crystal(rng: Rng) -> Iterator[Part]:
    """A cluster of pointed prisms, each with a bright, a middle and a dark face, on a rough matrix."""
    yield Part(blob(rng, 0, 0.75, 0.36) * (1.7, 1), texture.speckle, WOOD)
    count = int(rng.integers(3, 6))
    leans = np.linspace(-0.75, 0.75, count) + rng.uniform(-0.12, 0.12, count)
    for k in sorted(range(count), key=lambda j: -abs(leans[j])):
        long_ = rng.uniform(1.0, 1.3) if abs(leans[k]) > 0.3 else rng.uniform(1.45, 1.8)
        half = rng.uniform(0.16, 0.25)
        a, b = -half * 0.45, half * rng.uniform(0.2, 0.6)
        point, cut = (half * rng.uniform(-0.3, 0.3), -long_), rng.uniform(1.1, 1.8) * half
        outer, inner = cut - long_, cut * 1.15 - long_
        faces = (
            ((-half, 0), (half, 0), (half, outer), point, (-half, outer), 0.8, Frame()),  # the whole, under its faces
            ((-half, 0), (a, 0), (a, inner), point, (-half, outer), 0.82, Frame(angle=leans[k])),
            ((a, 0), (b, 0), (b, inner), point, (a, inner), 1.25, Frame(angle=leans[k])),
            ((b, 0), (half, 0), (half, outer), point, (b, inner), 0.55, Frame(angle=leans[k])),
        )
        for *corners, shade, frame in faces:
            face = turn(polygon(*corners), leans[k], to=(0.3 * leans[k], 0.8))
            yield Part(face, texture.frost, MAIN, 4, shade=shade, relief=0, frame=frame)


def vase(rng: Rng) -> Iterator[Part]:
    """A thrown pot with painted bands, a lip, a dark mouth and, often, two handles."""
    neck, belly, lip = rng.uniform(0.16, 0.3), rng.uniform(0.5, 0.72), rng.uniform(0.28, 0.46)
    foot, waist = rng.uniform(0.24, 0.4), rng.uniform(-0.1, 0.35)
    body = profile((-1, -0.9, -0.62, waist, 0.85, 1), (lip, lip * 0.9, neck, belly, foot, foot * 1.1))
    if rng.random() < 0.6:
        for s in (1, -1):
            handle = bezier((s * neck, -0.66), (s * (belly + 0.45), -0.75), (s * belly * 0.9, waist - 0.1), 18)
            yield Part(ribbon(handle, 0.06), tone=MAIN, shade=0.9)
    yield Part(body, texture.bands, MAIN, rng.uniform(1.6, 2.4), frame=Frame(0, waist))
    yield Part(ellipse(0, -0.99, lip, 0.1), tone=ACCENT, relief=0.6)
    yield Part(ellipse(0, -0.98, lip * 0.82, 0.06), tone=DARK, relief=0)


def turtle(rng: Rng) -> Iterator[Part]:
    """Seen from above: a shell of plates with a rim, four flippers, head with eyes, and tail."""
    wide, long_ = rng.uniform(0.52, 0.68), rng.uniform(0.68, 0.8)
    fore, hind = rng.uniform(-0.7, -0.2), rng.uniform(0.7, 1.1)
    yield Part(petal(0, 0.6 * long_, 0.42, 0.08, UP), tone=ACCENT)
    for side in (1, -1):
        for angle, y, length, width in ((fore, -0.5, 0.72, 0.17), (hind, 0.4, 0.55, 0.15)):
            limb = petal(0.25, y * long_, length + 0.1, width, angle + rng.uniform(-0.15, 0.15), tip=0.6) * (side, 1)
            yield Part(limb, texture.scales, ACCENT, 8)
    y = -long_ - 0.12
    yield Part(ribbon([(0, -0.5), (0, -0.7), (0, y)], 0.15, 0.2), texture.scales, ACCENT, 9)
    yield from _eye(-0.12, y - 0.06, 0.055)
    yield from _eye(0.12, y - 0.06, 0.055)
    yield Part(ellipse(0, 0, wide, long_), texture.stripes, MAIN, 10, shade=0.7, frame=Frame(angle=np.pi / 4))
    yield Part(ellipse(0, 0, wide * 0.87, long_ * 0.88), texture.plates, MAIN, rng.uniform(1.7, 2.3))


def flower(rng: Rng) -> Iterator[Part]:
    """A ring of streaked petals (sometimes two) around a seeded centre."""
    count, heart = int(rng.integers(5, 10)), rng.uniform(0.22, 0.36)
    width = rng.uniform(0.75, 1.15) * np.pi * 0.62 / count
    tip = rng.uniform(0.45, 0.9)
    start = rng.uniform(0, 6.28)
    rings = ((1.0, 0.0, 1.0), (0.72, 0.5, 1.12)) if rng.random() < 0.4 else ((1.0, 0.0, 1.0),)
    for length, shift, shade in rings:
        for k in range(count):
            angle = start + 2 * np.pi * (k + shift) / count + rng.uniform(-0.07, 0.07)
            lobe = petal(0, 0, length * rng.uniform(0.9, 1.05), width * length, angle, belly=0.66, tip=tip)
            yield Part(lobe, texture.streaks, MAIN, 12, shade=shade, frame=Frame(0, 0, angle))
    yield Part(ellipse(0, 0, heart), texture.seeds, ACCENT, 9)


def umbrella(rng: Rng) -> Iterator[Part]:
    """An open canopy of panels with a scalloped edge, a tip, a shaft and a hooked handle."""
    wide, high, scallops = rng.uniform(0.95, 1.15), rng.uniform(0.55, 0.85), int(rng.integers(5, 8))
    t = np.linspace(np.pi, 2 * np.pi, 36)
    dome = np.stack([wide * np.cos(t), high * np.sin(t)], 1)
    x = np.linspace(1, -1, scallops * 8 + 1)
    edge = np.stack([wide * x, -0.13 * np.abs(np.sin((x + 1) / 2 * scallops * np.pi)) + 0.02], 1)
    hook = np.concatenate(
        [[(0.0, -0.3), (0.0, 0.3), (0.0, 0.7)], bezier((0, 0.85), (0, 1.15), (0.17, 1.12)), [(0.3, 1.08), (0.32, 0.9)]]
    )
    yield Part(ribbon(hook, 0.045, 0.065), texture.fibres, WOOD, 6)
    yield Part(ribbon([(0, -high + 0.1), (0, -high), (0, -high - 0.18)], 0.035), tone=WOOD)
    yield Part(np.concatenate([dome, edge]), texture.panels, MAIN, scallops, frame=Frame(0, -high, 0, wide))


def shell(rng: Rng) -> Iterator[Part]:
    """A coiled shell: a logarithmic spiral whose whorls carry cross ribs, with a pale mouth."""
    growth = rng.uniform(0.15, 0.2)
    t = np.linspace(-2 * np.pi, 0, 70)
    outer = np.exp(growth * t)[:, None] * np.stack([np.cos(t), np.sin(t)], 1)
    lip = rng.uniform(0.25, 0.4)
    mouth_in = float(np.exp(-growth * 2 * np.pi))
    middle = ((1 + mouth_in) / 2, lip * 0.1)
    mouth = ellipse(*middle, (1 - mouth_in) / 2 + 0.01, lip * 0.55)
    yield Part(np.concatenate([outer, [[0.7, lip * 0.5]]]), texture.coil, MAIN, growth)
    yield Part(mouth, tone=PALE, relief=0.7)
    yield Part(ellipse(middle[0], middle[1] + 0.02, (1 - mouth_in) / 2.9, lip * 0.34), tone=DARK, relief=0.4, shade=1.3)


def guitar(rng: Rng) -> Iterator[Part]:
    """A waisted body of grained wood with a ringed sound hole, bridge, fretted neck and pegs."""
    lower, upper, waist = rng.uniform(0.5, 0.62), rng.uniform(0.38, 0.46), rng.uniform(0.3, 0.36)
    half = ((upper * 1.1, -0.06), (upper * 1.15, 0.36), (waist, 0.5), (lower * 1.1, 0.6), (lower * 1.15, 1.26))
    body = rounded(*half, *((-x, y) for x, y in reversed(half)))
    yield from (Part(ellipse(s * 0.19, y, 0.06, 0.04, n=14), tone=PALE) for s in (1, -1) for y in (-1.0, -1.12, -1.24))
    yield Part(polygon((-0.1, -0.9), (-0.15, -1.32), (0.15, -1.32), (0.1, -0.9)), texture.grain, WOOD, 5, shade=0.8)
    yield Part(body, texture.grain, MAIN, rng.uniform(3, 5), frame=Frame(angle=UP))
    yield Part(ellipse(0, 0.42, 0.21), texture.turned, ACCENT, 22, relief=0.2, frame=Frame(0, 0.42))
    yield Part(ellipse(0, 0.42, 0.16), tone=DARK, relief=0)
    yield Part(box(-0.085, -0.95, 0.085, 0.3), texture.stripes, WOOD, 4, shade=0.65, frame=Frame(angle=UP), relief=0.4)
    yield Part(box(-0.2, 0.84, 0.2, 0.93), tone=DARK, relief=0.5)
    for x in (-0.05, 0, 0.05):
        yield Part(ribbon([(x, -1.0), (x, 0.0), (x, 0.9)], 0.011), tone=PALE, relief=0)


def cactus(rng: Rng) -> Iterator[Part]:
    """A ribbed, spiny column with bent arms, now and then with a flower on top."""
    thick = rng.uniform(0.2, 0.3)
    sides = [1, -1] if rng.random() < 0.75 else [int(rng.choice([1, -1]))]
    for side in sides:
        y, out, up = rng.uniform(-0.1, 0.45), rng.uniform(0.5, 0.72), rng.uniform(0.4, 0.75)
        arm = bezier((0, y), (side * out * 1.1, y + 0.12), (side * out, y - up), 20)
        frame = Frame(side * out, 0, 0, thick * 0.8)
        yield Part(ribbon(arm, thick * 0.62), texture.ribs, MAIN, 2.2, frame=frame)
    trunk = ribbon([(0, y) for y in np.linspace(1, -0.8, 12)], thick, thick * rng.uniform(0.8, 1.05))
    yield Part(trunk, texture.ribs, MAIN, 2.5, frame=Frame(0, 0, 0, thick))
    if rng.random() < 0.5:
        for angle in (-2.5, -2.0, -1.57, -1.1, -0.6):
            yield Part(petal(0, -0.92, 0.28, 0.08, angle), texture.streaks, ACCENT, 10)


def beetle(rng: Rng) -> Iterator[Part]:
    """Seen from above: two spotted wing cases with a seam, neck plate, head, feelers and six jointed legs."""
    wide, long_ = rng.uniform(0.46, 0.66), rng.uniform(0.66, 0.8)
    for side in (1, -1):
        for y, reach, drop in ((-0.35, 0.5, -0.45), (0.05, 0.52, 0.05), (0.4, 0.45, 0.5)):
            knee = (side * (wide + 0.55 * reach), y + 0.3 * drop)
            leg = bezier((side * 0.3, y), knee, (side * (wide + 0.75 * reach), y + 1.1 * drop + rng.uniform(-0.1, 0.1)))
            yield Part(ribbon(leg, 0.06, 0.035), tone=DARK, relief=0.3)
        feeler = bezier((side * 0.1, -0.9), (side * 0.2, -1.2), (side * 0.45, -1.25))
        yield Part(ribbon(feeler, 0.025, 0.045), tone=DARK, relief=0)
    yield Part(ellipse(0, -0.9, 0.2, 0.17), tone=DARK)
    yield Part(ellipse(0, -0.62, wide * 0.74, 0.26), texture.speckle, DARK, shade=1.25)
    yield Part(ellipse(0, 0.12, wide, long_), texture.cases, MAIN, rng.uniform(1.8, 2.6), frame=Frame(0, 0.12))


def balloon(rng: Rng) -> Iterator[Part]:
    """A hot-air balloon: striped gores, ropes and a woven basket."""
    wide, waist = rng.uniform(0.7, 0.85), rng.uniform(0.12, 0.2)
    t = np.linspace(0, 1, 30)
    half = wide * np.sqrt(np.clip(1 - (1 - t / 0.42) ** 2, 0, 1))
    half = np.where(t > 0.42, waist + (wide - waist) * np.cos(np.clip((t - 0.42) / 0.58, 0, 1) * UP) ** 0.85, half)
    envelope = mirrored(half, -1.15 + 1.75 * t)
    for s in (1, -0.3, 0.3, -1):
        yield Part(ribbon([(s * waist, 0.55), (s * waist, 0.7), (s * 0.16, 0.88)], 0.016), tone=DARK, relief=0)
    yield Part(polygon((-0.19, 0.86), (0.19, 0.86), (0.15, 1.15), (-0.15, 1.15)), texture.weave, WOOD, 12)
    yield Part(envelope, texture.gores, MAIN, float(rng.integers(3, 6)), frame=Frame(0, -0.4, 0, wide))
    yield Part(box(-waist * 1.05, 0.53, waist * 1.05, 0.62), tone=ACCENT)


def wheel(rng: Rng) -> Iterator[Part]:
    """A wheel with a treaded tyre, a rim, see-through spokes and a hub."""
    tyre, spokes = rng.uniform(0.2, 0.3), int(rng.integers(5, 11))
    inner = 1 - tyre - 0.1
    yield Part(ellipse(0, 0, 1, n=64), texture.tread, DARK, float(rng.integers(22, 34)), shade=1.4)
    yield Part(ellipse(0, 0, 1 - tyre, n=56), texture.turned, MAIN, 14)
    yield Part(ellipse(0, 0, inner, n=48), cut=True)
    spoke = ribbon([(0.0, 0.0), (inner / 2, 0.0), (inner + 0.03, 0.0)], 0.085, 0.055)
    for angle in 2 * np.pi * np.arange(spokes) / spokes:
        yield Part(turn(spoke, angle), texture.fibres, MAIN, 8, frame=Frame(angle=angle))
    yield Part(ellipse(0, 0, 0.24), texture.turned, ACCENT, 14)
    yield Part(ellipse(0, 0, 0.09), tone=DARK)


def pineapple(rng: Rng) -> Iterator[Part]:
    """A barrel of diamond cells under a crown of stiff blades."""
    wide, long_ = rng.uniform(0.44, 0.6), rng.uniform(0.62, 0.75)
    count = int(rng.integers(7, 11))
    for k in rng.permutation(count):
        angle = -UP + (k / (count - 1) - 0.5) * rng.uniform(1.7, 2.1)
        blade = petal(0, 0.3 - long_, rng.uniform(0.75, 1.0), 0.11, angle, belly=0.4)
        shade, frame = rng.uniform(0.85, 1.15), Frame(0, 0.3 - long_, angle)
        yield Part(blade, texture.streaks, WOOD, 9, shade=shade, frame=frame)
    t = np.linspace(0, 2 * np.pi, 44, endpoint=False)
    squircle = np.stack([wide * np.sign(np.cos(t)) * np.abs(np.cos(t)) ** 0.8, 0.35 + long_ * np.sin(t)], 1)
    yield Part(squircle, texture.diamonds, MAIN, rng.uniform(2.6, 3.8), frame=Frame(0, 0.35))


def _eye(x: float, y: float, size: float) -> Iterator[Part]:
    yield Part(ellipse(x, y, size, n=20), tone=PALE, relief=0.5)
    yield Part(ellipse(x - 0.15 * size, y, 0.55 * size, n=16), tone=DARK, relief=0.5)


# Every five in a row are the novel classes of a fold. Each five mixes plants, animals and made things.
KINDS = (
    Kind("star", star, np.pi, 0.05),
    Kind("fish", fish, 0.7, 0.3),
    Kind("mushroom", mushroom),
    Kind("gear", gear, np.pi, 0.0),
    Kind("owl", owl, 0.3, 0.08),
    Kind("leaf", leaf, np.pi, 0.35),
    Kind("butterfly", butterfly, np.pi, 0.08),
    Kind("house", house, 0.15, 0.03),
    Kind("crystal", crystal, 0.4, 0.0),
    Kind("vase", vase, 0.3, 0.05),
    Kind("turtle", turtle, np.pi, 0.12),
    Kind("flower", flower, np.pi, 0.1),
    Kind("umbrella", umbrella, 0.6, 0.08),
    Kind("spiral shell", shell, np.pi, 0.0),
    Kind("guitar", guitar, np.pi, 0.0),
    Kind("cactus", cactus, 0.25, 0.12),
    Kind("beetle", beetle, np.pi, 0.1),
    Kind("balloon", balloon, 0.25, 0.06),
    Kind("wheel", wheel, np.pi, 0.0),
    Kind("pineapple", pineapple, 0.7, 0.12),
)
