"""Memory of a picture that does not fit into it: `python -m benchmarks.gigapixel [--side 45000]`

A made-up GeoTIFF of 45,000 x 45,000 pixels (2 gigapixels), discs on a ground, is segmented by the command line with one
support of 1,024 pixels cut from it, in a process of its own; what that takes at most is told beside the IoU with what
was drawn.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image
from rasterio.transform import from_origin
from rasterio.windows import Window

MOST = 1.5
"""GB, whatever the side."""
TILE = 1024
"""Side of the support, and of the blocks that are drawn."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=45_000)
    side = parser.parse_args().side
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(folder, side)
        words = ["segment", folder / "map.tif", "--class", "disc", "--support", folder / "s.png", "--mask"]
        words += [folder / "m.png", "--format", "gpkg", "--out", folder / "out"]
        began = time.monotonic()
        pid = os.posix_spawn(sys.executable, [sys.executable, "-m", "fewseg", *map(str, words)], os.environ)
        _, status, usage = os.wait4(pid, 0)
        if os.waitstatus_to_exitcode(status):
            raise SystemExit("it failed")
        mask = (folder / "out/map.tif").stat().st_size
        print(
            f"{side} x {side} pixels: {time.monotonic() - began:.0f} s, {usage.ru_maxrss / 1e6:.2f} GB at most, mask "
            f"{mask / 1e6:.1f} MB, IoU {iou(folder):.3f}"
        )
        sys.exit(usage.ru_maxrss / 1e6 >= MOST)


def draw(folder: Path, side: int) -> None:
    """A map, block by block, with the truth beside it; a support from its corner."""
    place = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_200_000, 0.1, 0.1)}
    how = {"driver": "GTiff", "height": side, "width": side, "dtype": "uint8", "tiled": True, "compress": "lzw"}
    with (
        rasterio.open(folder / "map.tif", "w", count=3, bigtiff="yes", **how, **place) as target,
        rasterio.open(folder / "truth.tif", "w", count=1, **how, **place) as truth,
    ):
        for top in range(0, side, TILE):
            for left in range(0, side, TILE):
                pixels, marked = block(top, left)
                window = Window(left, top, min(TILE, side - left), min(TILE, side - top))
                part = np.s_[: window.height, : window.width]
                target.write(np.moveaxis(pixels[part], 2, 0), window=window)
                truth.write(marked[part].astype(np.uint8), 1, window=window)
    pixels, marked = block(0, 0)
    Image.fromarray(pixels).save(folder / "s.png")
    Image.fromarray(marked).save(folder / "m.png")


def block(top: int, left: int) -> tuple[np.ndarray, np.ndarray]:
    """A part of the map (TILE, TILE, 3) with discs, and where they are."""
    rng = np.random.default_rng((top, left))
    y, x = np.mgrid[:TILE, :TILE]
    marked = np.zeros((TILE, TILE), bool)
    for _ in range(4):
        radius = rng.uniform(60, 140)
        cy, cx = rng.uniform(radius, TILE - radius, 2)
        marked |= (y - cy) ** 2 + (x - cx) ** 2 < radius**2
    ground = 90 + 20 * np.sin((top + y) / 300) + 20 * np.cos((left + x) / 400)
    pixels = np.stack([ground, ground + 20, ground - 10], 2)
    pixels[marked] = (190, 70, 50)
    return pixels.astype(np.uint8), marked


def iou(folder: Path) -> float:
    """Of the mask with the truth, block by block."""
    both = either = 0
    with rasterio.open(folder / "out/map.tif") as found, rasterio.open(folder / "truth.tif") as truth:
        for top in range(0, found.height, TILE):
            window = Window(0, top, found.width, min(TILE, found.height - top))
            one, other = found.read(1, window=window) > 0, truth.read(1, window=window) > 0
            both, either = both + (one & other).sum(), either + (one | other).sum()
    return both / max(either, 1)


if __name__ == "__main__":
    main()
