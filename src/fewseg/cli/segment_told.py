"""What `fewseg segment` tells at its end: masks, objects, doubts, and photos that could not be segmented."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fewseg.cli.printing import failed_photos, say
from fewseg.errors import DataError
from fewseg.progress import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fewseg.segment import SegmentSummary
    from fewseg.segment.shards import Shard

_SPECK_SHARE, _SPECK_PIXELS = 0.1, 9
"""Of the usual object's pixels (half of all pixels lie in larger ones), and of pixels: what is smaller is told of."""


def tell_masks(summary: SegmentSummary, folder: Path, out: str, part: Shard | None) -> None:
    """The masks of a run, or of a part of one, in `folder`, which the user calls `out`; DataError where some failed."""
    from fewseg.segment.shards import list_failures

    counts = {"of them empty": len(summary.empty), "there already": summary.skipped, "failed": len(summary.failed)}
    told = "".join(f", {count} {what}" for what, count in counts.items() if count)
    if part and part.number > summary.planned:
        photos = counted(summary.planned, "photo")
        say(f"--shard {part.number}/{part.count} holds none of the {photos}: the parts before it do, one each")
    else:
        say(f"{counted(len(summary.written), 'mask')} in {out}{told}, by {summary.runtime}")
    for name, sizes in (summary.sizes or {}).items():
        say(objects_told(name, sizes, len(summary.written) + summary.skipped))
    if file := list_failures(folder, summary.failed, part):
        told = f"could not be segmented, listed in {out}/{file.name}; --resume tries them again"
        raise DataError(failed_photos(summary.failed, told))


def tell_doubts(folder: Path, out: str) -> None:
    """Sort the table by doubt, write the page of what to look at first, and name the first of it."""
    from fewseg.segment.review import NAME as REVIEW
    from fewseg.segment.review import sort_by_doubt
    from fewseg.segment.table import NAME as TABLE

    if (folder / TABLE).is_file():
        first = ", ".join(f"{photo} ({100 * doubt:.0f} %)" for photo, doubt in sort_by_doubt(folder / TABLE)[:3])
        told = f"; the greatest doubt is in {first}" if first else ""
        say(f"{out}/{REVIEW}: what to look at first{told}")


def objects_told(name: str, sizes: Sequence[NDArray[np.int64]], photos: int) -> str:
    """How many objects of a class there are in so many photos, by their pixels in each, and how many are specks."""
    import numpy as np

    counts = [len(each) for each in sizes] + [0] * (photos - len(sizes))
    if not sizes:
        return f"{name}: none"
    every = np.concatenate(sizes)
    told = f"{name}: {len(every)} in {counted(photos, 'photo')}"
    told += f", {min(counts)} to {max(counts)} in each" if photos > 1 else ""
    ordered = np.sort(every)
    usual = int(ordered[np.searchsorted(np.cumsum(ordered), ordered.sum() / 2)])  # many specks are no usual object
    least = max(_SPECK_PIXELS, round(_SPECK_SHARE * usual))
    if specks := np.count_nonzero(every < least):
        told += (
            f"; {specks} of fewer than {least} pixels (half of all pixels lie in objects of {usual} and more): if "
            f"these are specks, --min-area {least} leaves them out"
        )
    return told
