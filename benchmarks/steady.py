"""What the last frame as a further support does to masks in videos: IoU, and flicker.

`python -m benchmarks.steady [CLIPS]` draws clips: an object of the built-in scenes moves over another scene, with noise
and changing light; then comes a scene without it, then it is back. The first frame, marked, is the support. Flicker is
how many pixels change from a frame to the next where the truth does not, as a share of the object's; in the scene
without it nothing is to be marked.
"""

from __future__ import annotations

import sys
import time
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewseg import FewShotPredictor
from fewseg.data.sets.scenes import Scenes
from fewseg.progress import Bars
from fewseg.segment.steady import Steady

SIZE, THING = 320, 150
PART = 8
"""Frames before the cut, of the other scene, and after it."""
NOISE, LIGHT = 10.0, 0.06


class Clip(NamedTuple):
    frames: list[NDArray[np.uint8]]
    truths: list[NDArray[np.uint8]]
    """(H, W) {0, 1, 255 ignore}."""


def clip(number: int) -> Clip:
    """A clip of an object."""
    simple = Scenes(subset="test", level="simple", images=60, size=SIZE)
    ground = Scenes(subset="test", level="complex", images=60, size=2 * SIZE)
    rng = np.random.default_rng([7, number])
    value = 1 + number % len(simple.class_names)
    without = [i for i in range(len(ground)) if value not in ground.index.classes_in(i)]
    scene, other = (np.asarray(ground.load(without[int(i)])[0]) for i in rng.choice(len(without), 2, replace=False))
    image, labels = simple.load(int(simple.index.images_of(value)[0]))
    thing, outline = cut(np.asarray(image), labels, value)
    start, end = rng.uniform(0, SIZE - THING, (2, 2))
    pan = rng.uniform(0, SIZE / 2, (2, 2))
    frames, truths = [], []
    for t in range(3 * PART):
        share = t / (3 * PART)
        away = PART <= t < 2 * PART
        top, left = (pan[0] * (1 - share) + pan[1] * share).astype(int)
        frame = (other if away else scene)[top : top + SIZE, left : left + SIZE].astype(float)
        truth = np.zeros((SIZE, SIZE), np.uint8)
        if not away:
            y, x = (start * (1 - share) + end * share).astype(int)
            window = slice(y, y + THING), slice(x, x + THING)
            frame[window][outline > 0] = thing[outline > 0]
            truth[window] = outline
        frame = frame * (1 + LIGHT * rng.normal()) + rng.normal(0, NOISE, frame.shape)
        frames.append(np.rint(frame.clip(0, 255)).astype(np.uint8))
        truths.append(truth)
    return Clip(frames, truths)


def cut(
    pixels: NDArray[np.uint8], labels: NDArray[np.uint8], value: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """An object of a scene in a square of `THING` pixels, and where it is {0, 1, 255 its outline}."""
    rows, columns = np.flatnonzero((labels == value).any(1)), np.flatnonzero((labels == value).any(0))
    window = slice(max(0, rows[0] - 2), rows[-1] + 3), slice(max(0, columns[0] - 2), columns[-1] + 3)
    inside = np.where(labels[window] == value, 1, np.where(labels[window] == 255, 255, 0)).astype(np.uint8)
    image = Image.fromarray(pixels[window]).resize((THING, THING), Image.Resampling.BILINEAR)
    return np.asarray(image), np.asarray(Image.fromarray(inside).resize((THING, THING), Image.Resampling.NEAREST))


class Measured(NamedTuple):
    iou: float
    flicker: float
    stale: float
    """Marked after the cut to the other scene, as a share of the object."""


def measure(masks: list[NDArray[np.bool_]], truths: list[NDArray[np.uint8]]) -> Measured:
    """Of a clip."""
    right = union = 0
    changed = []
    area = float(np.mean([(truth == 1).sum() for truth in truths if truth.any()]))
    for t, (mask, truth) in enumerate(zip(masks, truths, strict=True)):
        known = truth != 255
        if truth.any():
            right += int((mask & (truth == 1)).sum())
            union += int(((mask | (truth == 1)) & known).sum())
        if t and truth.any() == truths[t - 1].any():
            same = known & (truth == truths[t - 1])
            changed.append((mask != masks[t - 1])[same].sum() / area)
    stale = float(np.mean([m.sum() / area for m, t in zip(masks, truths, strict=True) if not t.any()]))
    return Measured(right / max(union, 1), float(np.mean(changed)), stale)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    for method in ("lite", "dense"):
        predictor = FewShotPredictor(method)
        found: dict[str, list[Measured]] = {"each frame alone": [], "steady": []}
        seconds = dict.fromkeys(found, 0.0)
        for number in Bars()(range(count), f"clips by {method}", count):
            drawn = clip(number)
            predictor.set_support(drawn.frames[0], drawn.truths[0])
            for name, rows in found.items():
                finder = Steady(predictor) if name == "steady" else predictor
                began = time.perf_counter()
                results = [finder.predict_each(frame)["object"] for frame in drawn.frames]
                seconds[name] += time.perf_counter() - began
                rows.append(measure([result.proba_if(0.5) > 0.5 for result in results], drawn.truths))
        for name, rows in found.items():
            iou, flicker, stale = (100 * np.mean([row[i] for row in rows]) for i in range(3))
            told = f"IoU {iou:.1f}, flicker {flicker:.1f}, marked without it {stale:.1f} %"
            print(f"{method}, {name}: {told}; {seconds[name] / count / (3 * PART):.2f} s a frame")
        better = sum(two.flicker < one.flicker for one, two in zip(*found.values(), strict=True))
        print(f"{method}: less flicker in {better} of {count} clips")


if __name__ == "__main__":
    main()
