"""The plants, animals and shells of `scenes`: each function draws one individual's parts from a random stream."""

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
    ellipse,
    petal,
    polygon,
    profile,
    ribbon,
    rounded,
)

Rng = np.random.Generator


def _eye(x: float, y: float, size: float) -> list[Part]:
    return [
        Part(ellipse(x, y, size, n=20), tone=PALE, relief=0.5),
        Part(ellipse(x - 0.15 * size, y, 0.55 * size, n=16), tone=DARK, relief=0.5),
    ]


def fish(rng: Rng) -> list[Part]:
    """A side view: scaled body, rayed tail and fins, gill and eye; the head is at the left."""
    deep, tail = rng.uniform(0.34, 0.58), rng.uniform(0.35, 0.6)
    t = np.linspace(0, 1, 26)
    half = deep * np.sin(np.pi * t**0.8) ** 0.75 * (1 - 0.35 * t) + 0.09 * t
    x = -1 + 1.6 * t
    body = np.concatenate([np.stack([x, -half], 1), np.stack([x, 0.9 * half], 1)[::-1]])
    notch = rng.uniform(0.72, 0.9)
    fin = polygon((0.5, 0), (1.0, -tail), (1.08, -0.8 * tail), (notch, 0.02), (1.08, 0.8 * tail), (1.0, tail))
    crest = rng.uniform(0.2, 0.42)
    top = polygon((-0.45, -0.6 * deep), (-0.2, -deep - crest), (0.3, -0.7 * deep - 0.4 * crest), (0.4, -0.25 * deep))
    low = polygon((-0.1, 0.6 * deep), (0.15, deep + 0.7 * crest), (0.35, 0.3 * deep))
    side = petal(-0.3, 0.22 * deep, 0.42, 0.14, 0.5)
    face = body[(body[:, 0] < -0.5)]
    cheek = bezier((-0.48, float(face[:, 1].min())), (-0.26, 0), (-0.48, float(face[:, 1].max())))
    middle = len(face) // 2
    head = np.concatenate([face[:middle], cheek, face[middle:]])
    mouth = ribbon(bezier((-0.97, 0.16 * deep), (-0.87, 0.22 * deep), (-0.79, 0.14 * deep)), 0.016)
    rays = {"surface": "rays", "tone": ACCENT, "relief": 0.4}
    return [
        Part(fin, frame=Frame(0.2, 0), amount=40, **rays),
        Part(top, frame=Frame(0, 0.3), amount=40, **rays),
        Part(low, frame=Frame(0, -0.2), amount=40, **rays),
        Part(body, "scales", MAIN, rng.uniform(4.5, 7)),
        Part(head, tone=MAIN, shade=0.82, relief=0.7),
        Part(mouth, tone=DARK, relief=0),
        Part(side, frame=Frame(-0.45, 0.1), amount=34, **rays),
        *_eye(-0.74, -0.22 * deep, 0.085),
    ]


def mushroom(rng: Rng) -> list[Part]:
    """A dotted cap over rayed gills and a fibrous stem with a skirt."""
    wide, high = rng.uniform(0.75, 1.1), rng.uniform(0.5, 1.0)
    stem, lean = rng.uniform(0.14, 0.3), rng.uniform(-0.15, 0.15)
    t = np.linspace(np.pi, 2 * np.pi, 30)
    rise = np.abs(np.sin(t)) ** rng.uniform(0.7, 1.2)
    dome = np.stack([wide * np.cos(t), -high * rise], 1)
    rim = np.stack([wide * np.cos(t[::-1]), 0.16 * rise[::-1]], 1)
    stalk = ribbon(bezier((0, 0), (lean, 0.5), (lean, 1.05)), stem * 0.8, stem * rng.uniform(1, 1.6), middle=stem)
    skirt = polygon((-stem, 0.3), (stem, 0.3), (1.7 * stem, 0.48), (0, 0.54), (-1.7 * stem, 0.48))
    return [
        Part(stalk, "fibres", PALE, 9, frame=Frame(angle=np.pi / 2, unit=0.5)),
        Part(skirt, "rays", PALE, 40, shade=0.95, frame=Frame(0, -0.3)),
        Part(ellipse(0, 0, wide * 0.98, 0.2), "rays", PALE, 50, shade=0.72, frame=Frame(0, -0.15), relief=0.3),
        Part(np.concatenate([dome, rim]), "dots", MAIN, rng.uniform(2.4, 3.6)),
    ]


