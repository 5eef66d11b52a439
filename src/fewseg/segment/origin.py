"""What made a mask, said in its own file, so that a run that goes on can tell when the earlier masks are of another."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewseg.errors import DataWarning
from fewseg.files import file_sha256
from fewseg.segment.formats import MADE_BY, signature
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


def note_others(masks: Sequence[Path], made: str) -> None:
    """Tell of masks that are there, and were made otherwise: `--resume` leaves them as they are."""
    there = [path for path in masks if path.is_file()]
    said = ((path, signature(path).get(MADE_BY)) for path in there)
    others = [(path, theirs) for path, theirs in said if theirs and theirs != made]
    if others:
        first, theirs = others[0]
        warnings.warn(
            f"{len(others)} of {len(there)} masks that are there, and stay, were made otherwise: {first.name} by "
            f"{theirs}; this run by {made}. Without --resume all but corrected ones are made anew",
            DataWarning,
            stacklevel=2,
        )
