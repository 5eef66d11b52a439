"""Photos and masks in places that fsspec knows, through the command line."""

from __future__ import annotations

import csv
import io
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from fewseg.errors import install_line
from fewseg.segment.remote import files_at
from helpers import Fewseg, Result
from segment.small_work import contents, given, make_work

NAMES = ("a.png", "in/b.png", "in/c.png")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos as files and in an archive, a support, and a model that is quick."""
    folder = make_work(tmp_path_factory.mktemp("stored"), NAMES)
    (folder / "photos/notes.txt").write_text("no picture")
    shutil.make_archive(str(folder / "photos"), "zip", folder / "photos")
    return folder


@pytest.fixture
def find(place: Path, fewseg: Fewseg) -> Callable[..., Result]:
    words = [*given(place), "--no-overlay", "--format", "png", "--format", "csv", "--format", "coco"]
    return lambda photos, out, *more: fewseg("segment", photos, *words, "--out", out, *more)


def pixels(png: bytes) -> bytes:
    return Image.open(io.BytesIO(png)).tobytes()


def test_photos_of_a_store_give_the_masks_of_files_and_masks_go_to_one(
    place: Path, find: Callable[..., Result], tmp_path: Path
) -> None:
    assert find(place / "photos", tmp_path / "whole").code == 0
    wanted = contents(tmp_path / "whole")
    for number, photos in enumerate((f"zip://::{place}/photos.zip", f"file://{place}/photos")):
        out = tmp_path / f"out{number}"
        done = find(photos, f"file://{out}")
        assert done.code == 0, done.err
        assert "files that are no pictures" in done.err
        assert f"3 masks in file://{out}" in done.out
        found = contents(out)
        assert set(found) == set(wanted)
        assert found["annotations.json"] == wanted["annotations.json"]
        assert all(pixels(found[name]) == pixels(wanted[name]) for name in NAMES)
        with open(out / "results.csv", newline="") as file:
            assert [row["photo"] for row in csv.DictReader(file)] == [files_at(photos)[n] for n in NAMES]


def test_masks_and_hidden_files_of_a_store_are_no_photos(
    place: Path, find: Callable[..., Result], tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(place / "photos", photos)
    shutil.copy(place / "m.png", photos / "in/b_mask.png")
    shutil.copytree(place / "photos/in", photos / "in/.thumbs")
    shutil.copy(place / "photos/a.png", photos / "._a.png")
    done = find(f"file://{photos}", tmp_path / "out")
    assert (done.code, "3 masks in" in done.out) == (0, True)
    assert "masks of photos by their names, left out (one: in/b_mask.png)" in " ".join(done.err.split())


def test_parts_resume_and_failures_hold_in_a_store(place: Path, find: Callable[..., Result], tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    shutil.copytree(place / "photos", photos)
    whole = (photos / "a.png").read_bytes()
    (photos / "a.png").write_bytes(whole[:200])
    where = f"file://{photos}", f"file://{out}"
    assert [find(*where, "--shard", f"{part}/2").code for part in (1, 2)] == [1, 0]
    (row,) = csv.DictReader((out / "failures-1of2.csv").read_text().splitlines())
    assert row["path"] == f"file://{photos}/a.png"
    assert row["path"] in row["reason"]
    (photos / "a.png").write_bytes(whole)
    merged = find(*where, "--resume")
    assert "1 mask in" in merged.out
    assert "2 there already" in merged.out
    assert set(contents(out)) == {*NAMES, "results.csv", "annotations.json"}  # what parts told is gone there, too


@pytest.mark.parametrize(
    ("photos", "more", "told"),
    [
        ("https://example.org/photos", (), "fetches nothing by itself"),
        ("simplecache::http://example.org/a.png", (), "fetches nothing by itself"),
        ("nowhere://photos", (), "Protocol not known: nowhere"),
        ("memory://none", (), "no such file or folder"),
        ("file://{place}/photos", ("--format", "labelme"), "names a picture on the disk"),
        ("file://{place}/photos", ("--window", "64", "--format", "geotiff"), "in windows from the disk alone"),
        ("file://{place}", ("--out", "file://{place}/masks"), "none among the photos"),
        ("file://{place}/photos", ("--out", "zip://a::{place}/photos.zip"), "zip://a::"),
    ],
)
def test_what_cannot_be_is_refused_in_words(
    photos: str, more: tuple[str, ...], told: str, place: Path, tmp_path: Path, fewseg: Fewseg
) -> None:
    said = [word.format(place=place) for word in more]
    refused = fewseg("segment", photos.format(place=place), *given(place), "--out", tmp_path / "out", *said)
    assert refused.code == 2
    assert told in " ".join(refused.err.split())


def test_without_the_library_it_says_what_to_install(
    place: Path, find: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    refused = find("s3://bucket/photos", tmp_path / "out")
    assert (refused.code, install_line("remote") in " ".join(refused.err.split())) == (2, True)