def leaf(rng: Rng) -> list[Part]:
    """One blade with a toothed edge, a midrib and side veins, on its stalk."""
    wide, teeth = rng.uniform(0.38, 0.72), rng.integers(7, 15)
    belly = rng.uniform(0.35, 0.58)
    t = np.linspace(0, 1, 90)
    half = wide * np.sin(np.pi * t ** (np.log(0.5) / np.log(belly))) ** 0.9
    half *= 1 - rng.uniform(0.08, 0.24) * ((t * teeth) % 1.0)
    blade = np.concatenate([np.stack([half, 0.75 - 1.75 * t], 1), np.stack([-half, 0.75 - 1.75 * t], 1)[::-1]])
    stalk = ribbon(bezier((0, 0.7), (0, 0.95), (rng.uniform(-0.25, 0.25), 1.2)), 0.035, 0.05)
    return [
        Part(stalk, tone=WOOD),
        Part(blade, "veins", MAIN, rng.uniform(3, 4.5), relief=0.7),
    ]


def butterfly(rng: Rng) -> list[Part]:
    """Four wings with eyespots and a dark margin, a segmented body and two feelers."""
    parts: list[Part] = []
    upper, lower = rng.uniform(-0.7, -0.4), rng.uniform(0.55, 0.85)
    reach, spread = rng.uniform(0.95, 1.2), rng.uniform(0.75, 1.15)
    tail = rng.uniform(0.0, 0.35)
    fore = rounded(
        (0.02, -0.3),
        (0.45 * reach, upper - 0.25),
        (reach, upper - 0.2),
        (0.98 * reach, upper + 0.3),
        (0.7, 0.1),
        (0.02, 0.12),
    )
    hind = rounded(
        (0.02, 0.0),
        (0.55, 0.0),
        (0.78 * spread, 0.2),
        (0.7 * spread, lower),
        (0.45, lower + tail),
        (0.3, lower),
        (0.02, 0.4),
    )
    for wing, x, y, unit in ((hind, 0.46 * spread, 0.6 * lower, 0.36), (fore, 0.66 * reach, upper + 0.12, 0.42)):
        for side in (1, -1):
            frame = Frame(side * x, y, float(np.arctan2(y, side * x)), unit)
            parts.append(Part(wing * (side, 1), "eyespot", MAIN, rng.uniform(1.0, 1.3), frame=frame, relief=0.3))
    for side in (1, -1):
        feeler = bezier((0, -0.4), (side * 0.08, -0.8), (side * 0.36, -0.92))
        parts.append(Part(ribbon(feeler, 0.018, 0.04), tone=DARK, relief=0))
    parts.append(Part(ellipse(0, 0.08, 0.1, 0.5), "stripes", DARK, 4, frame=Frame(angle=np.pi / 2)))
    return [*parts, Part(ellipse(0, -0.42, 0.11), tone=DARK)]


def turtle(rng: Rng) -> list[Part]:
    """Seen from above: a shell of plates with a rim, four flippers, head with eyes, and tail."""
    wide, long_ = rng.uniform(0.52, 0.68), rng.uniform(0.68, 0.8)
    fore, hind = rng.uniform(-0.7, -0.2), rng.uniform(0.7, 1.1)
    parts = [Part(petal(0, 0.6 * long_, 0.42, 0.08, np.pi / 2), tone=ACCENT)]
    for side in (1, -1):
        for angle, y, length, width in ((fore, -0.5, 0.72, 0.17), (hind, 0.4, 0.55, 0.15)):
            limb = petal(0.25, y * long_, length + 0.1, width, angle + rng.uniform(-0.15, 0.15), tip=0.6) * (side, 1)
            parts.append(Part(limb, "scales", ACCENT, 8))
    y = -long_ - 0.12
    parts.append(Part(ribbon(np.array([(0, -0.5), (0, -0.7), (0, y)]), 0.15, 0.2), "scales", ACCENT, 9))
    parts += [*_eye(-0.12, y - 0.06, 0.055), *_eye(0.12, y - 0.06, 0.055)]
    parts.append(Part(ellipse(0, 0, wide, long_), "stripes", MAIN, 10, shade=0.7, frame=Frame(angle=np.pi / 4)))
    return [*parts, Part(ellipse(0, 0, wide * 0.87, long_ * 0.88), "plates", MAIN, rng.uniform(1.7, 2.3))]


