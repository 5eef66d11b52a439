"""The masks that a model predicts, as PNG files by episode, with an index of them as CSV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewseg.data.images import write_image
from fewseg.errors import UsageError
from fewseg.evaluation.benchmark import Benchmark
from fewseg.evaluation.scoring import Matched, at_labels
from fewseg.files import write_csv
from fewseg.metrics.iou import foreground_wins

S = TypeVar("S")
INDEX = "index.csv"
COLUMNS = ("file", "repeat", "seed", "episode", "class_id", "class", "query", "supports", "intersection", "union")
LIST = ("source", "subset", "fold", "shots", "protocol", "episode_sha256")
"""Columns that say which list an episode is of."""


def masks_folder(folder: Path, name: str) -> Path:
    """Where the masks of an evaluation go, by the name of its results; UsageError where something else is there."""
    place = folder / name.removesuffix(".json").removeprefix("results-")
    if place.exists() and not (place / INDEX).is_file() and (place.is_file() or any(place.iterdir())):
        raise UsageError(f"{place} is there already and holds no masks of an evaluation; give another folder")
    return place


def mask_name(repeat: int, episode: int) -> str:
    """The file of an episode's mask."""
    return f"repeat{repeat}-episode{episode:05}.png"


def saving(score: Callable[[Matched], S], place: Path, benchmark: Benchmark) -> Callable[[Matched], S]:
    """`score`, which also writes every mask, 0 and 255 at the query's own size."""
    place.mkdir(parents=True, exist_ok=True)

    def saved(matched: Matched) -> S:
        found = foreground_wins(matched.logits["final"])[0]
        mask = at_labels(found, matched.labels.shape, benchmark.protocol).cpu().numpy()
        file = place / mask_name(matched.entry.repeat, matched.entry.place)
        write_image(Image.fromarray(mask.astype(np.uint8) * 255), file)
        return score(matched)

    return saved


def write_index(place: Path, benchmark: Benchmark, tables: Sequence[NDArray[np.int64]]) -> Path:
    """Which file is which episode's, and its pixels in common and in union with the truth; `tables` as of `Results`."""
    ids, names = benchmark.source.index.ids, benchmark.source.class_names
    rows: list[Sequence[Any]] = [(*COLUMNS, *LIST)]
    for r, (listed, table) in enumerate(zip(benchmark.lists, tables, strict=True)):
        of = (listed.source, listed.subset, listed.fold, listed.shots, benchmark.protocol.name, listed.sha256)
        for e, (spec, counts) in enumerate(zip(listed.specs, table.tolist(), strict=True)):
            supports = " ".join(ids[i] for i in spec.support)
            told = (spec.class_id, names[spec.class_id - 1], ids[spec.query], supports)
            rows.append((mask_name(r, e), r, listed.seed, e, *told, *counts[1:3], *of))
    return write_csv(place / INDEX, rows)
