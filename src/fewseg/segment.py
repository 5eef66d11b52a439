"""The job behind `fewseg segment`: masks, overlays and COCO annotations for files and folders of photos."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewseg.data import images
from fewseg.errors import DataError, UsageError
from fewseg.predictor import FewShotPredictor
from fewseg.progress import Silent

ANNOTATIONS = "annotations.json"


@dataclass(frozen=True)
class Job:
    """One picture to segment and the names of what comes out, relative to the output folder."""

    query: Path
    name: str
    """The picture's name in annotations.json: its path below the folder that was given."""
    stem: str
    """Path of the outputs without their endings."""

    def outputs(self, out_dir: Path, *, overlay: bool) -> list[Path]:
        """The files that are written for this picture: the mask, then the overlay."""
        names = [f"{self.stem}.png"] + ([f"{self.stem}_overlay.jpg"] if overlay else [])
        return [out_dir / name for name in names]


@dataclass(frozen=True)
class SegmentSummary:
    """What a run over many pictures has done."""

    written: tuple[tuple[Path, Path], ...]
    """(picture, its mask file)."""
    empty: tuple[Path, ...]
    """Pictures in which nothing was found (their masks are written, all background)."""
    failed: tuple[tuple[Path, str], ...]
    """(picture, what is wrong with it): those that could not be read."""
    annotations: Path | None
    """The COCO file, if one was asked for."""


def segment_folder(
    predictor: FewShotPredictor,
    queries: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out_dir: str | os.PathLike[str],
    *,
    overlay: bool = True,
    coco: bool = False,
    progress: Silent | None = None,
) -> SegmentSummary:
    """Segment files and folders of pictures (with their sub-folders), one at a time, into `out_dir`.

    Each gives `STEM.png` (0/255, or a palette label map with named supports), `STEM_overlay.jpg`, and with `coco` its
    entries in `annotations.json`; STEM is the path below the given folder, with the suffix added where two would be the
    same. Pictures that cannot be read are listed in the summary, the others done. UsageError, before anything is
    written, where there is nothing to do or an output would replace a query or a support file.
    """
    out = Path(out_dir)
    jobs = plan([queries] if isinstance(queries, str | os.PathLike) else queries, out)
    targets = [path for job in jobs for path in job.outputs(out, overlay=overlay)] + [out / ANNOTATIONS] * coco
    _protect({job.query.resolve() for job in jobs} | predictor.support_files, targets)
    written, empty, failed = [], [], []
    classes = predictor.names or ("object",)
    with _coco_file(out / ANNOTATIONS, classes) if coco else nullcontext() as annotations:
        for job in (progress or Silent())(jobs, "segmenting", len(jobs)):
            try:
                image = images.read_image(job.query)
            except DataError as error:
                failed.append((job.query, str(error)))
            else:
                labels = predictor.predict(image).astype(np.uint8)
                mask_file = _write(
                    image, labels, job.outputs(out, overlay=overlay), several=predictor.names is not None
                )
                written.append((job.query, mask_file))
                if not labels.any():
                    empty.append(job.query)
                if annotations:
                    annotations.add(job.name, labels)
    return SegmentSummary(tuple(written), tuple(empty), tuple(failed), out / ANNOTATIONS if coco else None)


def plan(queries: Iterable[str | os.PathLike[str]], out_dir: Path) -> list[Job]:
    """The pictures to segment, each once: files as given, those of folders sorted, with names that never collide.

    What lies in `out_dir` is left out of a folder's pictures, so that a run can be repeated.
    """
    found: dict[Path, tuple[Path, Path, Path]] = {}
    paths = list(map(Path, queries))
    for query in paths:
        root = query if query.is_dir() else query.parent
        for path in _pictures(query, out_dir):
            found.setdefault(path.resolve(), (path, root, path.relative_to(root)))
    if not found:
        given = ", ".join(map(str, paths)) or "what was given"
        raise UsageError(f"there are no pictures to segment in {given}; give picture files, or folders that hold some")
    relatives = Counter(_key(relative) for _, _, relative in found.values())
    names = [r if relatives[_key(r)] == 1 else Path(root.resolve().name) / r for _, root, r in found.values()]
    stems = Counter(_key(name.with_suffix("")) for name in names)
    repeated = Counter(map(_key, names))
    jobs, taken = [], set()
    for (path, _, _), name in zip(found.values(), names, strict=True):
        bare = name.with_suffix("")
        stem = bare.as_posix() + (f"_{name.suffix[1:].lower()}" if stems[_key(bare)] > 1 else "")
        stem = _free(stem, taken)
        taken.add(stem.casefold())
        jobs.append(Job(path, path.as_posix() if repeated[_key(name)] > 1 else name.as_posix(), stem))
    return jobs