def flower(rng: Rng) -> list[Part]:
    """A ring of streaked petals (sometimes two) around a seeded centre."""
    count, heart = int(rng.integers(5, 10)), rng.uniform(0.22, 0.36)
    width = rng.uniform(0.75, 1.15) * np.pi * 0.62 / count
    tip = rng.uniform(0.45, 0.9)
    parts: list[Part] = []
    start = rng.uniform(0, 6.28)
    rings = ((1.0, 0.0, 1.0), (0.72, 0.5, 1.12)) if rng.random() < 0.4 else ((1.0, 0.0, 1.0),)
    for length, shift, shade in rings:
        for k in range(count):
            angle = start + 2 * np.pi * (k + shift) / count + rng.uniform(-0.07, 0.07)
            lobe = petal(0, 0, length * rng.uniform(0.9, 1.05), width * length, angle, belly=0.66, tip=tip)
            parts.append(Part(lobe, "streaks", MAIN, 12, shade=shade, frame=Frame(0, 0, angle)))
    return [*parts, Part(ellipse(0, 0, heart), "seeds", ACCENT, 9)]


def shell(rng: Rng) -> list[Part]:
    """A coiled shell: a logarithmic spiral whose whorls carry cross ribs, with a pale mouth."""
    growth, turns = rng.uniform(0.15, 0.2), 1.0
    t = np.linspace(-turns * 2 * np.pi, 0, 70)
    outer = np.exp(growth * t)[:, None] * np.stack([np.cos(t), np.sin(t)], 1)
    lip = rng.uniform(0.25, 0.4)
    mouth_in = float(np.exp(-growth * 2 * np.pi))
    middle = ((1 + mouth_in) / 2, lip * 0.1)
    mouth = ellipse(*middle, (1 - mouth_in) / 2 + 0.01, lip * 0.55)
    return [
        Part(np.concatenate([outer, [[0.7, lip * 0.5]]]), "coil", MAIN, growth),
        Part(mouth, tone=PALE, relief=0.7),
        Part(ellipse(middle[0], middle[1] + 0.02, (1 - mouth_in) / 2.9, lip * 0.34), tone=DARK, relief=0.4, shade=1.3),
    ]


def cactus(rng: Rng) -> list[Part]:
    """A ribbed, spiny column with bent arms, now and then with a flower on top."""
    thick = rng.uniform(0.2, 0.3)
    parts: list[Part] = []
    sides = [1, -1] if rng.random() < 0.75 else [int(rng.choice([1, -1]))]
    for side in sides:
        y, out, up = rng.uniform(-0.1, 0.45), rng.uniform(0.5, 0.72), rng.uniform(0.4, 0.75)
        arm = bezier((0, y), (side * out * 1.1, y + 0.12), (side * out, y - up), 20)
        frame = Frame(side * out, 0, 0, thick * 0.8)
        parts.append(Part(ribbon(arm, thick * 0.62), "ribs", MAIN, 2.2, frame=frame))
    trunk = ribbon(np.array([(0, y) for y in np.linspace(1, -0.8, 12)]), thick, thick * rng.uniform(0.8, 1.05))
    parts.append(Part(trunk, "ribs", MAIN, 2.5, frame=Frame(0, 0, 0, thick)))
    if rng.random() < 0.5:
        for angle in (-2.5, -2.0, -1.57, -1.1, -0.6):
            parts.append(Part(petal(0, -0.92, 0.28, 0.08, angle), "streaks", ACCENT, 10))
    return parts


