"""Segments many pictures, one at a time, and lists at the end those that could not be read."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from PIL import Image

from fewseg.data import images
from fewseg.data.decoding import PictureRule
from fewseg.data.video import frames_so_far, to_image, write_video
from fewseg.data.winners import claimed, label_map
from fewseg.errors import DataError, UsageError, lacks_memory, shortened
from fewseg.predictor import Result, told_of_all
from fewseg.progress import Silent
from fewseg.runtime.lanes import side_by_side
from fewseg.segment import formats as files
from fewseg.segment.books import BOOKS
from fewseg.segment.corrected import clear_table, rows_of
from fewseg.segment.finished import Finished, Seen
from fewseg.segment.notes import note_alike, note_corrected, note_of_others, note_supports, note_wide
from fewseg.segment.origin import note_others, origin
from fewseg.segment.outputs import Planned, check_formats, output_folder, planned
from fewseg.segment.planning import Job
from fewseg.segment.shards import Shard, remove_parts
from fewseg.segment.steady import ByVideo, Predictor, Steady, hinders
from fewseg.segment.summary import Gathered, SegmentSummary
from fewseg.segment.table import Row, table_file

Read: TypeAlias = Callable[[], Image.Image]
"""What reads a picture when it is needed; DataError where it cannot."""
_LARGE = 4_000_000
"""Pixels of a picture from which on one at a time is segmented: two would take twice the memory."""
_ONE_LARGE = threading.Lock()


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
    A mask that is there and somebody's work (see `Finished`) stays, and what lies beside it is made from it; `resume`
    also leaves out pictures whose files are all there. Pictures that cannot be read are listed in the summary, the
    others done. UsageError, before anything is written, where there is nothing to do or an output would replace a query
    or a support file.
    """
    check_formats(formats, resume=resume, instances=instances)
    out = output_folder(out_dir)
    work = planned(queries, out, predictor, formats, overlay=overlay, instances=instances, shard=shard)
    rows = _former(out, needed="png" in formats or work.table is not None)
    finished = Finished(out, predictor.names, rows, instances=instances, resume=resume)
    if "png" not in formats:
        _check_corrected(out, work, finished)
    elif not resume:
        clear_table(out, shard)
    note_supports(
        work.jobs,
        predictor.support_files,
        predictor.support_names,
        kept=lambda job: finished.keeps(work.named(job.stem)),
    )
    how: dict[str, Any] = {"threshold": threshold, "presence": presence, "min_area": min_area}
    made = origin(predictor, **how)
    if resume and "png" in formats:
        note_others(_masks(work), made, predictor.names)
    progress = progress or Silent()
    classes = predictor.names or (files.UNNAMED,)
    if work.class_file:
        files.write_classes(work.class_file, classes)
    gathered = Gathered(work, classes)
    with _records(work, predictor, classes, shard=shard) as record:
        pieces = _pieces(work.jobs, gathered.failed, rule=predictor.pictures, every=every, progress=progress)
        finder = _by_video(predictor, work.jobs, presence, on=steady, progress=progress)
        segmented = partial(_segmented, finder, work.named, finished, instances=instances, made=made, **how)
        several_pieces = len(work.jobs) > 1 or any(job.is_video for job in work.jobs)
        # a thread keeps memory of its own; frames go by the one before
        lanes = predictor.engine.lanes if several_pieces and not finder.on else 1
        for piece, seen in side_by_side(segmented, _read(pieces, work.named, finished), lanes=lanes):
            gathered.add(piece, seen)
            if record and seen is not None:
                record(piece, seen)
    _note(gathered, finished, classes, predictor.support_side)
    gathered.check_there(out)
    done = {job for job in work.videos if resume and job.query not in gathered.corrected.values()}
    gathered.failed += _write_overlay_videos(work, {query for query, _ in gathered.failed}, every=every, done=done)
    return gathered.summary(predictor.runtime, instances=instances)


def _note(gathered: Gathered, finished: Finished, classes: Sequence[str], support_side: int | None) -> None:
    """Tell what a user may not expect of what was done."""
    note_corrected([*gathered.corrected], several=len(classes) > 1)
    note_of_others(finished.of_others)
    note_alike(classes, gathered.claimed)
    note_wide(gathered.empty, support_side)


def _masks(work: Planned) -> list[Path]:
    """The pictures' masks, and each video's first."""
    return [
        *(work.named(job.stem)["png"] for job in work.jobs if not job.is_video),
        *(work.named(f"{job.stem}/{files.frame_stem(0)}")["png"] for job in work.videos),
    ]


def _former(out: Path, *, needed: bool) -> list[Row]:
    """What the tables in a folder say of its masks; UsageError where a file of their name is none, and they are
    `needed`.
    """
    try:
        return rows_of(out)
    except DataError as error:
        if not needed:
            return []
        raise UsageError(f"{error}; move it away, or give another --out") from error


def _check_corrected(out: Path, work: Planned, finished: Finished) -> None:
    """UsageError where masks that are somebody's work lie where none are written: what is written would not be made
    from them.
    """
    queries = {job.query.resolve() for job in work.jobs if not job.address}
    places = sorted(work.masks)
    masks = (mask for place in places for mask in (files.frame_masks(place) if place.is_dir() else [place]))
    if kept := [mask.name for mask in masks if mask.resolve() not in queries and finished.keeps({"png": mask})]:
        raise UsageError(
            f"{out} holds masks that were corrected, or are not fewseg's own ({shortened(kept, 4)}): with --format png "
            "they stay, and the other formats are made from them; or give another --out"
        )


