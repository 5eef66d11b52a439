"""What made a mask, said in its own file, so that a run that goes on can tell when the earlier masks are of another."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from fewseg.errors import DataWarning
from fewseg.files import file_sha256
from fewseg.segment.formats import MADE_BY
from fewseg.segment.steady import Predictor


def origin(predictor: Predictor, **how: float) -> str:
    """In words: the model, its method and weights, the supports' files by their content, and how masks are drawn."""
    engine = predictor.engine
    supports = hashlib.sha256("".join(sorted(map(file_sha256, predictor.support_files))).encode()).hexdigest()
    told = [engine.name, f"method {engine.method}", f"weights {engine.weights[:8] or 'of no file'}"]
    told += [f"supports {supports[:8]}"] if predictor.support_files else []
    return ", ".join([*told, *(f"{name} {value:g}" for name, value in how.items())])


def note_others(masks: Sequence[Path], made: str) -> None:
    """Tell of masks that are there, and were made otherwise: `--resume` leaves them as they are."""
    there = [path for path in masks if path.is_file()]
    others = [path for path in there if (theirs := _said(path)) and theirs != made]
    if others:
        warnings.warn(
            f"{len(others)} of {len(there)} masks that are there, and stay, were made otherwise: {others[0].name} by "
            f"{_said(others[0])}; this run by {made}. For masks of one kind give another --out",
            DataWarning,
            stacklevel=2,
        )


def _said(mask: Path) -> str:
    """What made a mask; empty where it does not say."""
    try:
        with Image.open(mask) as picture:
            return str(picture.info.get(MADE_BY, ""))
    except (OSError, UnidentifiedImageError):
        return ""
