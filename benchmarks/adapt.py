"""What some minutes of training on a few annotated photos bring: `python -m benchmarks.adapt DIR/rust DIR/cells`.

Each folder holds `images/` and `masks/` of one class. Five photos, drawn by the seed, are the supports of the shipped
`lite` and of one adapted to them by the recipe `lite-adapt`; both are measured on others, at a probability of 0.5: the
IoU of all their pixels together.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fewseg.data.images import SUFFIXES, read_image
from fewseg.data.masks import read_mask
from fewseg.models.base import FewShotSegmenter
from fewseg.predictor import FewShotPredictor
from fewseg.storage.saved import load_model
from fewseg.training.adapt import adapt

Pair = tuple[Path, Path]
"""A photo and its mask."""


def drawn(folder: Path, *, supports: int, most: int, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Supports and photos to measure on, among those whose masks mark something."""
    masks = {path.stem: path for path in (folder / "masks").iterdir()}
    photos = sorted(path for path in (folder / "images").iterdir() if path.suffix.lower() in SUFFIXES)
    order = np.random.default_rng(seed).permutation(len(photos))
    pairs = [(photos[i], masks[photos[i].stem]) for i in order]
    marked = [pair for pair in pairs if (read_mask(pair[1]) == 1).any()]
    return marked[:supports], marked[supports : supports + most]


def measured(model: FewShotSegmenter, supports: Sequence[Pair], others: Sequence[Pair]) -> float:
    """IoU in % over all pixels of `others`."""
    predictor = FewShotPredictor(model)
    predictor.set_support([photo for photo, _ in supports], [mask for _, mask in supports])
    intersection = union = 0
    for photo, mask in others:
        found, truth = predictor.predict(photo), read_mask(mask) == 1
        intersection, union = intersection + int((found & truth).sum()), union + int((found | truth).sum())
    return 100 * intersection / max(union, 1)


def adapted(supports: Sequence[Pair], words: Sequence[str]) -> FewShotSegmenter:
    """The shipped model trained further on the supports."""
    pairs = [(np.asarray(read_image(photo)), read_mask(mask)) for photo, mask in supports]
    with tempfile.TemporaryDirectory() as work:
        return load_model(adapt(pairs, Path(work) / "model", words=words))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--supports", type=int, default=5)
    parser.add_argument("--photos", type=int, default=40, help="most to measure on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", nargs="*", default=[], help="key=value for the recipe", metavar="KEY=VALUE")
    options = parser.parse_args()
    print("| set | photos measured | shipped lite | adapted | training, s |\n|---|---|---|---|---|")
    for folder in options.folders:
        supports, others = drawn(folder, supports=options.supports, most=options.photos, seed=options.seed)
        before = measured(load_model("lite"), supports, others)
        begin = time.perf_counter()
        model = adapted(supports, options.set)
        seconds = time.perf_counter() - begin
        after = measured(model, supports, others)
        print(f"| {folder.name} | {len(others)} | {before:.1f} | {after:.1f} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
