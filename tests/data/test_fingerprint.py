"""Whether photos or code are what they were."""

from __future__ import annotations

import importlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewseg.data import fingerprint
from fewseg.data.fingerprint import code_fingerprint, photos_fingerprint
from fewseg.data.sets.folder import Folder
from fewseg.data.sets.scenes import Scenes
from fewseg.models.prototype import Prototype


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Ten pictures of two classes, all of one size in bytes."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        for n in range(5):
            for part, pixels in (
                ("images", rng.integers(0, 256, (16, 16, 3))),
                ("masks", rng.integers(0, 2, (16, 16))),
            ):
                file = tmp_path / "data" / part / name / f"{name}{n}.bmp"
                file = file if part == "images" else file.with_suffix(".png")
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.astype(np.uint8)).save(file)
    return tmp_path / "data"


def of(data: Path) -> dict[str, str]:
    return photos_fingerprint(Folder(root=str(data)))


def read_only(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ALL", "READ"):
        monkeypatch.setattr(fingerprint, name, limit)


def test_a_copy_has_the_same_photos(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = of(data)
    shutil.copytree(data, tmp_path / "copy")
    for photo in (tmp_path / "copy" / "images").rglob("*.bmp"):
        os.utime(photo, (1, 1))
    assert of(tmp_path / "copy") == of(data) == before
    # of photos that are not all read, a change shows in their dates
    read_only(2 * photo.stat().st_size, monkeypatch)
    before, after = of(data), of(tmp_path / "copy")
    assert after["photos"] == before["photos"]
    assert after["dates"] != before["dates"]


def test_a_photo_of_the_same_size_and_date_is_told_by_its_content(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = of(data)
    photo = next((data / "images").rglob("*.bmp"))
    kept = photo.stat()
    photo.write_bytes(photo.read_bytes()[:-3] + b"abc")
    os.utime(photo, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    assert of(data) != before
    # of many photos only some are read, but all of them replaced are noticed
    read_only(2 * kept.st_size, monkeypatch)
    some = of(data)
    for photo in (data / "images").rglob("*.bmp"):
        photo.write_bytes(photo.read_bytes()[:-3] + b"xyz")
    assert of(data)["photos"] != some["photos"]


def test_a_missing_photo_is_no_error(data: Path) -> None:
    source = Folder(root=str(data))
    before = photos_fingerprint(source)
    source.image_path(0).unlink()
    assert photos_fingerprint(source) != before


def test_drawn_images_are_known_by_their_options() -> None:
    assert photos_fingerprint(Scenes(images=20)) == photos_fingerprint(Scenes(images=20))
    assert photos_fingerprint(Scenes(images=20))["photos"] != photos_fingerprint(Scenes(images=20, seed=1))["photos"]


def test_the_code_of_one_s_own_method_counts_with_what_lies_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own_method"
    own.mkdir()
    (own / "__init__.py").touch()
    (own / "helper.py").write_text("SCALE = 2\n")
    (own / "method.py").write_text("from fewseg.models.prototype import Prototype\nclass Own(Prototype):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    cls = importlib.import_module("own_method.method").Own
    before = code_fingerprint(cls)
    assert before == code_fingerprint(cls) != code_fingerprint(Prototype)
    (own / "helper.py").write_text("SCALE = 3\n")
    assert code_fingerprint(cls) != before


def test_a_class_without_a_file_has_a_fingerprint() -> None:
    space: dict[str, type] = {}
    exec("class Typed:\n    __module__ = '__typed__'\n    def one(self): return 1\n", space)
    exec("class Other:\n    __module__ = '__typed__'\n    def one(self): return 2\n", space)
    assert code_fingerprint(space["Typed"]) != code_fingerprint(space["Other"])
