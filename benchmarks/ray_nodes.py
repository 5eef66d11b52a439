"""One of two Ray nodes is killed half-way: `python -m benchmarks.ray_nodes [--photos 60]`

Two nodes of one core each run on this machine; `fewseg segment --engine ray` shares made-up photos out to them. When a
third of the masks is there, one node dies. At the end every file must have the bytes of a run in one process.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=60)
    count = parser.parse_args().photos
    os.environ["RAY_AUTH_MODE"] = "disabled"
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(folder, count)
        started = time.monotonic()
        segment(folder, "one").wait()
        alone = time.monotonic() - started
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        second = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        started = time.monotonic()
        running = segment(folder, "two", "--engine", "ray", address=cluster.address)
        while len(list((folder / "two").glob("??.png"))) < count / 3:
            if running.poll() is not None:
                sys.exit("it ended before a node could be killed; give more photos")
            time.sleep(0.1)
        cluster.remove_node(second, allow_graceful=False)
        code = running.wait()
        seconds = time.monotonic() - started
        cluster.shutdown()
        names = sorted(path.name for path in (folder / "one").iterdir())
        same = names == sorted(path.name for path in (folder / "two").iterdir())
        differ = [
            name for name in names if same and not filecmp.cmp(folder / "one" / name, folder / "two" / name, False)
        ]
    print(f"{count} photos: {alone:.0f} s in one process; {seconds:.0f} s on two nodes, of which one was killed")
    sys.exit(f"exit code {code}, other files: {differ or names}" if code or differ or not same else 0)


def draw(folder: Path, count: int) -> None:
    """Photos of a box, and the first one's mask."""
    (folder / "photos").mkdir()
    for number in range(count):
        pixels, mask = np.full((160, 300, 3), 90, np.uint8), np.zeros((160, 300), np.uint8)
        box = np.s_[20:90, 20 + 2 * number : 90 + 2 * number]
        pixels[box], mask[box] = (200, 40, 40), 255
        Image.fromarray(pixels).save(folder / f"photos/{number:02d}.png")
        if not number:
            Image.fromarray(mask).save(folder / "mask.png")


def segment(folder: Path, out: str, *more: str, address: str | None = None) -> subprocess.Popen[bytes]:
    words = [
        "photos",
        "--class",
        "box",
        "--support",
        "photos/00.png",
        "--mask",
        "mask.png",
        "--out",
        out,
        "--no-overlay",
    ]
    words += ["--format", "png", "--format", "csv", "--format", "coco", *more]
    environment = os.environ | ({"RAY_ADDRESS": address} if address else {})
    return subprocess.Popen([sys.executable, "-m", "fewseg", "segment", *words], cwd=folder, env=environment)


if __name__ == "__main__":
    main()