def beetle(rng: Rng) -> list[Part]:
    """Seen from above: two spotted wing cases with a seam, neck plate, head, feelers and six jointed legs."""
    wide, long_ = rng.uniform(0.46, 0.66), rng.uniform(0.66, 0.8)
    parts: list[Part] = []
    for side in (1, -1):
        for y, reach, drop in ((-0.35, 0.5, -0.45), (0.05, 0.52, 0.05), (0.4, 0.45, 0.5)):
            knee = (side * (wide + 0.55 * reach), y + 0.3 * drop)
            leg = bezier((side * 0.3, y), knee, (side * (wide + 0.75 * reach), y + 1.1 * drop + rng.uniform(-0.1, 0.1)))
            parts.append(Part(ribbon(leg, 0.06, 0.035), tone=DARK, relief=0.3))
        feeler = bezier((side * 0.1, -0.9), (side * 0.2, -1.2), (side * 0.45, -1.25))
        parts.append(Part(ribbon(feeler, 0.025, 0.045), tone=DARK, relief=0))
    parts.append(Part(ellipse(0, -0.9, 0.2, 0.17), tone=DARK))
    parts.append(Part(ellipse(0, -0.62, wide * 0.74, 0.26), "speckle", DARK, shade=1.25))
    return [*parts, Part(ellipse(0, 0.12, wide, long_), "cases", MAIN, rng.uniform(1.8, 2.6), frame=Frame(0, 0.12))]


def pineapple(rng: Rng) -> list[Part]:
    """A barrel of diamond cells under a crown of stiff blades."""
    wide, long_ = rng.uniform(0.44, 0.6), rng.uniform(0.62, 0.75)
    parts: list[Part] = []
    count = int(rng.integers(7, 11))
    for k in rng.permutation(count):
        angle = -np.pi / 2 + (k / (count - 1) - 0.5) * rng.uniform(1.7, 2.1)
        blade = petal(0, 0.3 - long_, rng.uniform(0.75, 1.0), 0.11, angle, belly=0.4)
        parts.append(Part(blade, "streaks", WOOD, 9, shade=rng.uniform(0.85, 1.15), frame=Frame(0, 0.3 - long_, angle)))
    t = np.linspace(0, 2 * np.pi, 44, endpoint=False)
    squircle = np.stack([wide * np.sign(np.cos(t)) * np.abs(np.cos(t)) ** 0.8, 0.35 + long_ * np.sin(t)], 1)
    return [*parts, Part(squircle, "diamonds", MAIN, rng.uniform(2.6, 3.8), frame=Frame(0, 0.35))]


def owl(rng: Rng) -> list[Part]:
    """A perched bird from the front: feathered belly, folded wings, eared head, two large eyes, beak and feet."""
    fat, ear = rng.uniform(0.5, 0.66), rng.uniform(0.12, 0.28)
    body = profile((-0.85, -0.55, -0.25, 0.3, 0.8, 0.95), (0.3, 0.44, 0.46, fat, 0.42 * fat + 0.1, 0.1))
    parts = [Part(ellipse(s * 0.16, 0.98, 0.13, 0.07), tone=ACCENT) for s in (1, -1)]
    parts += [Part(polygon((s * 0.14, -0.8), (s * 0.42, -0.82 - ear), (s * 0.44, -0.5)), tone=MAIN) for s in (1, -1)]
    parts.append(Part(body, "feathers", MAIN, rng.uniform(4, 6)))
    parts += [
        Part(petal(s * 0.4, -0.25, 1.15, 0.2, np.pi / 2 + s * 0.12), "feathers", MAIN, 6, shade=0.72) for s in (1, -1)
    ]
    size = rng.uniform(0.17, 0.22)
    for s in (1, -1):
        parts.append(
            Part(ellipse(s * 0.21, -0.52, size * 1.25), "rays", ACCENT, 26, frame=Frame(s * 0.21, -0.52), relief=0.3)
        )
        parts.append(Part(ellipse(s * 0.21, -0.52, size * 0.8), tone=PALE, relief=0.5))
        parts.append(Part(ellipse(s * 0.21, -0.52, size * 0.5), tone=DARK))
    return [*parts, Part(polygon((-0.08, -0.44), (0.08, -0.44), (0, -0.2)), tone=WOOD)]