def _pictures(query: Path, out_dir: Path) -> list[Path]:
    if query.is_file():
        return [query]
    if not query.is_dir():
        raise UsageError(f"{query}: there is no such file or folder")
    out = out_dir.resolve()
    if query.resolve() == out:
        raise UsageError(
            f"{query} is both the folder of pictures and the output folder; give another one for the outputs"
        )
    inside = (path for path in sorted(query.rglob("*")) if path.suffix.lower() in images.SUFFIXES and path.is_file())
    shown = [p for p in inside if not any(part.startswith(".") for part in p.relative_to(query).parts)]
    return [path for path in shown if not path.resolve().is_relative_to(out)]


def _key(path: Path) -> str:
    return path.as_posix().casefold()


def _free(stem: str, taken: set[str]) -> str:
    """The stem, or the first of stem_2, stem_3, ... that no other picture has (file systems may ignore case)."""
    number, unique = 1, stem
    while unique.casefold() in taken:
        number += 1
        unique = f"{stem}_{number}"
    return unique


def _protect(inputs: Iterable[Path], targets: Iterable[Path]) -> None:
    sources = set(inputs)
    for target in targets:
        if target.resolve() in sources:
            raise UsageError(f"{target} is an input and would be overwritten; give another output folder")


def _write(image: Image.Image, labels: NDArray[np.uint8], outputs: list[Path], *, several: bool) -> Path:
    """Write mask and overlay of one picture; returns the mask's path."""
    if several:
        images.write_labels(labels, outputs[0])
    else:
        images.write_image(Image.fromarray(labels * np.uint8(255)), outputs[0])
    for path in outputs[1:]:
        picture = image
        for label in np.unique(labels[labels > 0]):
            red, green, blue = images.label_colors()[label].tolist() if several else images.FOREGROUND_COLOR
            picture = images.overlay(picture, labels == label, color=(red, green, blue))
        images.write_image(picture, path, quality=90)
    return outputs[0]


class _CocoWriter:
    """Writes annotations as they come, so that memory does not grow with their number."""

    def __init__(self, file: IO[str], classes: Sequence[str]) -> None:
        self.file = file
        self.images: list[dict[str, Any]] = []
        self.annotations = 0
        categories = [{"id": i, "name": name} for i, name in enumerate(classes, start=1)]
        file.write(
            f'{{"info": {{"description": "fewseg segment"}}, "categories": {json.dumps(categories)},\n"annotations": ['
        )

    def add(self, name: str, labels: NDArray[np.uint8]) -> None:
        """One picture, and one annotation for each class that is in its labels (H, W)."""
        from pycocotools import mask as rle

        height, width = labels.shape
        self.images.append({"id": len(self.images) + 1, "file_name": name, "width": width, "height": height})
        for label in np.unique(labels[labels > 0]):
            code = rle.encode(np.asfortranarray(labels == label, dtype=np.uint8))
            counts = code["counts"]
            self.annotations += 1
            entry = {
                "id": self.annotations,
                "image_id": len(self.images),
                "category_id": int(label),
                "segmentation": {
                    "size": [height, width],
                    "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts,
                },
                "area": int(rle.area(code)),
                "bbox": [float(side) for side in rle.toBbox(code)],
                "iscrowd": 0,
            }
            self.file.write(("," if self.annotations > 1 else "") + "\n" + json.dumps(entry))

    def finish(self) -> None:
        """Close the JSON with the list of pictures."""
        self.file.write(f'],\n"images": {json.dumps(self.images)}}}\n')


@contextmanager
def _coco_file(path: Path, classes: Sequence[str]) -> Iterator[_CocoWriter]:
    with images.replacing(path) as temporary:
        file = temporary.open("w", encoding="utf-8")
        with file:  # closed before it is moved into place
            writer = _CocoWriter(file, classes)
            yield writer
            writer.finish()
