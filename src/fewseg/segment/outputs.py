"""Which files a run over many pictures writes: checked, cleared of what a killed one left, and kept from other runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from fewseg.errors import UsageError
from fewseg.files import leftovers
from fewseg.segment import formats as files
from fewseg.segment.books import BOOKS
from fewseg.segment.notes import note_older
from fewseg.segment.planning import Job, plan
from fewseg.segment.remote import is_remote
from fewseg.segment.shards import Shard, leftovers_of_parts
from fewseg.segment.steady import Predictor
from fewseg.segment.table import NAME as TABLE
from fewseg.storage.owner import Part, owned

OF_ENGINE = "FEWSEG_PART_OF_ENGINE"
"""Variable that is set where a part is done for a run of all, which waits for it (`ray_parts`)."""
_AGAIN = 600.0
"""Seconds that such a part waits for its own process of before, whose machine is taken for dead."""


class Planned(NamedTuple):
    """What is to be done, and the files that will be written."""

    jobs: list[Job]
    count: int
    """Of the jobs of all parts."""
    named: Callable[[str], dict[str, Path]]
    """Of a stem, the files of one picture or frame by kind."""
    books: dict[str, Path]
    """Files that tell of all pictures, by format."""
    table: Path | None
    class_file: Path | None
    videos: dict[Job, Path]
    """The overlays of each video as a video."""
    masks: frozenset[Path]
    """The PNG of each picture; of a video the folder of its frames'."""

    def writes(self, mask: Path) -> bool:
        """Whether a mask in the output folder is one of these jobs'."""
        return not self.masks.isdisjoint((mask, mask.parent))


def planned(
    queries: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: Path,
    predictor: Predictor,
    formats: Sequence[str],
    *,
    overlay: bool,
    instances: bool,
    shard: Shard | None,
) -> Planned:
    """UsageError where an output would replace an input; what a killed process left is removed."""
    every_job = plan(queries, out, reserved=_reserved(formats), beside=files.INSTANCES if instances else "")
    _check_labelme(every_job, formats)
    jobs = shard.share(every_job) if shard else every_job
    named = partial(files.outputs, out_dir=out, formats=formats, overlay=overlay, single=instances)
    of_part = shard.named if shard else Path
    books = {kind: of_part(out / BOOKS[kind][0]) for kind in dict.fromkeys(formats) if kind in BOOKS}
    table = of_part(out / TABLE) if "csv" in formats else None
    numbered = "yolo" in formats or ("png" in formats and files.is_label_map(predictor.names))
    class_file = out / files.CLASSES if numbered else None
    videos = {job: out / f"{job.stem}{files.OVERLAY_VIDEO}" for job in jobs if job.is_video and overlay}
    folders = [out / job.stem for job in jobs if job.is_video]
    targets = [path for job in jobs if not job.is_video for path in named(job.stem).values()]
    targets += filter(None, (*books.values(), *videos.values(), table, None if shard else class_file))
    protect({job.query.resolve() for job in every_job} | predictor.support_files, targets, folders)
    clear_leftovers(targets, folders)
    if not shard:
        for file in (left for path in (*books.values(), out / TABLE) for left in leftovers_of_parts(path)):
            file.unlink(missing_ok=True)
        note_older(jobs, out, targets)
    masks = frozenset([*folders, *(out / f"{job.stem}.png" for job in jobs if not job.is_video)])
    return Planned(jobs, len(every_job), named, books, table, class_file, videos, masks)


def output_folder(given: str | os.PathLike[str]) -> Path:
    """Where masks go; UsageError where a file lies."""
    out = Path(given)
    if os.path.lexists(out) and not out.is_dir():
        raise UsageError(f"{out} is no folder; give one for the masks, it need not be there yet")
    return out


@contextmanager
def held(out: str, shard: Shard | None) -> Iterator[None]:
    """Inside, no other run writes into the folder `out`; of a part, none but other parts of as many.

    UsageError that says which one does. Nothing is kept from an address of a store, whose files are made elsewhere.
    """
    if is_remote(out):
        yield
        return
    part, of_engine = None, OF_ENGINE in os.environ
    if shard:
        part = Part(shard.name, rf"(\d+of{shard.count}){'?' if of_engine else ''}")
    with owned(output_folder(out), "segmenting into", what="folder", part=part, wait=_AGAIN if of_engine else 0):
        yield


def _check_labelme(jobs: Sequence[Job], formats: Sequence[str]) -> None:
    if far := next((job.address for job in jobs if job.address), None) if "labelme" in formats else None:
        raise UsageError(f"{far}: a LabelMe file names a picture on the disk; give --format cvat, via or labelstudio")
    if video := next((job.query for job in jobs if job.is_video), None) if "labelme" in formats else None:
        raise UsageError(
            f"{video} is a video: a LabelMe file names a picture, which its frames are not; save them as such"
        )


def _reserved(formats: Sequence[str]) -> list[str]:
    """Stems that no picture's files may have beside the files that tell of all."""
    yolo = [Path(files.CLASSES).stem] if "yolo" in formats else []
    return yolo + ([Path(BOOKS[kind][0]).stem for kind in formats if kind in BOOKS] if "labelme" in formats else [])


def unknown_formats(formats: Sequence[str], known: Collection[str]) -> str:
    """Which formats are not known, in words: "none" where none is given, empty where all are."""
    return ", ".join(name for name in formats if name not in known) if formats else "none"


def check_formats(formats: Sequence[str], *, resume: bool, instances: bool) -> None:
    """UsageError where a format is unknown, or cannot be gone on with."""
    if given := unknown_formats(formats, files.FORMATS):
        large = "geotiff, gpkg of pictures that are read in windows"
        raise UsageError(
            f"format {given}: choose one or several of {', '.join(files.FORMATS)}, each with --format; or {large}"
        )
    if resume and (instances or {"csv", *BOOKS} & set(formats)) and "png" not in formats:
        raise UsageError("--resume reads finished masks back for files that tell of all pictures: add --format png")


def protect(inputs: set[Path], targets: list[Path], folders: list[Path]) -> None:
    """UsageError where a file to be written is an input, or a video's folder of outputs holds one."""
    parents = {parent for path in inputs for parent in path.parents}
    wrong = [path for path in targets if path.resolve() in inputs]
    wrong += [path for path in folders if path.resolve() in parents]
    if wrong:
        raise UsageError(f"{wrong[0]} is an input and would be overwritten; give another output folder")
    if folder := next((path for path in targets if path.is_dir()), None):
        raise UsageError(f"{folder} is a folder, where a file is to be written; give another output folder")


def clear_leftovers(targets: list[Path], folders: list[Path]) -> None:
    """Remove what a killed process left of files of these names, and of frames in the folders of videos."""
    names: dict[Path, set[str]] = {}
    for path in targets:
        names.setdefault(path.parent, set()).add(path.name)
    left = [file for folder, known in names.items() for file in leftovers(folder, known.__contains__)]
    for file in left + [file for folder in folders for file in leftovers(folder, files.FRAME.fullmatch)]:
        file.unlink(missing_ok=True)
