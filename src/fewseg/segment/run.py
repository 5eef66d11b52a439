"""Segments many pictures, one at a time, and lists at the end those that could not be read."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewseg.data import images
from fewseg.data.decoding import PictureRule
from fewseg.data.video import frames, to_image, write_video
from fewseg.data.winners import label_map
from fewseg.errors import DataError, lacks_memory
from fewseg.predictor import Result
from fewseg.progress import Silent
from fewseg.runtime.lanes import side_by_side
from fewseg.segment import formats as files
from fewseg.segment.books import BOOKS
from fewseg.segment.corrected import clear_table
from fewseg.segment.notes import note_corrected
from fewseg.segment.origin import note_others, origin
from fewseg.segment.outputs import check_formats, output_folder, planned
from fewseg.segment.planning import Job
from fewseg.segment.resumed import Resumed, Seen
from fewseg.segment.shards import Shard, remove_parts
from fewseg.segment.steady import ByVideo, Predictor, Steady, hinders
from fewseg.segment.table import table_file

Read: TypeAlias = Callable[[], Image.Image]
"""What reads a picture when it is needed; DataError where it cannot."""
_LARGE = 4_000_000
"""Pixels of a picture from which on one at a time is segmented: two would take twice the memory."""
_ONE_LARGE = threading.Lock()


@dataclass(frozen=True)
class SegmentSummary:
    """What a run over many pictures has done."""

    written: tuple[tuple[Path | str, Path], ...]
    """(picture, or its address, and the first of its files)."""
    empty: tuple[Path | str, ...]
    """Pictures in which nothing was found (their masks are written, all background)."""
    failed: tuple[tuple[Path | str, str], ...]
    """(picture, what is wrong with it): those that could not be read, and those whose files vanished meanwhile."""
    skipped: int
    """Pictures whose files were there already, with `resume`."""
    planned: int
    """Pictures and videos that there are, those of other parts too."""
    annotations: Path | None
    """The COCO file, if one was asked for."""
    runtime: str
    """What ran the model, in words."""
    sizes: Mapping[str, tuple[NDArray[np.int64], ...]] | None = None
    """With `instances`: of each class the pixels of every object, by picture; pictures without it are left out."""


def segment_folder(
    predictor: Predictor,
    queries: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out_dir: str | os.PathLike[str],
    *,
    formats: Sequence[str] = ("png",),
    overlay: bool = True,
    threshold: float = 0.5,
    presence: float = 0.5,
    min_area: int = 0,
    instances: bool = False,
    resume: bool = False,
    every: int = 1,
    steady: bool = True,
    shard: Shard | None = None,
    progress: Silent | None = None,
) -> SegmentSummary:
    """Segment files and folders of pictures and videos (with their sub-folders), one at a time, into `out_dir`.

    `formats`: png gives `STEM.png` (0/255, or of several classes a palette label map, and `classes.txt`), yolo
    `STEM.txt` and `classes.txt`, geojson `STEM.geojson`, labelme `STEM.json`, coco, cvat, labelstudio and via one file
    each (`books.BOOKS`), csv lines in `results.csv`; `overlay` `STEM_overlay.jpg`. STEM is the path below the given
    folder, with the suffix added where two would be the same; a video's frames (every `every`-th) are
    `STEM/frame_NUMBER`, and their overlays `STEM_overlay.mp4`; `steady`: the frame before is a further support of small
    weight. `label_map` tells `threshold` and `min_area`; a class
    that is there with less than the probability `presence`, as far as the model tells, is left out. `instances`: parts
    that touch are cut apart, files tell of single objects, `STEM_instances.png` numbers them. `shard`: only a part of
    the pictures, and files that tell of all pictures under names of that part.
    `resume` leaves out pictures whose files are all there; where a mask was corrected since `results.csv` was written,
    what lies beside it is made from the correction. Pictures that cannot be read are listed in the summary, the others
    done. UsageError, before anything is written, where there is nothing to do or an output would replace a query, a
    support file or a corrected mask.
    """
    check_formats(formats, resume=resume, instances=instances)
    out = output_folder(out_dir)
    work = planned(queries, out, predictor, formats, overlay=overlay, instances=instances, shard=shard)
    if "png" in formats and not resume and not shard:
        clear_table(out)
    jobs, named, books = work.jobs, work.named, work.books
    written: list[tuple[Path | str, Path]] = []
    empty: list[Path | str] = []
    failed: list[tuple[Path | str, str]] = []
    corrected: dict[Path, Path] = {}
    skipped = 0
    classes = predictor.names or ("object",)
    if work.class_file:
        files.write_classes(work.class_file, classes)
    sizes: dict[str, list[NDArray[np.int64]]] = {name: [] for name in classes}
    merging: dict[str, Any] = {"several": files.is_label_map(predictor.names), "resume": resume, "shard": shard}
    how: dict[str, Any] = {"threshold": threshold, "presence": presence, "min_area": min_area}
    made = origin(predictor, **how)
    if resume and "png" in formats:
        note_others([named(job.stem)["png"] for job in jobs if not job.is_video], made)
    with _records(books, work.table, classes, predictor.runtime, **merging) as record:
        pieces = _pieces(jobs, failed, rule=predictor.pictures, every=every, progress=progress or Silent())
        resumed = Resumed(out, predictor.names, instances=instances) if resume else None
        finder = _by_video(predictor, jobs, presence, on=steady, progress=progress or Silent())
        again = resumed if resumed and (record or instances) else None
        segmented = partial(_segmented, finder, named, again, instances=instances, made=made, **how)
        several_pieces = len(jobs) > 1 or any(job.is_video for job in jobs)
        # a thread keeps memory of its own; frames go by the one before
        lanes = predictor.engine.lanes if several_pieces and not finder.on else 1
        for piece, seen in side_by_side(segmented, _read(pieces, named, resumed), lanes=lanes):
            outputs = named(piece.stem)
            if isinstance(seen, DataError):
                failed.append((piece.place, str(seen)))
                continue
            if seen is None or seen.told is None:
                skipped += 1
            else:
                written.append((piece.place, next(iter((*outputs.values(), *books.values())))))
                empty += [] if seen.labels.any() else [piece.place]
            if seen is None:
                continue
            corrected |= {outputs["png"]: piece.query} if seen.corrected else {}
            if record:
                record(piece, outputs.get("png"), seen)
            _add_sizes(sizes, seen, classes)
    note_corrected([*corrected])
    gone = dict.fromkeys(query for query, path in written if not path.exists())
    failed += [(q, f"its output is gone: was {out} removed meanwhile? segment it again (--resume)") for q in gone]
    done = {job for job in work.videos if resume and job.query not in corrected.values()}
    failed += _write_overlay_videos(work.videos, {query for query, _ in failed}, named, every=every, done=done)
    written = [(query, path) for query, path in written if path.exists()]
    return SegmentSummary(
        tuple(written),
        tuple(empty),
        tuple(failed),
        skipped,
        work.count,
        books.get("coco"),
        predictor.runtime,
        {name: tuple(found) for name, found in sizes.items()} if instances else None,
    )


def _by_video(predictor: Predictor, jobs: Sequence[Job], presence: float, *, on: bool, progress: Silent) -> ByVideo:
    """What steadies the frames of videos, where there are some; where the model cannot, that is told."""
    on = on and any(job.is_video for job in jobs)
    if on and (why := hinders(predictor.engine)):
        progress.log(f"note: each frame is found by itself: {why}")
        on = False
    return ByVideo(predictor, presence=presence, on=on)


def _write_overlay_videos(
    videos: Mapping[Job, Path],
    failed: set[Path | str],
    named: Callable[[str], dict[str, Path]],
    *,
    every: int,
    done: Collection[Job],
) -> list[tuple[Path | str, str]]:
    """The overlays of each video's frames as a video at their times, of those that are `done` unless it is there; what
    went wrong.
    """
    wrong = []
    for job, target in videos.items():
        if job.query in failed or (job in done and target.is_file()):
            continue

        def overlay_of(number: int, stem: str = job.stem) -> Image.Image | None:
            path = named(f"{stem}/{files.frame_stem(number)}")["overlay"]
            return images.read_image(path) if path.is_file() else None

        try:
            write_video(job.query, target, overlay_of, every=every)
        except DataError as error:
            wrong.append((job.query, f"its overlays are there, but no video of them: {error}"))
    return wrong


def _add_sizes(sizes: dict[str, list[NDArray[np.int64]]], seen: Seen, classes: Sequence[str]) -> None:
    for label, parts in (seen.objects or {}).items():
        sizes[classes[label - 1]].append(parts.pixels)


@contextmanager
def _records(
    books: dict[str, Path],
    table: Path | None,
    classes: Sequence[str],
    runtime: str,
    *,
    several: bool,
    resume: bool,
    shard: Shard | None,
) -> Iterator[Callable[[Job, Path | None, Seen], None] | None]:
    """The files that tell of all pictures: what adds one to them, None where there is none."""
    lines = table_file(table, classes, several=several, resume=resume) if table else nullcontext()
    with ExitStack() as stack, lines as tabulate:
        writers = [stack.enter_context(BOOKS[kind][1](path, classes, runtime)) for kind, path in books.items()]

        def add(piece: Job, mask: Path | None, seen: Seen) -> None:
            for write in writers:
                write(piece, seen.labels, seen.objects, seen.told)
            if tabulate:
                tabulate(piece.place, mask, seen.labels, seen.told, seen.objects)

        yield add if writers or tabulate else None
    if resume and not shard:  # what parts told is told here
        remove_parts([*books.values(), *([table] if table else [])])


def _read(
    pieces: Iterable[tuple[Job, Read]], named: Callable[[str], dict[str, Path]], resumed: Resumed | None
) -> Iterator[tuple[Job, Image.Image | DataError | Read]]:
    """Pieces with their pictures, or with what is wrong with them; of those that are done, with what reads it."""
    for piece, read in pieces:
        try:
            yield piece, read if resumed and resumed.has(named(piece.stem)) else read()
        except DataError as error:
            yield piece, error


def _segmented(
    finder: ByVideo,
    named: Callable[[str], dict[str, Path]],
    again: Resumed | None,
    given: tuple[Job, Image.Image | DataError | Read],
    *,
    presence: float,
    threshold: float,
    min_area: int,
    instances: bool,
    made: str,
) -> tuple[Job, Seen | DataError | None]:
    """What was found in a piece, once its files are written; of one that is done, what `again` says, if anybody asks;
    what is no picture is passed on.
    """
    piece, image = given
    if not isinstance(image, Image.Image):
        finder.passed_over()
        if isinstance(image, DataError):
            return piece, image
        try:
            return piece, again.seen(piece, named(piece.stem), image) if again else None
        except DataError as error:
            return piece, error
    with _ONE_LARGE if image.width * image.height > _LARGE else nullcontext():
        try:
            results = _predicted(finder(piece), image)
            maps = (result.proba_if(presence) for result in results)
            labels = label_map(maps, threshold=threshold, min_area=min_area)
            objects = files.objects_of(labels) if instances else None
        except DataError as error:
            return piece, error
        files.write(named(piece.stem), image, labels, finder.predictor.names, objects, photo=piece.query, made=made)
    told = [result.told(presence) for result in results]
    return piece, Seen(labels, objects, told)


def _predicted(predictor: Predictor | Steady, image: Image.Image) -> list[Result]:
    """What is found of every class; DataError where there is not the memory for it."""
    try:
        return list(predictor.predict_each(image).values())
    except (MemoryError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        raise DataError(f"its {image.width} x {image.height} pixels take more memory than there is") from error


def _pieces(
    jobs: list[Job], failed: list[tuple[Path | str, str]], *, rule: PictureRule, every: int, progress: Silent
) -> Iterator[tuple[Job, Read]]:
    """Pictures and frames in turn, each with what reads it when it is needed.

    A video that breaks off is told in `failed`, its frames so far are done.
    """
    for job in progress(jobs, "segmenting", len(jobs)):
        if not job.is_video:
            yield job, partial(job.read, rule)
            continue
        try:
            for number, frame in frames(job.query, every=every):
                progress.note(f"frame {number} of {job.query.name}")
                name = files.frame_stem(number)
                yield Job(job.query, f"{job.name}/{name}", f"{job.stem}/{name}"), partial(to_image, frame)
        except DataError as error:
            failed.append((job.query, str(error)))
