"""What `fewseg segment` takes with the shipped graphs, and with the same model in torch: `python -m benchmarks.light`.

Every round runs the command in fresh processes, by turns with either runtime, on made photos: one of 0.3 megapixels,
one of 12, and a folder of many of 0.3, whose time for one more photo is told. Seconds are medians, memory is the
largest resident size of a process. `--rounds 3 --photos 40 --threads 2`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

SIZES = {"0.3 MP": (640, 480), "12 MP": (4000, 3000)}


def write_photo(path: Path, size: tuple[int, int], seed: int) -> None:
    """A JPEG of soft colours with some grain."""
    rng = np.random.default_rng(seed)
    soft = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    grain = rng.integers(-12, 13, (size[1], size[0], 1))
    Image.fromarray((np.asarray(soft) + grain).clip(0, 255).astype(np.uint8)).save(path, quality=90)


def write_photos(work: Path, many: int) -> None:
    """A support with its mask, a photo of each size, and a folder of them."""
    write_photo(work / "support.jpg", SIZES["0.3 MP"], 0)
    mask = np.zeros(SIZES["0.3 MP"][::-1], np.uint8)
    mask[150:300, 200:400] = 255
    Image.fromarray(mask).save(work / "mask.png")
    for told, size in SIZES.items():
        write_photo(work / f"{told}.jpg", size, 1)
    (work / "many").mkdir()
    for number in range(1 + many):
        write_photo(work / "many" / f"{number}.jpg", SIZES["0.3 MP"], number)


def segment(runtime: str, photos: Path, work: Path, threads: int) -> tuple[float, float]:
    """Seconds and peak memory in MB of the command on a file or folder."""
    support = ["--support", work / "support.jpg", "--mask", work / "mask.png"]
    words = ["segment", photos, *support, "--runtime", runtime, "--out", work / "out"]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "fewseg", *map(str, words)], env=environment, stdout=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"fewseg segment --runtime {runtime} failed")
    return time.perf_counter() - start, used.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--photos", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runtimes", nargs="+", default=["graphs", "torch"])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        # elsewhere: a process's peak counts what the one that started it held
        writing = get_context("spawn").Process(target=write_photos, args=(work, given.photos))
        writing.start()
        writing.join()
        what = {told: work / f"{told}.jpg" for told in SIZES} | {"many": work / "many"}
        found: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for _ in range(given.rounds):
            for told, photos in what.items():
                for runtime in given.runtimes:
                    found.setdefault((told, runtime), []).append(segment(runtime, photos, work, given.threads))
    for (told, runtime), values in found.items():
        seconds, memory = (median(column) for column in zip(*values, strict=True))
        if told == "many":
            alone = median(value for value, _ in found["0.3 MP", runtime])
            print(f"{runtime}: one more photo of 0.3 MP {(seconds - alone) / given.photos:.3f} s, {memory:.0f} MB")
        else:
            print(f"{runtime}: one photo of {told} {seconds:.2f} s, {memory:.0f} MB")


if __name__ == "__main__":
    main()
