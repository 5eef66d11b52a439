"""A folder of thousands of photos: what a process holds does not depend on how many there are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fewseg.build import create_model
from fewseg.storage.saved import save_model

PHOTOS, WARM = 600, 300
"""How many photos are segmented, and after how many memory may grow no more; docs/reliability.md has the numbers."""
GROWTH = 4.0
"""MB: names and places in memory, not pictures; the pictures of the rest would take 34 MB, their masks 6 MB."""

PROGRAM = """
import json, re, sys
from pathlib import Path
from fewseg.cli import main as cli
from fewseg.data import images

megabytes, files = [], 0

def counted(plain):
    def read(file, *rule):
        global files
        files += Path(file).parent.name in ("photos", "out")
        if files % 100 == 0:
            own = re.search(r"RssAnon:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
            megabytes.append(int(own[1]) / 1024)
        return plain(file, *rule)
    return read

images.read_image, images.read_labels = counted(images.read_image), counted(images.read_labels)
try:
    cli.main()
finally:
    json.dump(megabytes, sys.stderr)
"""
"""`fewseg` itself, with the process's own memory (libraries' files apart) after every hundredth picture it read."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a marked photo, and PHOTOS photos of 40 sizes (links, which are read like any other)."""
    root = tmp_path_factory.mktemp("many")
    torch.manual_seed(0)
    save_model(create_model("prototype", backbone="timm/test_resnet", image_size=64), root / "model")
    (root / "photos").mkdir()
    sizes = np.random.default_rng(0).integers(40, 240, (40, 2))
    for number, (width, height) in enumerate(sizes):
        pixels = np.full((height, width, 3), 90, np.uint8)
        pixels[height // 4 : -height // 4, width // 4 : -width // 4] = (200, 40, 40)
        Image.fromarray(pixels).save(root / f"{number}.jpg")
    for number in range(PHOTOS):
        os.link(root / f"{number % len(sizes)}.jpg", root / "photos" / f"{number:04d}.jpg")
    with Image.open(root / "0.jpg") as photo:
        mask = Image.new("L", photo.size)
        mask.paste(255, (photo.width // 4, photo.height // 4, photo.width // 2, photo.height // 2))
        mask.save(root / "mask.png")
    return root


def growth(place: Path, *words: str) -> float:
    """MB by which the process's memory grew from the 300th picture to the last."""
    given = ["--model", "model", "--support", "0.jpg", "--mask", "mask.png", "--out", "out", *words, "photos"]
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, "segment", *given],
        capture_output=True,
        text=True,
        cwd=place,
        timeout=500,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=False,
    )
    assert found.returncode == 0, found.stderr
    megabytes = json.loads(found.stderr[found.stderr.rindex("[") :])
    assert len(megabytes) == PHOTOS // 100
    print(found.stdout, megabytes)  # noqa: T201
    return max(megabytes[WARM // 100 :]) - megabytes[WARM // 100 - 1]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to measure memory")
def test_hundreds_of_photos_are_segmented_in_constant_memory(place: Path) -> None:
    assert growth(place, "--format", "png", "--format", "coco") < GROWTH
    assert len(list((place / "out").glob("*_overlay.jpg"))) == PHOTOS
    # gone on with: every mask is read back for the COCO file
    assert growth(place, "--format", "png", "--format", "coco", "--resume") < GROWTH
