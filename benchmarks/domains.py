"""What `fewseg teach` chooses and expects on sets far from everyday photos: `python -m benchmarks.domains DIR/*`.

Each folder holds `images/` and `masks/` of one class. Photos that a seed draws first are the supports of the shipped
`lite` as it is (threshold 0.5), and of a concept; both are measured on those that it draws next: the IoU in % of all
their pixels together. Nothing about the choice was settled on such sets.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.adapt import Pair, drawn
from fewseg.concept import Concept, teach
from fewseg.data.masks import read_mask
from fewseg.errors import DataWarning
from fewseg.predictor import FewShotPredictor

HEAD = ("set", "draw", "photos", "lite as it is", "taught", "method", "threshold", "tiles", "expected", "interval")


def iou(find: Callable[[Any], NDArray[np.bool_]], pairs: Sequence[Pair]) -> float:
    """IoU in % over all pixels of photos and their masks; what is ignored does not count."""
    intersection = union = 0
    for photo, mask in pairs:
        truth = read_mask(mask)
        found, marked = find(photo) & (truth != 255), truth == 1
        intersection, union = intersection + int((found & marked).sum()), union + int((found | marked).sum())
    return 100 * intersection / max(union, 1)


def measured(folder: Path, *, supports: int, photos: int, seed: int) -> tuple[float, float, Concept, int]:
    """IoU of the model as it is and as taught, what was taught, and the number of photos."""
    given, others = drawn(folder, supports=supports, most=photos, seed=seed)
    files, masks = ([pair[part] for pair in given] for part in (0, 1))
    plain = FewShotPredictor("lite")
    plain.set_support(files, masks)
    concept = teach(files, masks)
    before, after = (iou(find, others) for find in (plain.predict, lambda photo: concept.segment(photo).mask))
    return before, after, concept, len(others)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--supports", type=int, default=5)
    parser.add_argument("--photos", type=int, default=15, help="most to measure on")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    warnings.simplefilter("ignore", DataWarning)
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}", flush=True)
    rows = []
    for folder in options.folders:
        for seed in options.seeds:
            before, after, concept, count = measured(
                folder, supports=options.supports, photos=options.photos, seed=seed
            )
            choice, told = concept.choice, concept.expected
            low, expected, high = (100 * value for value in (told.low, told.iou, told.high))
            rows.append((before, after, abs(expected - after) <= 10, low <= after <= high))
            row = (folder.name, seed, count, f"{before:.1f}", f"{after:.1f}", choice.method, f"{choice.threshold:g}")
            row += (choice.tiles, f"{expected:.1f}", f"{low:.0f} to {high:.0f}")
            print(f"| {' | '.join(map(str, row))} |", flush=True)
    before, after, near, inside = np.mean(np.array(rows, float), 0)
    print(
        f"| mean | | | {before:.1f} | {after:.1f} | | | | {100 * near:.0f} % within 10 | {100 * inside:.0f} % inside |"
    )


if __name__ == "__main__":
    main()
