"""What made a mask, said in its own file: a run that goes on can tell when the earlier masks are of another, and its
answers are not taken for somebody's work.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fewseg.data.pairs import own_name
from fewseg.errors import DataWarning, UsageError
from fewseg.files import file_sha256
from fewseg.progress import counted
from fewseg.segment.books import as_fewseg_wrote
from fewseg.segment.corrected import as_written
from fewseg.segment.formats import MADE_BY, NAMES, PIXELS, signature
from fewseg.segment.steady import Predictor


def origin(predictor: Predictor, **how: float) -> str:
    """In words: the model, its method and weights, the supports' files by their content, and how masks are drawn
    (`how`, unless the predictor says otherwise: a concept brings its method and threshold).
    """
    engine = predictor.engine
    # a frame of a video has a name (clip.mp4@12.5s), and no file of its own
    files = "".join(sorted(file_sha256(p) if p.is_file() else p.name for p in predictor.support_files))
    settings: dict[str, Any] = {
        "method": engine.method,
        "weights": engine.weights[:8] or "of no file",
        "supports": hashlib.sha256(files.encode()).hexdigest()[:8] if files else None,
    }
    settings |= how | predictor.settings
    return ", ".join([engine.name, *(f"{name} {value}" for name, value in settings.items() if value is not None)])


def note_others(masks: Sequence[Path], made: str, names: Sequence[str] | None) -> None:
    """Tell of masks that are there, and were made otherwise: `--resume` leaves them as they are. UsageError where one
    is of other classes than `names`, which every table would call it.
    """
    said = {path: signature(path) for path in masks if path.is_file()}
    for path, one in said.items():
        if names and (theirs := one.get(NAMES, "null")) not in ("null", json.dumps(names)):
            raise UsageError(
                f"--resume: {path} is of {', '.join(json.loads(theirs))}, and this run is of {', '.join(names)}; leave "
                "out --resume to make all anew, or give another --out"
            )
    there, each = [*said], ((path, one.get(MADE_BY)) for path, one in said.items())
    others = [(path, theirs) for path, theirs in each if theirs and theirs != made]
    if others:
        first, theirs = others[0]
        warnings.warn(
            f"{len(others)} of {len(there)} masks that are there, and stay, were made otherwise: {first.name} by "
            f"{theirs}; this run by {made}. Without --resume all but corrected ones are made anew",
            DataWarning,
            stacklevel=2,
        )


def note_mixed(photos: Sequence[Any], masks: Sequence[Any]) -> None:
    """Tell of mask files of a class that have the name of another photo, or that several photos were given."""
    pairs = [(p, m) for p, m in zip(photos, masks, strict=True) if isinstance(p, Path) and isinstance(m, Path)]
    named = {own_name(photo): photo for photo, _ in pairs}
    for photo, mask in pairs:
        of = named.get(own_name(mask), photo)
        if own_name(of) != own_name(photo):
            _tell(f"{mask.name} is called like {of.name}, but was given as the mask of {photo.name}")
    given: dict[Path, Path] = {}
    for photo, mask in pairs:
        if (first := given.setdefault(mask.resolve(), photo)) != photo:
            _tell(f"{mask.name} was given as the mask of {first.name} and of {photo.name}")


def _tell(text: str) -> None:
    warnings.warn(f"{text}; give each photo its own, in the order of the photos", DataWarning, 3)


def note_answers(masks: Iterable[Any], export: Path | None) -> None:
    """Tell of supports in files that fewseg wrote, and nobody changed: mask files among `masks`, and an `export`'s."""
    files = ((mask, signature(mask).get(PIXELS)) for mask in masks if isinstance(mask, Path))
    drawn = [mask for mask, pixels in files if pixels and as_written(mask, pixels)]
    drawn += as_fewseg_wrote(export) if export else []
    if drawn:
        what = drawn[0].name if len(drawn) == 1 else f"{counted(len(drawn), 'file')}, {drawn[0].name} the first"
        warnings.warn(
            f"masks in files that fewseg wrote, and nobody changed, are supports ({what}): what they miss is taught "
            "as background, and what to expect is told too high; look at them, and correct them first",
            DataWarning,
            stacklevel=2,
        )
