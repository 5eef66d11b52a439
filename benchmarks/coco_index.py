"""Time and memory of the index of a COCO-sized file: `python -m benchmarks.coco_index [--annotations 600000]`.

Writes a file with as many images and annotations as COCO's train2014 (polygons of some 30 points, some in parts, one in
a hundred a crowd given by run lengths), then builds the index of `coco20i` from it. No photo is needed.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from fewseg.data.sets.coco20i import Coco20i


def write(path: Path, *, images: int, annotations: int) -> None:
    rng = np.random.default_rng(0)
    ids = [c for c in range(1, 91) if c not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
    with open(path, "w") as file:
        file.write('{"info": {}, "images": [')
        for i in range(images):
            entry = {"id": i, "file_name": f"COCO_train2014_{i:012d}.jpg", "height": 480, "width": 640}
            file.write(f"{',' * (i > 0)}{json.dumps(entry)}")
        file.write('], "annotations": [')
        for a in range(annotations):
            crowd = a % 100 == 0
            entry = {
                "segmentation": crowd_runs(rng) if crowd else polygons(rng),
                "iscrowd": int(crowd),
                "image_id": int(rng.integers(images)),
                "category_id": ids[rng.integers(80)],
                "id": a,
            }
            file.write(f"{',' * (a > 0)}{json.dumps(entry)}")
        names = [{"id": c, "name": f"class {c}"} for c in ids]
        file.write(f'], "categories": {json.dumps(names)}}}')


def polygons(rng: np.random.Generator) -> list[list[float]]:
    parts = []
    for _ in range(1 + (rng.random() < 0.1)):
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(10, 60)))
        radius = np.exp(rng.normal(3.4, 0.9)) * rng.uniform(0.7, 1.3, len(angles))
        x = (rng.uniform(0, 640) + radius * np.cos(angles)).clip(0, 640)
        y = (rng.uniform(0, 480) + radius * np.sin(angles)).clip(0, 480)
        parts.append(np.column_stack([x, y]).ravel().round(2).tolist())
    return parts


def crowd_runs(rng: np.random.Generator) -> dict[str, list[int]]:
    runs = rng.integers(20, 400, 800)
    runs = runs[: np.searchsorted(runs.cumsum(), 480 * 640)]
    return {"counts": [*runs.tolist(), int(480 * 640 - runs.sum())], "size": [480, 640]}  # type: ignore[dict-item]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=82783)
    parser.add_argument("--annotations", type=int, default=604907)
    parser.add_argument("--file", type=Path, help="keep and reuse the generated data set in this directory")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = options.file or Path(temporary)
        path = root / "annotations" / "instances_train2014.json"
        if not path.exists():
            path.parent.mkdir(parents=True)
            write(path, images=options.images, annotations=options.annotations)
        print(f"{path.stat().st_size / 2**20:.0f} MiB of annotations")
        shutil.rmtree(root / ".fewseg", ignore_errors=True)  # an index of an earlier run
        begin, used = time.perf_counter(), processor_time()
        with watching() as peak:
            source = Coco20i(root=str(root))
            listed = time.perf_counter() - begin
            index = source.index
        built, used = time.perf_counter() - begin, processor_time() - used
        begin = time.perf_counter()
        _ = Coco20i(root=str(root)).index
        cached = time.perf_counter() - begin
    print(f"{len(index.ids)} images, index {index.sha256[:16]}: {built:.1f} s, {listed:.1f} of them to walk the text")
    print(f"{used:.0f} s of processor time; from the cache {cached:.2f} s")
    print(f"at most {max(peak) / 1e9:.2f} GB in all processes together, pages that several share counted once")


def processor_time() -> float:
    """Seconds of this process and those that it started and that have ended."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(who.ru_utime + who.ru_stime for who in both)


@contextmanager
def watching() -> Iterator[list[float]]:
    """The memory of this process and its children, in bytes, looked at ten times a second (on Linux)."""
    seen, ended = [0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.1):
            own = Path("/proc/self/task").glob("*/children")
            children = [child for listed in own for child in listed.read_text().split()]
            seen.append(sum(map(proportional_bytes, ("self", *children))))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        ended.set()
        watcher.join()


def proportional_bytes(process: str) -> float:
    """A process's memory, of pages that several share its part; 0 of one that has ended."""
    try:
        rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    return 1024.0 * next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))


if __name__ == "__main__":
    main()
