"""What annotation tools are given to correct, read again: masks to the pixel, or as their polygons are drawn."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from fewseg.data.annotations.label_studio import decode_rle, encode_rle
from fewseg.data.annotations.read import load_supports
from fewseg.segment.books import BOOKS
from fewseg.segment.formats import labelme, objects_of
from fewseg.segment.planning import Job
from helpers import Fewseg, scene

NAMES = ("red cat", 'dog "<&>')


def patches(seed: int) -> NDArray[np.uint8]:
    """Labels (40, 60) of two classes, with holes, corners that touch, and parts at the border."""
    rng = np.random.default_rng(seed)
    coarse = rng.choice(3, (10, 15), p=(0.5, 0.3, 0.2)).astype(np.uint8)
    coarse[0, 0], coarse[-1, -1] = 1, 2
    return np.kron(coarse, np.ones((4, 4), np.uint8))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("a.png", "b & c.png"):
        (tmp_path / "photos/in").mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tmp_path / "photos/in" / name)
    return tmp_path / "photos"


def as_corrected(kind: str, path: Path) -> None:
    """What a person does in the tool who takes all as it is: a prediction becomes an annotation."""
    if kind == "labelstudio":
        tasks = json.loads(path.read_text())
        for number, task in enumerate(tasks, start=1):
            task |= {"id": number, "annotations": [{"result": task["predictions"][0]["result"]}]}
        path.write_text(json.dumps(tasks))


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("kind", sorted(BOOKS))
def test_a_file_for_all_gives_every_mask_back(kind: str, single: bool, photos: Path, tmp_path: Path) -> None:
    path, jobs = tmp_path / BOOKS[kind][0], [Job(p, f"in/{p.name}", p.stem) for p in sorted(photos.rglob("*.png"))]
    written = [patches(1), patches(2)]
    with ExitStack() as stack:
        add = stack.enter_context(BOOKS[kind][1](path, NAMES, "graphs"))
        for job, labels in zip(jobs, written, strict=True):
            add(job, labels, objects_of(labels) if single else None, [(0.9, 0.8, 0.1), (None, None, None)])
        assert not path.exists()
    as_corrected(kind, path)
    found = load_supports(path, photos=photos)
    assert set(found) == set(NAMES)
    for label, name in enumerate(NAMES, start=1):
        images, masks = found[name]
        assert [Path(str(image)).name for image in images] == ["a.png", "b & c.png"]
        for mask, labels in zip(masks, written, strict=True):
            np.testing.assert_array_equal(mask == 1, labels == label)


def test_a_labelme_file_gives_its_mask_back(photos: Path) -> None:
    labels = patches(3)
    (photos / "a.json").write_text(labelme(labels, NAMES, "in/a.png"))
    found = load_supports(photos / "a.json")
    for label, name in enumerate(NAMES, start=1):
        np.testing.assert_array_equal(found[name][1][0] == 1, labels == label)


@given(st.integers(0, 2**16), st.integers(1, 90), st.integers(1, 90), st.sampled_from([0.0, 0.01, 0.5, 1.0]))
def test_brushes_are_the_bytes_that_they_were(seed: int, height: int, width: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    np.testing.assert_array_equal(decode_rle(encode_rle(mask)).reshape(height, width, 4)[..., 3] > 0, mask)


def test_a_brush_of_a_large_photo_has_runs_of_any_length() -> None:
    mask = np.zeros((300, 400), bool)
    mask[250:, 3:] = True
    np.testing.assert_array_equal(decode_rle(encode_rle(mask)).reshape(300, 400, 4)[..., 0] == 255, mask)


@pytest.mark.slow
def test_the_command_writes_for_every_tool_and_takes_the_corrections(tmp_path: Path, fewseg: Fewseg) -> None:
    photo, mask = scene(size=(96, 80), box=(20, 20, 60, 60))
    (tmp_path / "photos").mkdir()
    for path in (tmp_path / "s.png", tmp_path / "photos/q.png"):
        Image.fromarray(photo).save(path)
    Image.fromarray(mask).save(tmp_path / "m.png")
    kinds = [word for kind in ("png", "labelme", *BOOKS) for word in ("--format", kind)]
    words = ("--class", "box", "--support", tmp_path / "s.png", "--mask", tmp_path / "m.png")
    done = fewseg("segment", tmp_path / "photos", *words, *kinds, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    with Image.open(tmp_path / "out/q.png") as picture:
        found = np.asarray(picture) == 255
    assert found.any()
    task: dict[str, Any] = json.loads((tmp_path / "out/labelstudio.json").read_text())[0]
    assert task["data"]["image"] == "/data/local-files/?d=q.png"
    assert 0 < task["predictions"][0]["score"] <= 1
    given = ("--annotations", tmp_path / "out/labelstudio.json", "--photos", tmp_path / "photos")
    early = fewseg("teach", "--class", "box", *given, "--out", tmp_path / "box.concept")
    assert (early.code, "predictions alone, which are no annotations: submit them" in early.err) == (2, True)
    as_corrected("labelstudio", tmp_path / "out/labelstudio.json")
    for name in ("q.json", *(file for file, _ in BOOKS.values())):
        supports = load_supports(tmp_path / "out" / name, photos=tmp_path / "photos")
        np.testing.assert_array_equal(supports["box"][1][0] == 1, found)
    taught = fewseg("teach", "--class", "box", *given, "--out", tmp_path / "box.concept")
    assert taught.code == 0, taught.err
