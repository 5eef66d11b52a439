"""Many pictures of any size, each read in windows: what `segment_folder` is for pictures that are read whole."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial

from fewseg.errors import DataError, UsageError
from fewseg.progress import Silent
from fewseg.segment import formats as files
from fewseg.segment.large import FORMATS, Cut, needed, outputs, segment_large
from fewseg.segment.notes import note_supports
from fewseg.segment.outputs import clear_leftovers, output_folder, protect, unknown_formats
from fewseg.segment.planning import plan
from fewseg.segment.shards import Shard
from fewseg.segment.steady import Predictor
from fewseg.segment.summary import SegmentSummary
from fewseg.segment.windows import LEAST


def check_large_formats(formats: Sequence[str]) -> None:
    """UsageError where a format is not one of pictures that are read in windows."""
    if given := unknown_formats(formats, FORMATS):
        raise UsageError(f"format {given} of a picture that is read in windows: choose {', '.join(FORMATS)}")


def segment_large_folder(
    predictor: Predictor,
    queries: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out_dir: str | os.PathLike[str],
    *,
    formats: Sequence[str] = ("geotiff",),
    window: int | None = None,
    overlay: bool = True,
    threshold: float = 0.5,
    presence: float = 0.5,
    min_area: int = 0,
    resume: bool = False,
    shard: Shard | None = None,
    progress: Silent | None = None,
) -> SegmentSummary:
    """Segment pictures of any size (TIFF, JPEG 2000, PNG, JPEG) in windows of `window` pixels a side that overlap.

    `window` None: as large as the photos of the supports, so that objects appear as large as there. `formats`: geotiff
    gives `STEM.tif`, tiled, where the picture lies (always written), gpkg `STEM.gpkg` and geojson `STEM.geojson` the
    outlines in the picture's CRS, or in pixels where it has none; `overlay` a small `STEM_overlay.jpg`. A class that a
    window holds with less than the probability `presence` is left out of it; a part is dropped for `min_area` where it
    ends within a window. The rest is as for `segment_folder`.
    """
    check_large_formats(formats)
    needed("rasterio")
    if "gpkg" in formats:
        needed("pyogrio")
    out = output_folder(out_dir)
    side = window or predictor.support_side
    if side is None:
        raise UsageError("how large the photos of the supports were is not known; give --window SIDE, in pixels")
    if side < LEAST:
        raise UsageError(f"a window of {side} x {side} pixels shows too little; give at least {LEAST}")
    jobs = plan(queries, out)
    count = len(jobs)
    if video := next((job.query for job in jobs if job.is_video), None):
        raise UsageError(f"{video} is a video, which is not read in windows; leave out --window, geotiff and gpkg")
    if far := next((job.address for job in jobs if job.address), None):
        raise UsageError(f"{far} is read in windows from the disk alone; copy it there, or leave out --window")
    named = partial(outputs, out_dir=out, formats=formats, overlay=overlay)
    targets = [path for job in jobs for path in named(job.stem).values()]
    protect({job.query.resolve() for job in jobs} | predictor.support_files, targets, [])
    note_supports(jobs, predictor.support_files, predictor.support_names)
    jobs = shard.share(jobs) if shard else jobs
    clear_leftovers([path for job in jobs for path in named(job.stem).values()], [])
    progress = progress or Silent()
    told = "as --window says" if window else "as large as the supports' photos (--window SIDE chooses)"
    progress.log(f"windows of {side} x {side} pixels, {told}")
    written, empty, failed, skipped = [], [], [], 0
    cut = Cut(side, threshold, presence, min_area)
    for job in jobs:
        paths = named(job.stem)
        if resume and all(path.is_file() for path in paths.values()):
            skipped += 1
            continue
        try:
            found = segment_large(predictor, job.query, paths, cut, progress=progress)
        except DataError as error:
            failed.append((job.query, str(error)))
            continue
        written.append((job.query, paths["geotiff"]))
        empty += [] if found else [job.query]
    if files.is_label_map(predictor.names) and written:
        files.write_classes(out / files.CLASSES, predictor.names or ())
    return SegmentSummary(tuple(written), tuple(empty), tuple(failed), skipped, count, None, predictor.runtime)
