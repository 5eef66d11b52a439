"""Speed of loading photos and of extracting a training set's frozen features.

    python -m benchmarks.loading [--photos 60] [--rounds 3] [--json FILE]

Photos per second: fewseg's loader (photo and label map read, both resized to the input) with 0, 1 and 2 workers
against a loop that only opens and resizes photos with Pillow. Passes per second of the back-end:
`TrainingFeatures.fill` against a loop that does the same passes one after the other on all threads, loading included
in both.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from benchmarks.inputs import make_model, write_data_set
from benchmarks.measure import alternate, machine
from fewseg.data.dataset import EpisodeDataset, GlobalSampler, make_loader
from fewseg.data.episodes.sampling import TrainingEpisodes
from fewseg.data.sets.folder import Folder
from fewseg.data.transforms import Squeeze
from fewseg.features.training_set import TrainingFeatures
from fewseg.progress import Silent
from fewseg.runtime.heap import keep_freed_memory

SIDE = 320


def plain_photos(root: Path) -> None:
    for path in sorted((root / "images").iterdir()):
        with Image.open(path) as image:
            image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)


def episode_data(root: Path) -> tuple[EpisodeDataset, TrainingEpisodes]:
    source = Folder(subset="train", root=str(root), novel_classes=[f"thing {c}" for c in range(1, 6)])
    fold = source.fold(0)
    episodes = TrainingEpisodes(source, fold, novel="background")
    transform = Squeeze(SIDE)
    return EpisodeDataset(
        source, fold, spec_of=episodes.spec, length=len(episodes), transform=transform, novel="background"
    ), episodes


def loader_runs(root: Path) -> dict[str, Callable[[], Any]]:
    """Every way loads as many photos: an episode holds two."""
    dataset, _ = episode_data(root)
    photos = len(list((root / "images").iterdir()))
    numbers = [[g] for g in range(photos // 2)]

    def load(workers: int) -> Callable[[], Any]:
        return lambda: [None for _ in make_loader(dataset, numbers, workers=workers)]

    return {"Pillow": lambda: plain_photos(root)} | {f"{n} workers": load(n) for n in (0, 1, 2)}


def extraction_runs(root: Path, episodes: int) -> tuple[dict[str, Callable[[], Any]], int]:
    dataset, sampled = episode_data(root)
    model = make_model("lite0", shots=1, side=SIDE)
    sampler = GlobalSampler(0, episodes, batch=4)

    def fewseg() -> TrainingFeatures:
        features = TrainingFeatures(model, dataset, sampled)
        features.fill(sampler, workers=2, progress=Silent())
        return features

    keys = sorted(fewseg()._kept)

    def plain() -> None:
        with torch.no_grad():
            for kind, i, *rest in keys:
                view = rest[-1]
                image, labels = dataset.load_views(i, [view])[view]
                if kind == "query":
                    model.extract_query(image[None])
                else:
                    model.extract_support(image[None, None], dataset.class_maps(labels, rest[0])[None, :1])

    return {"one after the other": plain, "fewseg": fewseg}, len(keys)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--episodes", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    keep_freed_memory()
    results: dict[str, Any] = {"machine": machine()}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        write_data_set(root, images=options.photos, classes=20, shown=20)
        passes_of, passes = extraction_runs(root, options.episodes)
        for title, runs, count in (
            ("photos", loader_runs(root), options.photos),
            ("passes", passes_of, passes),
        ):
            seconds, _ = alternate(runs, options.rounds)
            results[title] = {name: count / statistics.median(s) for name, s in seconds.items()}
            print(f"{title} per second:", {name: round(rate, 1) for name, rate in results[title].items()})
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
