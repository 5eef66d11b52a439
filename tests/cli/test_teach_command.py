"""`fewseg teach`, and what `fewseg segment` does with what it wrote."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from docs_shell import blocks
from fewseg.cli.segment_told import objects_told
from fewseg.concept import Concept, adapting
from fewseg.data.images import label_colors, read_image
from fewseg.errors import UsageError
from fewseg.storage.saved import save_model
from fewseg.training import adapt
from helpers import BLUE, RED, Fewseg, Result, iou, scene, tiny_model

SIZE = (120, 90)
PAGE = Path(__file__).resolve().parents[2] / "docs/own-photos.md"


def photo(path: Path, color=RED, *, box=(20, 15, 70, 60)) -> np.ndarray:
    """A photo on disk; returns where its box is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels, mask = scene(color, size=SIZE, box=box)
    Image.fromarray(pixels).save(path)
    return mask


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Three annotated photos, one without the object, and two others."""
    for i in range(3):
        mask = photo(tmp_path / f"s{i}.png", box=(15 + 8 * i, 15, 60 + 8 * i, 60))
        Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / f"m{i}.png")
    Image.fromarray(np.full((90, 120, 3), 90, np.uint8)).save(tmp_path / "none.png")
    for i in range(2):
        photo(tmp_path / f"photos/{i}.png", box=(30, 20 + 5 * i, 90, 70))
    return tmp_path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that is quick."""
    return save_model(tiny_model("dense"), tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def quick(fewseg: Fewseg, tiny: Path) -> Callable[..., Result]:
    """The command line, with that model."""
    return lambda *given: fewseg(*given, "--model", tiny)


def words(place: Path, count: int = 3) -> list[object]:
    """Supports as options."""
    return [w for i in range(count) for w in ("--support", place / f"s{i}.png", "--mask", place / f"m{i}.png")]


def table(folder: Path) -> list[dict[str, str]]:
    with open(folder / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_class_is_taught_once_and_found_everywhere(place: Path, tiny: Path, quick: Callable[..., Result]) -> None:
    target = place / "box.concept"
    done = quick("teach", "--class", "box", *words(place), "--absent", place / "none.png", "--out", target)
    assert done.code == 0, done.err
    assert "support: s0.png: m0.png: 0 and 255: 255 is the object; " in done.out
    assert "without the class: none.png" in done.out
    assert "3 supports, expect " in done.out
    concept = Concept.load(target)
    assert concept.model.name == tiny.name  # not the shipped one
    assert f"expect {concept.expected}" in done.out
    assert concept.presence is not None
    assert concept.presence.absent == 1
    assert read_image(place / "box_supports.png").width > 500
    found = quick("segment", "--concept", target, place / "photos", place / "none.png", "--out", place / "out")
    assert found.code == 0, found.err
    assert "that taught" not in found.err
    assert f"{concept.choice}" in found.out
    truth = scene(size=SIZE, box=(30, 20, 90, 70))[1]
    assert iou(np.asarray(Image.open(place / "out/0.png")) == 255, truth) > 0.6
    rows = {Path(row["photo"]).name: row for row in table(place / "out")}
    assert float(rows["0.png"]["presence"]) > 0.5 > float(rows["none.png"]["presence"])
    assert rows["none.png"]["parts"] == "0"
    assert rows["0.png"]["class"] == "box"
    assert int(rows["0.png"]["parts"]) >= 1
    left, top, right, bottom = map(int, rows["0.png"]["boxes"].split()[0].split(","))
    assert abs(left - 30) < 12
    assert abs(bottom - 70) < 12
    assert (right - left) * (bottom - top) >= int(rows["0.png"]["sizes"].split()[0])
    assert 0 < float(rows["0.png"]["expected_iou"]) <= 1


@pytest.mark.slow
def test_another_process_and_torch_give_the_same_masks(place: Path, fewseg: Fewseg) -> None:
    target = place / "box.concept"
    assert fewseg("teach", "--class", "box", *words(place, 1), "--out", target).code == 0
    ways = {"a": (), "b": (), "torch": ("--runtime", "torch")}
    for out, more in ways.items():
        command = ("segment", "--concept", target, *more, place / "photos", "--out", place / out, "--no-overlay")
        if out == "b":
            process = [sys.executable, "-m", "fewseg", *map(str, command)]
            assert subprocess.run(process, check=False, capture_output=True).returncode == 0
        else:
            assert fewseg(*command).code == 0
    for name in ("0.png", "1.png"):
        one, again, other = (np.asarray(Image.open(place / out / name)) for out in ways)
        np.testing.assert_array_equal(one, again)
        assert iou(one == 255, other == 255) > 0.999


@pytest.mark.slow
def test_corrected_masks_come_back_as_supports(place: Path, quick: Callable[..., Result]) -> None:
    target, out = place / "box.concept", place / "out"
    assert quick("teach", "--class", "box", *words(place, 2), "--out", target).code == 0
    assert quick("segment", "--concept", target, place / "photos", "--out", out).code == 0
    command = ("teach", "--concept", target, "--correct", out)
    asked = quick(*command)
    assert asked.code == 1
    assert "every mask is as it was written (2)" in asked.err
    truth = scene(size=SIZE, box=(30, 20, 90, 70))[1]
    Image.fromarray(np.where(truth, 128, 0).astype(np.uint8) + np.eye(90, 120, dtype=np.uint8) * 127).save(
        out / "0.png"
    )
    several = quick(*command)
    assert "Say it with --label VALUE" in several.err
    assert quick(*command, "--label", ">=128", "--out", place / "copy.concept").code == 0
    Image.fromarray(truth.astype(np.uint8) * 255).convert("RGB").save(out / "0.png")
    Image.fromarray(truth).save(out / "1 (copy).jpg")
    done = quick(*command)
    assert done.code == 0, done.err
    assert "pictures that are called like no mask, passed over" in " ".join(done.err.split())
    assert "1 corrected mask; 1 as written, left out" in done.out
    assert "before: expect" in done.out
    assert "3 supports, expect" in done.out
    concept = Concept.load(target)
    assert [example.name for example in concept.supports] == ["s0.png", "s1.png", "0.png"]
    assert concept.supports[2].mask.mean() == pytest.approx(truth.mean(), abs=0.01)
    found = quick("segment", "--concept", target, place / "photos", "--out", place / "other", "--format", "csv")
    unmasked = quick("teach", "--concept", target, "--correct", place / "other")
    assert "names no masks: they were not written" in unmasked.err
    assert "among the photos are some that taught, by their names (0.png): what is written for them" in found.err
    again = quick(*command)
    assert "the concept has 0.png already, with the same masks" in again.err
    assert len(Concept.load(target).supports) == 3
    other = ("--support", place / "s0.png", "--mask", place / "m1.png", "--out", place / "other.concept")
    replaced = quick("teach", "--concept", target, *other)
    assert "s0.png in the concept: its mask is replaced by the one given now" in replaced.err
    assert len(Concept.load(place / "other.concept").supports) == 3
    assert "give the mask, not its overlay" in quick(*command, "--correct", out / "0_overlay.jpg").err
    mended = (out / "0.png").read_bytes()
    segment = ("segment", "--concept", target, place / "photos", "--out", out)
    drawn, former = (out / "0_overlay.jpg").read_bytes(), (out / "1.png").read_bytes()
    anew = quick(*segment)
    assert anew.code == 0, anew.err
    assert (out / "0.png").read_bytes() == mended, "it is somebody's work"
    assert (out / "1.png").read_bytes() != former, "by three supports"
    assert "corrected or not fewseg's own: 0.png" in " ".join(anew.err.split())
    assert "1 mask in" in anew.out
    assert (out / "0_overlay.jpg").read_bytes() != drawn
    assert "1 corrected mask; 1 as written" in quick(*command).out
    (out / "0_overlay.jpg").write_bytes(drawn)
    more = ("--resume", "--format", "png", "--format", "geojson")  # whose file the mask has not yet
    assert quick(*segment, *more, "--shard", "1/2").code == 0
    resumed = quick(*segment, *more)
    assert resumed.code == 0
    assert (out / "0.png").read_bytes() == mended
    assert "corrected or not fewseg's own: 0.png" in " ".join(resumed.err.split())
    assert "that taught" not in resumed.err, "what is there for it is the mask that was given"
    assert (out / "0_overlay.jpg").read_bytes() != drawn
    row, other = table(out)
    assert (row["mask"], float(row["share"])) == ("0.png", pytest.approx(truth.mean(), abs=1e-5))
    told = [row[column] for column in ("presence", "expected_iou", "doubt")]
    assert (told, bool(other["expected_iou"])) == (["", "", ""], True), "no concept made it"
    (shape,) = json.loads((out / "0.geojson").read_text())["features"]
    assert shape["properties"]["pixels"] == truth.sum()
    assert "1 corrected mask; 1 as written" in quick(*command).out, "it is still known as one"
    reviewed = quick(*segment, *more, "--review")
    page = (out / "review.html").read_text()
    assert "0.png</b> (0.png), corrected<br>" in page, "no doubt is in it"
    assert page.count("doubt ") == 1
    assert "the greatest doubt is in" in reviewed.out
    assert "0.png (" not in reviewed.out
    (out / "0.png").write_bytes(mended[:60])
    broken = quick(*segment, *more)
    assert broken.code == 1
    assert "1 photo could not be segmented" in broken.err
    assert "0.png" in broken.err
    assert [line["mask"] for line in table(out)] == ["0.png", "1.png"]
    (out / "0.png").write_bytes(mended)
    assert "corrected or not fewseg's own: 0.png" in " ".join(quick(*segment, *more).err.split())
    Image.new("L", SIZE).save(out / "1.png")
    wrong = quick(*command)
    assert "without the class: 1.png" in wrong.out, "an emptied mask says that all of it was wrong"
    assert len(Concept.load(target).absent) == 1
    (place / "photos").rename(place / "moved")
    absent = quick(*command)
    assert absent.code == 1
    assert "--photos DIR" in absent.err
    assert quick(*command, "--photos", place / "moved").code == 0


def test_photos_of_a_class_and_its_folder_of_supports_go_together(place: Path, quick: Callable[..., Result]) -> None:
    for name, i in (("box", 1), ("ball", 2)):
        (place / "supports" / name).mkdir(parents=True)
        shutil.copy(place / f"s{i}.png", place / "supports" / name / f"{i}.png")
        shutil.copy(place / f"m{i}.png", place / "supports" / name / f"{i}_mask.png")
    given = ("--supports", place / "supports", "--class", "box", *words(place, 1))
    taught = quick("teach", *given, "--out", place / "box.concept")
    assert "a concept is one class, box; left out: ball" in taught.out
    assert [one.name for one in Concept.load(place / "box.concept").supports] == ["s0.png", "1.png"]
    found = quick("segment", *given, place / "none.png", "--out", place / "out")
    assert found.code == 0
    assert [found.out.count(f"support of {name}: ") for name in ("box", "ball")] == [2, 1]


@pytest.mark.slow
def test_the_nightly_job_of_the_docs_prints_what_went_wrong_and_notes_and_nothing_else(
    place: Path, tiny: Path, quick: Callable[..., Result]
) -> None:
    assert quick("teach", "--class", "leaf", *words(place, 2), "--out", place / "leaf.concept").code == 0
    [line] = [line for text in blocks(PAGE, "text") for line in text.splitlines() if line.startswith("30 2 * * *  ")]
    line = line.removeprefix("30 2 * * *  ").replace("/srv/leaf", str(place))
    line = line.replace("/opt/fewseg/bin/fewseg segment", f"{sys.executable} -m fewseg segment --model {tiny}")

    def night() -> str:
        done = subprocess.run(["sh", "-c", line], check=True, capture_output=True, text=True)
        assert done.stderr == ""
        return done.stdout

    assert night() == ""
    (place / "photos/torn.png").write_bytes((place / "photos/0.png").read_bytes()[:100])
    told = night()
    assert told.startswith("exit code 1: ")
    assert "2 there already, 1 failed" in told
    assert "photos/torn.png is damaged or cut off" in told
    assert [row["photo"] for row in table(place / "masks")] == ["photos/0.png", "photos/1.png"]
    (place / "photos/torn.png").unlink()
    (place / "leaf.concept").unlink()
    assert quick("teach", "--class", "leaf", *words(place, 1), "--out", place / "leaf.concept").code == 0
    told = night()
    assert told.startswith("exit code 0: ")
    assert "note: 2 of 2 masks that are there, and stay, were made otherwise" in told


def test_corrections_among_the_masks_of_parts_are_known(place: Path, quick: Callable[..., Result]) -> None:
    target, out = place / "box.concept", place / "out"
    assert quick("teach", "--class", "box", *words(place, 2), "--out", target).code == 0
    segment = ("segment", "--concept", target, place / "photos", "--out", out)
    for part in ("1/2", "2/2"):
        assert quick(*segment, "--shard", part).code == 0
    Image.fromarray(scene(size=SIZE, box=(30, 20, 90, 70))[1].astype(np.uint8) * 255).save(out / "1.png")
    mended = (out / "1.png").read_bytes()
    for more, kept in (("--shard", "2/2"), True), (("--shard", "1/2"), False), ((), True), ((), True):
        done = quick(*segment, *more)
        assert done.code == 0, done.err
        assert ("corrected or not fewseg's own: 1.png;" in " ".join(done.err.split())) == kept
        assert (out / "1.png").read_bytes() == mended
        assert "1 corrected mask; 1 as written" in quick("teach", "--concept", target, "--correct", out).out
    assert [path.name for path in out.glob("results*")] == ["results.csv"]


@pytest.mark.slow
def test_several_concepts_make_a_label_map_whose_corrections_are_told_apart(
    place: Path, quick: Callable[..., Result]
) -> None:
    for name, color in (("red", RED), ("blue", BLUE)):
        photo(place / f"{name}.png", color)
        Image.fromarray(scene(size=SIZE, box=(20, 15, 70, 60))[1].astype(np.uint8)).save(place / f"{name}_mask.png")
        given = ("--support", place / f"{name}.png", "--mask", place / f"{name}_mask.png")
        assert quick("teach", "--class", name, *given, "--out", place / f"{name}.concept").code == 0
    concepts = ("--concept", place / "red.concept", "--concept", place / "blue.concept")
    assert quick("segment", *concepts, place / "photos", "--out", place / "out").code == 0
    rows = table(place / "out")
    assert [(row["class"], row["value"]) for row in rows] == [("red", "1"), ("blue", "2")] * 2
    labels = np.zeros((90, 120), np.uint8)
    labels[20:40, 20:40], labels[50:70, 60:90] = 1, 2
    Image.fromarray(labels).save(place / "out/0.png")
    resumed = quick("segment", *concepts, place / "photos", "--out", place / "out", "--resume")
    assert resumed.code == 0, resumed.err
    assert [float(row["share"]) for row in table(place / "out")][:2] == [
        pytest.approx(n / labels.size, abs=1e-5) for n in (400, 600)
    ]
    shown = Image.fromarray(label_colors()[labels])
    painted = {"grey": Image.fromarray(labels), "rgb": shown, "reordered": shown.quantize(8)}
    assert np.asarray(painted["reordered"]).max() == 2
    assert (np.asarray(painted["reordered"]) != labels).any(), "a palette of the paint program's own order"
    for name, picture in painted.items():
        picture.save(place / "out/0.png")
        copy = place / f"{name}.concept"
        done = quick("teach", "--concept", place / "blue.concept", "--correct", place / "out/0.png", "--out", copy)
        assert done.code == 0, done.err
        assert Concept.load(copy).supports[1].mask.sum() == 600
        resumed = quick("segment", *concepts, place / "photos", "--out", place / "out", "--resume")
        assert [float(row["share"]) for row in table(place / "out")][1] == pytest.approx(600 / labels.size, abs=1e-5)
    shown.resize((60, 45), Image.Resampling.BILINEAR).resize((120, 90)).save(place / "out/0.png")
    soft = quick("teach", "--concept", place / "blue.concept", "--correct", place / "out/0.png")
    assert (soft.code, "which fewseg gave to no class: paint with those of the classes (#e63946" in soft.err) == (
        1,
        True,
    )
    shown.convert("L").save(place / "out/0.png")
    levels = quick("teach", "--concept", place / "blue.concept", "--correct", place / "out/0.png")
    assert (levels.code, "holds 91, 110, and the classes are red 1, blue 2" in levels.err) == (1, True)
    valued = quick("teach", "--concept", place / "blue.concept", "--correct", place / "out/0.png", "--label", 91)
    assert (valued.code, "is of masks of one class, and" in valued.err) == (2, True)
    copy = ("--concept", place / "blue.concept", "--class", "sea", "--out", place / "sea.concept")
    for more in (("--correct", place / "out"), ("--out", place / "blue.concept")):
        refused = quick("teach", *copy, *more)
        assert (refused.code, "a concept brings its class; leave --class out. It is called" in refused.err) == (2, True)
    assert quick("teach", *copy).code == 0
    blue, sea = (Concept.load(place / f"{name}.concept") for name in ("blue", "sea"))
    assert (sea.name, replace(sea, name="blue")) == ("sea", blue), "nothing else is another"
    twice = quick("segment", *concepts, "--concept", place / "grey.concept", place / "photos", "--out", place / "no")
    assert "two concepts have the name blue; call one otherwise: fewseg teach --concept FILE" in twice.err


@pytest.mark.slow
def test_single_objects_are_numbered_listed_and_counted(place: Path, quick: Callable[..., Result]) -> None:
    target, out = place / "box.concept", place / "out"
    assert quick("teach", "--class", "box", *words(place, 2), "--out", target).code == 0
    pixels = np.maximum(scene(size=SIZE, box=(10, 20, 45, 60))[0], scene(size=SIZE, box=(75, 20, 110, 60))[0])
    Image.fromarray(pixels).save(place / "photos/two.png")
    photo(place / "photos/0_instances.png")  # a name that the numbers of 0.png would have
    command = ("segment", "--concept", target, place / "photos", "--out", out, "--instances", "--min-area", 100)
    done = quick(*command)
    assert done.code == 0, done.err
    rows = {Path(row["photo"]).name: row for row in table(out)}
    count = int(rows["two.png"]["parts"])
    assert count >= 2
    numbers = np.asarray(Image.open(out / "two_instances.png"))
    assert numbers.dtype == np.uint16
    assert np.unique(numbers).tolist() == list(range(count + 1))
    np.testing.assert_array_equal(numbers > 0, np.asarray(Image.open(out / "two.png")) == 255)
    assert sorted(map(int, rows["two.png"]["sizes"].split())) == sorted(np.bincount(numbers.ravel())[1:])
    document = json.loads((out / "annotations.json").read_text())
    (image,) = (entry["id"] for entry in document["images"] if entry["file_name"] == "two.png")
    found = [entry for entry in document["annotations"] if entry["image_id"] == image]
    assert [entry["instance"] for entry in found] == list(range(1, count + 1))
    assert [entry["area"] for entry in found] == np.bincount(numbers.ravel())[1:].tolist()
    every = [int(row["parts"]) for row in rows.values()]
    assert f"box: {sum(every)} in 4 photos, {min(every)} to {max(every)} in each" in done.out
    before = table(out), document
    (out / "two_instances.png").unlink()
    again = quick(*command, "--resume")
    assert "1 mask in" in again.out
    assert f"box: {sum(every)} in 4 photos" in again.out
    assert (table(out), json.loads((out / "annotations.json").read_text())) == before


@pytest.mark.slow
def test_a_review_shows_the_most_doubtful_first_and_next_chooses_what_differs(
    place: Path, quick: Callable[..., Result]
) -> None:
    target, out = place / "box.concept", place / "out"
    noise = np.random.default_rng(0).integers(-20, 20, (780, 1040, 3))  # a concept keeps it smaller, and as a JPEG
    large = [np.asarray(Image.open(place / name).resize((1040, 780), 0)) for name in ("s1.png", "m1.png")]
    Image.fromarray((large[0] + noise).clip(0, 255).astype(np.uint8)).save(place / "s1.png")
    Image.fromarray(large[1]).save(place / "m1.png")
    words_ = ("teach", "--class", "box", *words(place), "--absent", place / "none.png", "--out", target)
    assert quick(*words_).code == 0
    photo(place / "photos/odd & end.png", (120, 60, 60), box=(5, 5, 20, 15))
    found = ("segment", "--concept", target, place / "photos", place / "none.png", "--out", out)
    bare = quick(*found, "--review", "--no-overlay")
    assert bare.code == 2
    assert "leave out --no-overlay" in bare.err
    assert not out.exists()
    done = quick(*found, "--review")
    assert done.code == 0, done.err
    rows = table(out)
    doubts = [float(row["doubt"]) for row in rows]
    assert doubts == sorted(doubts, reverse=True)
    assert len(doubts) == 4
    assert all(0 <= doubt <= 1 for doubt in doubts)
    assert quick(*found[:-1], place / "emptied", "--min-area", 10**6).code == 0
    emptied = table(place / "emptied")
    assert {row["parts"] for row in emptied} == {"0"}
    for row in (*rows, *emptied):  # what is left empty, for any reason, is right with the chance that nothing is there
        if row["parts"] == "0":
            assert float(row["expected_iou"]) == pytest.approx(1 - float(row["presence"]), abs=0.002)
            assert float(row["doubt"]) == pytest.approx(float(row["presence"]), abs=0.002)
    assert max(float(row["presence"]) for row in emptied) > 0.5
    page = (out / "review.html").read_text()
    assert [page.index(f'src="{quote(row["mask"][:-4])}_overlay.jpg"') for row in rows] == sorted(
        page.index(f'src="{quote(row["mask"][:-4])}_overlay.jpg"') for row in rows
    )
    assert "odd &amp; end.png" in page
    assert f"{rows[0]['photo']} ({100 * doubts[0]:.0f} %)" in done.out
    (out / "review.html").write_text("mine")
    assert "holds something else" in quick(*found, "--review").err
    next_of = ("next", "--concept", target, place / "photos", place / "s0.png", "--count", 2, "--out", place / "n.csv")
    (place / "photos/torn.png").write_bytes(b"no picture")
    torn = quick(*next_of)
    assert (torn.code, "1 photo could not be read, listed in" in torn.err) == (1, True)
    assert (place / "n-failures.csv").read_text().startswith(f"path,reason\n{place / 'photos/torn.png'},")
    (place / "photos/torn.png").unlink()
    chosen = quick(*next_of)
    assert (chosen.code, (place / "n-failures.csv").exists()) == (0, False), chosen.err
    assert "s0.png is in the concept already; left out" in chosen.out
    assert "2 photos more: +" in chosen.out
    assert f"on top of what is expected, {Concept.load(target).expected}; an estimate" in chosen.out
    with open(place / "n.csv", newline="") as file:
        listed = list(csv.DictReader(file))
    assert len(listed) == 2
    assert Path(listed[0]["photo"]).name == "odd & end.png"
    assert 0 <= float(listed[0]["doubt"]) <= 1
    assert "in the concept already; give others" in quick("next", "--concept", target, place / "s1.png").err


@pytest.mark.slow
def test_an_adapted_model_is_taken_only_if_it_finds_the_supports_better(
    place: Path, fewseg: Fewseg, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = ("model.backbone=lite0", "model.image_size=64", "train.init=null", "train.cache_views=1")
    few = ("train.episodes_per_epoch=4", "train.batch_size=2", "train.workers=0")
    monkeypatch.setattr("fewseg.training.adapt.RECIPE", ("lite-adapt", *small, *few))
    shown: list[int] = []

    def once(pairs: list[Any], folder: Path, **how: Any) -> Path:
        """Trained the first time only: the others are copies, which find what it finds."""
        shown.append(len(pairs))
        trained = place / "trained"
        return Path(shutil.copytree(trained if trained.exists() else adapt.adapt(pairs, trained, **how), folder))

    monkeypatch.setattr(adapting, "trainer", lambda: once)
    target, folder = place / "box.concept", place / "box_adapted"
    command = ("teach", "--class", "box", *words(place), "--adapt", "--out", target)
    worse = fewseg(*command)
    assert worse.code == 0, worse.err
    assert "adapting does not find the supports better, and is left out" in worse.out
    assert not folder.exists()
    assert Concept.load(target).model.name == "lite"
    monkeypatch.setattr(adapting, "WORTH", -1)
    taken = fewseg("teach", "--concept", target, "--adapt")
    assert f"the adapted model is taken, {folder}" in taken.out
    assert shown == [2] * 6 + [3], "of each fold it sees the others, and all of them in the end"
    concept = Concept.load(target)
    assert concept.model.name == "box_adapted"
    assert len(concept.expected.each) == 3
    found = ("segment", "--concept", target, place / "photos", "--out", place / "out")
    done = fewseg(*found)
    assert done.code == 0, done.err
    assert f"model: {folder}, which the concept was adapted with" in done.out
    assert "is there already" in fewseg("teach", *words(place), "--adapt", "--out", place / "box.concept").err
    folder.rename(place / "elsewhere")
    lost = fewseg(*found)
    assert lost.code == 2
    assert "taught with the model box_adapted; give it: --model DIR" in lost.err
    refused = fewseg("teach", *words(place, 2), "--adapt", "--out", place / "two.concept")
    assert "--adapt needs 3 supports or more; there are 2" in refused.err
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "fewseg.training.adapt", None)
    monkeypatch.setattr("fewseg.concept.adapting.missing_extra", lambda error: UsageError("this needs torch"))
    early = fewseg("teach", *words(place), "--adapt", "--out", place / "late.concept")
    assert (early.code, "this needs torch" in early.err, "trying" in early.err) == (2, True, False)


def test_specks_among_objects_are_told() -> None:
    sizes = [np.array([400, 380, 12]), np.array([410, 5])]
    told = (
        "box: 5 in 3 photos, 0 to 3 in each; 2 of fewer than 40 pixels (half of all pixels lie in objects of 400 and "
    )
    assert objects_told("box", sizes, 3) == f"{told}more): if these are specks, --min-area 40 leaves them out"
    many = objects_told("box", [np.array([400, *range(1, 9)])], 1)
    assert "8 of fewer than 40 pixels" in many, "many specks are no usual object"
    assert objects_told("box", [np.array([400])], 1) == "box: 1 in 1 photo"
    assert objects_told("box", [], 3) == "box: none"


@pytest.mark.slow
def test_a_run_that_goes_on_keeps_what_its_table_said(place: Path, quick: Callable[..., Result]) -> None:
    target, out = place / "box.concept", place / "out"
    assert quick("teach", *words(place, 2), "--absent", place / "none.png", "--out", target).code == 0
    assert quick("segment", "--concept", target, place / "photos", "--out", out).code == 0
    before = table(out)
    (out / "1.png").unlink()
    assert quick("segment", "--concept", target, place / "photos", "--out", out, "--resume").code == 0
    assert table(out) == before
    again = quick("segment", "--concept", target, place / "photos", "--out", out, "--resume", "--threshold", 0.2)
    assert again.code == 0
    assert "were made otherwise" in again.err
    assert "above 0.2, " in again.err


def test_what_cannot_be_taught_is_refused(place: Path, fewseg: Fewseg) -> None:
    two = ("--class", "a", *words(place, 1), "--class", "b", "--support", place / "s1.png", "--mask", place / "m1.png")
    target = ("--out", place / "x.concept")
    (place / "wrong.concept").write_text("no concept")
    for given, reason in [
        ((), "give the file to write: --out NAME.concept"),
        (("--out", place / "x.png"), "is called NAME.concept"),
        (target, "nothing says what to find"),
        ((*two, *target), "a concept is one class, and a, b were given"),
        ((*words(place), *target, "--correct", place), "--correct takes masks of a concept"),
        ((*words(place), *target, "--absent", place / "empty"), "empty"),
        ((*words(place), *words(place, 1), *target), "s0.png is given twice; give it once, with one mask that marks"),
        ((*words(place), *target, "--absent", place / "s1.png"), "s1.png is given twice; give it once, with a mask or"),
        ((*words(place, 1), *target, "--label", "7"), "no photo has the object (s0.png: 0 and 255: 7 is the object"),
        (("--concept", place / "wrong.concept"), "it is no concept"),
        (("--concept", place / "wrong.concep"), "there is no such file. Did you mean 'wrong.concept'?"),
    ]:
        result = fewseg("teach", *given)
        assert result.code in (1, 2)
        assert reason in result.err
    assert not (place / "x.concept").exists()


@pytest.mark.slow
def test_answers_of_fewseg_that_are_given_as_supports_are_told(place: Path, quick: Callable[..., Result]) -> None:
    made = place / "made"
    formats = ("png", "coco", "cvat", "labelme", "via")
    found = ("segment", place / "photos", *words(place, 1), *(w for f in formats for w in ("--format", f)))
    assert quick(*found, "--out", made).code == 0
    mask = made / "0.png"
    support = ("--support", place / "photos/0.png", "--mask", mask)
    told = "masks in files that fewseg wrote, and nobody changed, are supports ({})"
    assert told.format("0.png") in quick("teach", *support, "--out", place / "a.concept").err
    (place / "labelme").mkdir()
    for n in (0, 1):
        (made / f"{n}.json").rename(place / f"labelme/{n}.json")
    exports = {"labelme": "2 files, 0.json the first"}
    exports |= {f"made/{name}": name for name in ("annotations.json", "annotations.xml", "via.json")}
    for number, (name, what) in enumerate(exports.items()):
        export = ("--annotations", place / name, "--photos", place / "photos")
        assert told.format(what) in quick("teach", *export, "--out", place / f"b{number}.concept").err
    written = json.loads((place / "labelme/0.json").read_text())
    again = {key: value for key, value in written.items() if key != "fewseg"} | {"fewseg": written["fewseg"]}
    for n in (0, 1):
        (place / f"labelme/{n}.json").write_text(json.dumps(again | {"imagePath": f"{n}.png"}, indent=2))
    export = ("--annotations", place / "labelme", "--photos", place / "photos")
    assert "nobody changed" not in quick("teach", *export, "--out", place / "saved.concept").err
    pixels = np.asarray(Image.open(mask)).copy()
    pixels[:4, :4] ^= 255
    Image.fromarray(pixels).save(mask)
    done = quick("teach", *support, "--out", place / "c.concept")
    assert done.code == 0
    assert "nobody changed" not in done.err


def test_masks_of_other_photos_are_told(place: Path, quick: Callable[..., Result]) -> None:
    names = {"s0.png": "IMG_01.png", "s1.png": "IMG_02.png", "m0.png": "IMG_01_mask.png", "m1.png": "IMG_02_mask.png"}
    for old, new in names.items():
        (place / old).rename(place / new)
    first, second = place / "IMG_01_mask.png", place / "IMG_02_mask.png"
    for masks, told in {
        (
            second,
            first,
        ): "IMG_02_mask.png is called like IMG_02.png, but was given as the mask of IMG_01.png; give each",
        (first, first): "IMG_01_mask.png was given as the mask of IMG_01.png and of IMG_02.png; give each",
        (first, second): "",
    }.items():
        given = [
            w for n, m in zip((1, 2), masks, strict=True) for w in ("--support", place / f"IMG_0{n}.png", "--mask", m)
        ]
        done = quick("teach", *given, "--out", place / f"{len(told)}.concept")
        assert done.code == 0
        assert told in " ".join(done.err.split())
        assert ("give each photo its own" in " ".join(done.err.split())) == bool(told)
        assert f"support: IMG_01.png: {masks[0].name}: 0 and 255" in done.out


@pytest.mark.slow
def test_a_concept_of_which_less_is_expected_keeps_what_was(place: Path, quick: Callable[..., Result]) -> None:
    target = place / "box.concept"
    assert quick("teach", "--class", "box", *words(place, 2), "--out", target).code == 0
    before = Concept.load(target)
    Image.eval(Image.open(place / "m2.png"), lambda value: 255 - value).save(place / "swapped.png")
    done = quick("teach", "--concept", target, "--support", place / "s2.png", "--mask", place / "swapped.png")
    assert done.code == 0, done.err
    assert "255 is the object, with 100 % of the border (if that is background, invert the mask)" in done.out
    assert f"less is expected than before: {place}/box_before.concept is the concept as it was" in done.out
    kept = Concept.load(place / "box_before.concept")
    assert (len(kept.supports), kept.expected) == (2, before.expected)
    assert len(Concept.load(target).supports) == 3
    better = quick("teach", "--concept", target, "--support", place / "s2.png", "--mask", place / "m2.png")
    assert "less is expected" not in better.out
    assert len(list(place.glob("*.concept"))) == 2


def test_photos_of_a_concept_are_not_lost_to_one_taught_in_its_place(place: Path, quick: Callable[..., Result]) -> None:
    target = place / "x.concept"
    assert quick("teach", *words(place, 2), "--out", target).code == 0
    before = target.read_bytes()
    fewer = quick("teach", *words(place, 1), "--out", target)
    assert (fewer.code, target.read_bytes()) == (2, before)
    assert "1 photo that would be lost, such as s1.png; add to it (--concept" in fewer.err
    assert quick("teach", *words(place, 3), "--out", target).code == 0
    assert len(Concept.load(target).supports) == 3


def test_what_segment_wrote_among_the_photos_is_no_photo(place: Path, quick: Callable[..., Result]) -> None:
    photos, start = place / "photos", ("segment", *words(place, 1))
    assert quick(*start, "--out", photos / "masks", photos).code == 0
    again = quick(*start, "--out", place / "again", photos)
    assert "4 masks and overlays of an earlier run, left out" in again.err
    assert sorted(path.name for path in (place / "again").rglob("*.png")) == ["0.png", "1.png"]


def test_a_box_beyond_its_photo_is_told(place: Path, quick: Callable[..., Result]) -> None:
    words = (
        "segment",
        "--support",
        place / "s0.png",
        "--box",
        "10,10,500,80",
        "--out",
        place / "out",
        place / "photos",
    )
    told = quick(*words)
    assert told.code == 0
    assert "box 10,10,500,80 reaches beyond the photo of 120 x 90 pixels" in told.err


def test_a_concept_comes_without_supports_and_without_what_it_was_not_tried_with(place: Path, fewseg: Fewseg) -> None:
    (place / "wrong.concept").write_text("no concept")
    start = ("segment", "--concept", place / "wrong.concept", place / "photos", "--out", place / "out")
    for given, reason in [
        (words(place, 1), "--concept brings its own supports"),
        (["--class", "rust"], "a concept brings its class; leave --class out"),
        (["--flip"], "leave out --flip"),
        ([], "it is no concept"),
    ]:
        result = fewseg(*start, *given)
        assert result.code in (1, 2)
        assert reason in result.err
    assert not (place / "out").exists()
