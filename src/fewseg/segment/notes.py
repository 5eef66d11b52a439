"""What a user may not expect of a run over many pictures, told before it starts."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Sequence
from functools import partial
from itertools import combinations, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewseg.data.masks import read_marking
from fewseg.errors import DataWarning, shortened
from fewseg.segment import formats as files
from fewseg.segment import windows
from fewseg.segment.books import BOOKS
from fewseg.segment.planning import Job
from fewseg.segment.review import NAME as REVIEW
from fewseg.segment.table import NAME as TABLE

_LOOKED_AT = 100
"""Pictures whose files of other formats are looked for (another run over the same folder wrote those of the first), and
masks that are asked whose they are."""
_SHOWN = 4
_ALIKE = 0.3
"""Of a class's pixels, the share from which on it is told that another class marks them too."""
_WIDE = 3
"""How many times the supports' side a picture has, at least, in which things may be too small to be found."""


def note_supports(
    jobs: Sequence[Job],
    supports: Collection[Path],
    names: Collection[str],
    kept: Callable[[Job], bool] = lambda _: False,
) -> None:
    """Tell of supports, and their masks, that are among the pictures: they are segmented like the others.

    `names` are those of a concept's photos, of which it keeps no more than the name. Pictures whose corrected mask is
    `kept` are not told.
    """
    taught = [job for job in jobs if job.query.name in names]
    given = [job for job in jobs if not job.address and job.query.resolve() in supports]
    for what, found in (("some that taught, by their names", taught), ("supports or their masks", given)):
        if shown := [job.query.name for job in found if not kept(job)]:
            warnings.warn(
                f"among the photos are {what} ({shortened(shown, _SHOWN)}): what is written for them is the model's "
                "answer, not the mask that was given",
                DataWarning,
                stacklevel=2,
            )


def note_wide(empty: Sequence[tuple[Job, int]], support_side: int | None) -> None:
    """Tell of pictures in which nothing was found, and which are far larger than the supports, given with their longer
    sides: things that are small in them are not seen. Videos and what lies in a store are not read in windows.
    """
    side, whole = support_side or 0, ((job, longer) for job, longer in empty if not job.is_video and not job.address)
    if wide := [job.query.name for job, longer in whole if 0 < _WIDE * side <= longer]:
        warnings.warn(
            f"nothing was found in {shortened(wide, _SHOWN)}, at least {_WIDE} times as large as the supports: if "
            f"things are small there, look through windows: --window {max(side, windows.LEAST)}",
            DataWarning,
            stacklevel=2,
        )


def note_alike(names: Sequence[str], claimed: NDArray[np.int64]) -> None:
    """Tell of classes of which one marks much of what was given to the other: (C, C) as `data.winners.claimed`."""
    share = claimed / np.maximum(claimed.diagonal()[:, None], 1)
    pairs = [(one, other) for one, other in combinations(range(len(names)), 2)]
    alike = [(one, other) for one, other in pairs if max(share[one, other], share[other, one]) >= _ALIKE]
    marked = claimed.diagonal() > 0

    def told(one: int, other: int) -> str:
        parts = [(one, other), (other, one)]
        each = (f"{100 * share[i, j]:.0f} % of what is marked as {names[i]}" for i, j in parts if marked[i])
        return f"{names[one]} and {names[other]} ({', '.join(each)})"

    if alike:
        found = "; ".join(told(*pair) for pair in alike)
        warnings.warn(
            f"in the same places the model finds {found}: which of them it is may be wrong there. Teach each with "
            "photos of the other as --absent, and of more photos",
            DataWarning,
            stacklevel=2,
        )


def note_corrected(masks: Sequence[Path], *, several: bool) -> None:
    """Tell of masks that are somebody's work, and stay: what tells of them is made anew. `several`: of classes."""
    if masks:
        colored = [mask.name for mask in masks if _mode(mask) in ("RGB", "RGBA")]
        soft = [] if several else [mask.name for mask in masks if read_marking(mask).soft]
        told = f" ({shortened(colored, _SHOWN)} in colours, as saved, without the classes' values)" if colored else ""
        told += f" ({shortened(soft, _SHOWN)} with soft edges, of which the upper half is the object)" if soft else ""
        warnings.warn(
            f"kept, since corrected or not fewseg's own: {shortened([mask.name for mask in masks], _SHOWN)}{told}; "
            "tables, counts, overlays and other formats are made from what is there, whatever --min-area is, and "
            "another --out has the model's answers",
            DataWarning,
            stacklevel=2,
        )


def _mode(mask: Path) -> str:
    with Image.open(mask) as picture:
        return picture.mode


def note_of_others(masks: Sequence[Path]) -> None:
    """Tell of masks that were made anew although they were there: they were of other photos."""
    if masks:
        shown = shortened([mask.name for mask in masks], _SHOWN)
        warnings.warn(
            "made anew, since the masks that were there are of other photos of the same names, or these have changed: "
            f"{shown}",
            DataWarning,
            stacklevel=2,
        )


def note_older(jobs: Sequence[Job], out: Path, targets: Collection[Path]) -> None:
    """Tell of files in `out` that an earlier run wrote, in formats or of pictures that this one does not: they stay."""
    named = partial(files.outputs, out_dir=out, formats=files.FORMATS, overlay=True, single=True)
    possible = [out / name for name in (*(book for book, _ in BOOKS.values()), TABLE, files.CLASSES)]
    possible += [] if out / TABLE in targets else [out / REVIEW]  # with a table, the review is written afterwards
    possible += [path for job in jobs[:_LOOKED_AT] if not job.is_video for path in named(job.stem).values()]
    written = {*targets, *(job.query for job in jobs)}
    if found := [path.name for path in possible if path not in written and path.is_file()]:
        warnings.warn(
            f"{out} holds files that this run does not write ({shortened(found, _SHOWN)}): those of an earlier one "
            "tell of its masks; give another --out, or remove what nobody has worked on",
            DataWarning,
            stacklevel=2,
        )
    if found := _of_others(jobs, out):
        warnings.warn(
            f"{out} holds masks of photos that this run was not given ({shortened(found, _SHOWN)}): they stay, and no "
            "table or other file of this run tells of them",
            DataWarning,
            stacklevel=2,
        )


def _of_others(jobs: Sequence[Job], out: Path) -> list[str]:
    """Masks that fewseg wrote where those of these pictures go, and of none of them."""
    masks = {out / f"{job.stem}.png" for job in jobs}
    given = masks | {job.query for job in jobs}
    there = (
        path for folder in sorted({mask.parent for mask in masks} | {out}) for path in sorted(folder.glob("*.png"))
    )
    others = islice((path for path in there if path not in given), _LOOKED_AT)
    return [str(path.relative_to(out)) for path in others if files.MADE_BY in files.signature(path)]
