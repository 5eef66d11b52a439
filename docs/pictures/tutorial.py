"""The pictures of "Teach once, find everywhere": `python docs/pictures/tutorial.py scenes/` draws scenes, runs what the
page says on them, and writes its pictures here; `scenes/` keeps the photos and all that came of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from fewseg.data.captions import sheet, words
from fewseg.data.sets.scenes import Scenes

HERE = Path(__file__).parent
CLASS, SUPPORTS, PHOTOS = "mushroom", 4, 8


def draw(folder: Path) -> None:
    """Scenes with the class, four of them with masks, and two without it."""
    source = Scenes(subset="test", level="complex", images=120, size=320)
    value = source.class_names.index(CLASS) + 1
    (folder / "photos").mkdir(parents=True)
    for number, i in enumerate(source.index.images_of(value, min_pixels=1500)[: SUPPORTS + PHOTOS].tolist()):
        image, labels = source.load(i)
        if number < SUPPORTS:
            image.save(folder / f"{number + 1}.png")
            Image.fromarray((labels == value).astype(np.uint8) * 255).save(folder / f"{number + 1}_mask.png")
        else:
            image.save(folder / f"photos/{number + 1}.png")
    without = [i for i in range(len(source)) if value not in source.index.classes_in(i)]
    (folder / "without").mkdir()
    for i in without[:2]:
        source.load(i)[0].save(folder / f"without/{i}.png")


def run(folder: Path, *command: str) -> None:
    """A command of fewseg, in the folder; what it says is shown."""
    subprocess.run([sys.executable, "-m", "fewseg", *command], cwd=folder, check=True, env=os.environ)


def main(folder: Path) -> None:
    """Draw, teach, find, and keep the two pictures."""
    draw(folder)
    supports = [w for n in range(1, SUPPORTS + 1) for w in ("--support", f"{n}.png", "--mask", f"{n}_mask.png")]
    concept = f"{CLASS}.concept"
    run(folder, "teach", "--class", CLASS, *supports, "--absent", "without", "--out", concept)
    found = ("--instances", "--min-area", "50", "--review")
    run(folder, "segment", "--concept", concept, *found, "--out", "masks", "photos")
    run(folder, "next", "--concept", concept, "photos", "--count", "3")
    taught = Image.open(folder / f"{CLASS}_supports.png")
    taught.quantize(128).save(HERE / "teach.png", optimize=True)
    lines = (folder / "masks/results.csv").read_text().splitlines()
    head = lines[0].split(",")
    shown = []
    for line in (*lines[1:3], *lines[-2:]):
        row = dict(zip(head, line.split(","), strict=False))
        drawn = Image.open(folder / "masks" / row["mask"].replace(".png", "_overlay.jpg"))
        shown.append((drawn, [words(f"{row['photo']}: doubt {100 * float(row['doubt']):.0f} %")]))
    sheet(shown, columns=4, cell=240, text=13).quantize(128).save(HERE / "found.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
