"""What several test files let `fewseg segment` do: a few photos, a support, and a model that is quick."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from fewseg.storage.saved import save_model
from helpers import BLUE, RED, scene, tiny_model


def make_work(folder: Path, photos: Sequence[str], colors: Sequence[tuple[int, int, int]] = (RED, BLUE)) -> Path:
    """`photos/` with a box in each, of the colours in turn; `s.png` with its mask `m.png`; the model `tiny`."""
    for i, name in enumerate(photos):
        path = folder / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        box = (10 + 5 * i, 9, 50 + 5 * i, 50)
        Image.fromarray(scene(colors[i % len(colors)], size=(90, 70), box=box)[0]).save(path)
    photo, mask = scene(size=(90, 70), box=(20, 15, 60, 55))
    Image.fromarray(photo).save(folder / "s.png")
    Image.fromarray(mask).save(folder / "m.png")
    save_model(tiny_model("dense"), folder / "tiny")
    return folder


def given(place: Path) -> list[object]:
    """The words that name support and model."""
    return ["--support", place / "s.png", "--mask", place / "m.png", "--model", place / "tiny"]


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