def _by_video(predictor: Predictor, jobs: Sequence[Job], presence: float, *, on: bool, progress: Silent) -> ByVideo:
    """What steadies the frames of videos, where there are some; where the model cannot, that is told."""
    on = on and any(job.is_video for job in jobs)
    if on and (why := hinders(predictor.engine)):
        progress.log(f"note: each frame is found by itself: {why}")
        on = False
    return ByVideo(predictor, presence=presence, on=on)


def _write_overlay_videos(
    work: Planned, failed: set[Path | str], *, every: int, done: Collection[Job]
) -> list[tuple[Path | str, str]]:
    """The overlays of each video's frames as a video at their times, of those that are `done` unless it is there; what
    went wrong.
    """
    wrong = []
    for job, target in work.videos.items():
        if job.query in failed or (job in done and target.is_file()):
            continue

        def overlay_of(number: int, stem: str = job.stem) -> Image.Image | None:
            path = work.named(f"{stem}/{files.frame_stem(number)}")["overlay"]
            return images.read_image(path) if path.is_file() else None

        try:
            write_video(job.query, target, overlay_of, every=every)
        except DataError as error:
            wrong.append((job.query, f"its overlays are there, but no video of them: {error}"))
    return wrong


@contextmanager
def _records(
    work: Planned, predictor: Predictor, classes: Sequence[str], *, shard: Shard | None
) -> Iterator[Callable[[Job, Seen | DataError], None] | None]:
    """The files that tell of all pictures: what adds one to them, None where there is none.

    Of a picture of which something is wrong the table goes on saying what it said.
    """
    several = files.is_label_map(predictor.names)
    lines = table_file(work.table, classes, several=several) if work.table else nullcontext()
    with ExitStack() as stack, lines as tabulate:
        of_all = [(BOOKS[kind][1], path) for kind, path in work.books.items()]
        writers = [stack.enter_context(book(path, classes, predictor.runtime)) for book, path in of_all]

        def add(piece: Job, seen: Seen | DataError) -> None:
            mask = work.named(piece.stem).get("png")
            if isinstance(seen, DataError):
                if tabulate:
                    tabulate(piece.place, mask, None, None)
                return
            for write in writers:
                write(piece, seen.labels, seen.objects, seen.told)
            if tabulate:
                tabulate(piece.place, mask, seen.labels, seen.told, seen.objects, corrected=seen.corrected)

        yield add if writers or tabulate else None
    if not shard:  # what parts told is told here
        remove_parts([*work.books.values(), *([work.table] if work.table else [])])


def _read(
    pieces: Iterable[tuple[Job, Read]], named: Callable[[str], dict[str, Path]], finished: Finished
) -> Iterator[tuple[Job, Image.Image | DataError | Read]]:
    """Pieces with their pictures, or with what is wrong with them; of those that are done, with what reads it."""
    for piece, read in pieces:
        try:
            yield piece, read if finished.has(piece, named(piece.stem)) else read()
        except DataError as error:
            yield piece, error


def _segmented(
    finder: ByVideo,
    named: Callable[[str], dict[str, Path]],
    finished: Finished,
    given: tuple[Job, Image.Image | DataError | Read],
    *,
    presence: float,
    threshold: float,
    min_area: int,
    instances: bool,
    made: str,
) -> tuple[Job, Seen | DataError | None]:
    """What was found in a piece, once its files are written; of one that is `finished`, what its
    mask says; what is no picture is passed on.
    """
    piece, image = given
    if not isinstance(image, Image.Image):
        finder.passed_over()
        if isinstance(image, DataError):
            return piece, image
        try:
            return piece, finished.seen(piece, named(piece.stem), image)
        except DataError as error:
            return piece, error
    with _ONE_LARGE if image.width * image.height > _LARGE else nullcontext():
        try:
            results = _predicted(finder(piece), image)
            maps = [result.proba_if(presence) for result in results]
            labels = label_map(maps, threshold=threshold, min_area=min_area)
            objects = files.objects_of(labels) if instances else None
        except DataError as error:
            return piece, error
        told = told_of_all(results, labels, threshold=threshold)
        how: dict[str, Any] = {"photo": piece.query, "made": made, "told": told}
        files.write(named(piece.stem), image, labels, finder.predictor.names, objects, **how)
    both = claimed(labels, maps, threshold=threshold) if len(maps) > 1 else None
    return piece, Seen(labels, objects, told, claimed=both)


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
    """Pictures and frames in turn, each with what reads it when it is needed; a video that breaks off is told in
    `failed`.
    """
    for job in progress(jobs, "segmenting", len(jobs)):
        if not job.is_video:
            yield job, partial(job.read, rule)
            continue
        for number, frame in frames_so_far(job.query, failed, every=every, progress=progress):
            name = files.frame_stem(number)
            yield Job(job.query, f"{job.name}/{name}", f"{job.stem}/{name}"), partial(to_image, frame)
