"""`fewseg segment` says how it understood what it was given, asks where it cannot know, and shows it with --check."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from fewseg.data.images import class_color, write_labels
from fewseg.predictor import FewShotPredictor
from helpers import Fewseg

MODEL = ("--model", "dense")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A photo with a red and a green square, and its label map with 1 and 2 there."""
    labels = np.zeros((60, 80), np.uint8)
    labels[10:30, 10:40], labels[30:50, 45:70] = 1, 2
    colours = np.array([(90, 90, 90), (220, 30, 30), (30, 200, 30)], np.uint8)
    Image.fromarray(colours[labels]).save(tmp_path / "photo.png")
    write_labels(labels, tmp_path / "labels.png")
    write_labels((labels == 1).astype(np.uint8), tmp_path / "one.png")
    return tmp_path


def test_a_pattern_that_the_shell_spread_is_told(fewseg: Fewseg, tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg", "a_mask.png", "b_mask.png"):
        Image.new("RGB", (9, 9)).save(tmp_path / name)
    photos, masks = ([tmp_path / f"{one}{end}" for one in "ab"] for end in (".jpg", "_mask.png"))
    result = fewseg("segment", "--support", *photos, "--mask", *masks, "--out", tmp_path / "out", tmp_path)
    assert result.code == 2
    assert "repeat --support and --mask for each photo" in " ".join(result.err.split())


def test_a_photo_to_search_behind_a_support_is_told_how_to_be_written(place: Path, fewseg: Fewseg) -> None:
    Image.open(place / "photo.png").save(place / "other.png")
    query, support, mask = place / "other.png", ("--support", place / "photo.png"), ("--mask", place / "one.png")
    words = (*MODEL, "--no-overlay", "--out", place / "out")
    for order in ((*mask, *support, query), (*support, query, *mask)):
        wrong = fewseg("segment", *words, *order)
        told = " ".join(wrong.err.split())
        assert wrong.code == 2
        assert "write it before all options (fewseg segment " in told
        assert "or at the end after --;" in told
    for order in ((query, *support, *mask, *words), (*words, *support, *mask, "--", query)):
        assert fewseg("segment", *order).code == 0
        (place / "out/other.png").unlink()


@pytest.mark.slow
def test_a_label_map_is_asked_about_and_a_label_chooses(place: Path, fewseg: Fewseg) -> None:
    words = ("segment", *MODEL, "--support", place / "photo.png", "--mask", place / "labels.png")
    asked = fewseg(*words, "--out", place / "out", place / "photo.png")
    assert asked.code == 2
    assert "labels.png holds the values 0, 1 and 2" in asked.err
    assert "--label VALUE" in asked.err
    assert not (place / "out").exists()
    chosen = fewseg(*words, "--label", 2, "--out", place / "out", place / "photo.png")
    assert chosen.code == 0, chosen.err
    assert "labels.png: 0, 1 and 2: 2 is the object; 10.4 % marked" in chosen.out
    found = np.asarray(Image.open(place / "out" / "photo.png")) > 0
    truth = np.asarray(Image.open(place / "labels.png")) == 2
    assert (found & truth).sum() / (found | truth).sum() > 0.6


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("--format nope", "format nope: choose one or several of png"),
        ("--window 64 --format png", "format png of a picture that is read in windows: choose geotiff"),
        ("--format csv --resume", "add --format png"),
        ("--refine nope", "unknown --refine 'nope'; choose none, fast, best"),
        ("--precision fp8", "unknown --precision 'fp8'; choose fp32, bf16, fp16"),
        ("--runtime onnx", "unknown --runtime 'onnx'; choose graphs, torch"),
        ("--provider tpu", "unknown --provider 'tpu'; choose cpu"),
        ("--engine spark", "unknown --engine 'spark'; choose ray"),
        ("--shard 3/2", "which part of how many"),
    ],
)
def test_a_word_of_no_meaning_is_told_before_anything_is_read(word: str, told: str, fewseg: Fewseg) -> None:
    asked = fewseg("segment", "photos", "--support", "none.jpg", "--mask", "none.png", "--out", "out", *word.split())
    assert asked.code == 2
    assert told in asked.err


def test_shares_of_the_photo_are_no_pixels(place: Path, fewseg: Fewseg) -> None:
    words = (
        "segment",
        *MODEL,
        "--support",
        place / "photo.png",
        "--out",
        place / "out",
        place / "photo.png",
        "--check",
    )
    for marks, told in (
        (("--point", "0.25,0.5"), "--point 0.25,0.5 looks like a share of the photo, 80 x 60 pixels"),
        (("--box", "0.1,0.1,0.5,0.5", "--point", "0,1"), "give pixels: --box 8,6,40,30"),
        (("--point", "1,1", "--background", "0.9,0.9"), "give pixels: --background 72,54"),
        (("--box", "0,0,1,1"), "give pixels: --box 0,0,80,60"),
    ):
        asked = fewseg(*words, *marks)
        assert asked.code == 2
        assert told in asked.err
    assert not (place / "out").exists()
    # a corner's pixel beside the object, and one that is marked as the object by whole numbers
    for marks in (("--point", "20,20", "--background", "0.5,0.5"), ("--point", "1,1")):
        assert fewseg(*words, *marks).code == 0


def test_masks_of_one_class_that_hold_different_ids_are_asked_about(place: Path, fewseg: Fewseg) -> None:
    labels = np.asarray(Image.open(place / "labels.png"))
    for name, values in {"two": 2 * (labels == 2), "white": 255 * (labels == 2)}.items():
        Image.fromarray(values.astype(np.uint8)).save(place / f"{name}.png")
    support = ("--support", place / "photo.png", "--mask")
    words = (*support, place / "one.png", *support, place / "two.png")
    for command in (("segment", *MODEL, place / "photo.png"), ("teach", "--class", "square")):
        asked = fewseg(*command, *words, "--out", place / "out.concept")
        assert asked.code == 2
        assert f"different values: 1 in {place}/one.png and 2 in {place}/two.png" in asked.err
        assert not (place / "out.concept").exists()
    for allowed in ((*words, "--label", "any"), (*support, place / "two.png", *support, place / "white.png")):
        assert fewseg("segment", *MODEL, *allowed, "--out", place / "out", place / "photo.png").code == 0


def test_a_presence_that_the_model_does_not_tell_is_refused(place: Path, fewseg: Fewseg) -> None:
    support = ("--support", place / "photo.png", "--mask", place / "one.png")
    words = ("segment", *MODEL, *support, "--presence", 0.3, "--out", place / "out", place / "photo.png")
    result = fewseg(*words)
    assert result.code == 2
    assert "dense does not tell whether a class is there at all" in result.err


@pytest.mark.slow
def test_several_supports_train_a_classifier_too_unless_the_model_is_named(place: Path, fewseg: Fewseg) -> None:
    support = ("--support", place / "photo.png", "--mask", place / "one.png")
    found = {}
    for name, words in {"one": support, "two": support * 2, "alone": (*support * 2, "--model", "lite")}.items():
        result = fewseg("segment", *words, "--out", place / name, place / "photo.png")
        assert result.code == 0, result.err
        assert ("several supports: by lite+linear" in result.out) == (name == "two")
        found[name] = np.asarray(Image.open(place / name / "photo.png"))
    predictor = FewShotPredictor()
    predictor.set_support([place / "photo.png"] * 2, [place / "one.png"] * 2)
    np.testing.assert_array_equal(found["two"] > 0, predictor.predict(place / "photo.png"))
    assert (found["two"] != found["alone"]).any()
    predictor.set_support(place / "photo.png", place / "one.png")  # of one support none is trained
    np.testing.assert_array_equal(found["one"] > 0, predictor.predict(place / "photo.png"))


def test_classes_of_one_label_map_have_labels_of_their_own(place: Path, fewseg: Fewseg) -> None:
    words = [word for name, label in (("red", 1), ("green", 2)) for word in ("--class", name, *_support(place, label))]
    result = fewseg("segment", *MODEL, *words, "--out", place / "out", place / "photo.png")
    assert result.code == 0, result.err
    assert "support of red" in result.out
    assert "1 is the object; 12.5 % marked" in result.out
    assert "2 is the object; 10.4 % marked" in result.out


def test_classes_are_named_beside_their_label_maps_and_below_their_overlays(place: Path, fewseg: Fewseg) -> None:
    both = [word for name, label in (("red", 1), ("green", 2)) for word in ("--class", name, *_support(place, label))]
    for out, words in (("both", both), ("one", both[: len(both) // 2])):
        assert fewseg("segment", *MODEL, *words, "--out", place / out, place / "photo.png").code == 0
    assert (place / "both/classes.txt").read_text() == "red\ngreen\n"
    drawn = Image.open(place / "both/photo_overlay.jpg")
    assert drawn.width == 80
    assert drawn.height > 60
    below = np.asarray(drawn)[62:].reshape(-1, 3).astype(int)
    for label in (1, 2):
        assert np.abs(below - class_color(label)).max(1).min() < 30
    palette = np.asarray(Image.open(place / "both/photo.png").getpalette()).reshape(-1, 3)
    assert palette[1:3].tolist() == [list(class_color(label)) for label in (1, 2)]
    assert not (place / "one/classes.txt").exists()
    assert np.unique(np.asarray(Image.open(place / "one/photo.png"))).tolist() == [0, 255], "any viewer shows it"
    chosen = ("--support", place / "photo.png", "--mask", place / "both/photo.png", "--label", "green")
    named = fewseg("segment", "--check", *chosen, "--out", place / "check", place / "photo.png")
    assert "2 is the object" in named.out


def _support(place: Path, label: int) -> list[object]:
    return ["--support", place / "photo.png", "--mask", place / "labels.png", "--label", label]


def test_a_label_may_be_a_name_in_the_list_beside_the_mask(place: Path, fewseg: Fewseg) -> None:
    words = ("segment", "--check", "--support", place / "photo.png", "--mask", place / "labels.png")
    absent = fewseg(*words, "--label", "green", "--out", place / "out", place / "photo.png")
    assert absent.code == 2
    assert "'green' is no value, and no list of classes (classes.txt) beside it" in absent.err
    (place / "classes.txt").write_text("background\nred\ngreen\n")
    named = fewseg(*words, "--label", "green", "--out", place / "out", place / "photo.png")
    assert "2 is the object; 10.4 % marked" in named.out


def test_a_label_without_a_mask_is_refused(place: Path, fewseg: Fewseg) -> None:
    words = ("segment", "--check", "--support", place / "photo.png", "--box", "10,10,40,30", "--label", 2)
    result = fewseg(*words, "--out", place / "out", place / "photo.png")
    assert result.code == 2
    assert "--label 2 says which value of a --mask is the object, but there is no mask" in result.err


def test_check_draws_what_is_marked_and_ends(place: Path, fewseg: Fewseg) -> None:
    words = ["--class", "red", "--support", place / "photo.png", "--box", "10,10,40,30"]
    words += ["--class", "green", *_support(place, 2)]
    result = fewseg("segment", "--check", *words, "--out", place / "out")
    assert result.code == 0, result.err
    assert "grown from 1 box; " in result.out
    assert "2 is the object; 10.4 % marked" in result.out
    assert sorted(path.name for path in (place / "out").iterdir()) == ["green_photo.jpg", "red_photo.jpg"]
    without = fewseg("segment", *words, "--out", place / "out")
    assert (without.code, "no photos to search were given" in without.err) == (2, True)
    drawn = np.asarray(Image.open(place / "out" / "green_photo.jpg")).astype(int)
    plain = np.asarray(Image.open(place / "photo.png")).astype(int)
    changed = np.abs(drawn - plain).max(2) > 50
    assert changed[35:45, 50:65].all()
    assert changed[:25].mean() < 0.05


def test_a_mask_of_everything_is_told(place: Path, fewseg: Fewseg) -> None:
    Image.new("L", (80, 60), 255).save(place / "all.png")
    result = fewseg(
        "segment", *MODEL, *("--support", place / "photo.png", "--mask", place / "all.png"), "--out", place / "o", place
    )
    assert "note: " in result.err
    assert "leaves nothing as background (255: 255 is the object)" in result.err


@pytest.mark.slow
def test_one_range_serves_supports_and_queries(place: Path, fewseg: Fewseg) -> None:
    grey = np.asarray(Image.open(place / "photo.png").convert("L"))
    for name, factor in (("a.tif", 16), ("b.tif", 8)):
        tifffile.imwrite(place / name, grey.astype(np.uint16) * factor)
    words = ("segment", *MODEL, "--support", place / "a.tif", "--mask", place / "one.png", "--out", place / "out")
    told = fewseg(*words, place / "b.tif")
    assert told.code == 0, told.err
    assert told.err.count("note: pictures deeper than 8 bit: each is stretched from its own") == 1
    given = fewseg(*words, "--range", "0,4080", place / "b.tif")
    assert given.code == 0, given.err
    assert "note" not in given.err
    shown = np.asarray(Image.open(place / "out" / "b_overlay.jpg")).max()
    assert shown < 255
    for wrong in ("5", "9,1", "a,b"):
        assert fewseg(*words, "--range", wrong, place / "b.tif").code == 2
    assert fewseg(*words, "--bands", "1,2,0", place / "b.tif").code == 2


def test_files_that_are_no_pictures_are_counted_and_broken_ones_listed(place: Path, fewseg: Fewseg) -> None:
    photos = place / "photos"
    photos.mkdir()
    Image.open(place / "photo.png").convert("RGB").save(photos / "download.jfif", format="JPEG")
    (photos / "IMG_2.HEIC").write_text("no picture")
    (photos / "notes.txt").write_text("no picture")
    words = ("segment", *MODEL, "--support", place / "photo.png", "--mask", place / "one.png", "--out", place / "out")
    result = fewseg(*words, photos)
    assert result.code == 1
    assert (place / "out" / "download.png").is_file()
    assert "IMG_2.HEIC is not a picture that can be read" in result.err
    assert "notes.txt" in result.err


def test_masks_beside_their_photos_are_no_photos_but_by_their_names(place: Path, fewseg: Fewseg) -> None:
    photos = place / "photos"
    photos.mkdir()
    for name in ("a.jpg", "b.jpg", "x_mask.jpg"):  # the last is no mask of any photo here
        Image.open(place / "photo.png").convert("RGB").save(photos / name)
    for name in ("a_mask.png", "b-GT.png", ".a.png"):
        shutil.copy(place / "one.png", photos / name)
    support = ("--support", photos / "a.jpg", "--mask", photos / "a_mask.png")
    done = fewseg("segment", *MODEL, *support, "--no-overlay", "--out", place / "out", photos)
    assert done.code == 0, done.err
    assert "2 masks of photos by their names, left out" in " ".join(done.err.split())
    assert sorted(path.name for path in (place / "out").iterdir()) == ["a.png", "b.png", "x_mask.png"]
    named = fewseg("segment", *MODEL, *support, "--no-overlay", "--out", place / "named", photos / "b-GT.png")
    assert (named.code, (place / "named/b-GT.png").is_file()) == (0, True)


def test_a_class_is_chosen_from_a_folder_of_supports(place: Path, fewseg: Fewseg) -> None:
    for name in ("red", "green"):
        (place / "supports" / name).mkdir(parents=True)
        shutil.copy(place / "photo.png", place / "supports" / name)
        shutil.copy(place / "one.png", place / "supports" / name / "photo_mask.png")
    words = ("segment", *MODEL, "--supports", place / "supports", "--out", place / "out", place / "photo.png")
    one = fewseg(*words, "--class", "green")
    assert (one.code, "support of green" in one.out, "red" in one.out) == (0, True, False), one.err
    none = fewseg(*words, "--class", "blue")
    assert (none.code, "the folders of --supports are green, red" in none.err) == (2, True)


def test_options_of_an_export_are_refused_without_one(place: Path, fewseg: Fewseg) -> None:
    words = ("segment", *MODEL, "--support", place / "photo.png", "--mask", place / "one.png", "--out", place / "out")
    for given in (("--shots", "3"), ("--photos", place)):
        asked = fewseg(*words, *given, place / "photo.png")
        assert (asked.code, f"{given[0]} is of the photos that --annotations FILE names" in asked.err) == (2, True)


def test_supports_among_the_photos_and_files_of_an_earlier_run_are_told(place: Path, fewseg: Fewseg) -> None:
    Image.open(place / "photo.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(place / "other.png")
    support = ("--support", place / "photo.png", "--mask", place / "one.png")
    words = ("segment", *MODEL, *support, "--out", place / "out")
    first = fewseg(*words, "--format", "coco", "--format", "yolo", place / "other.png")
    assert (first.code, "note: " in first.err) == (0, False), first.err
    second = fewseg(*words, place / "other.png", place / "photo.png")
    assert second.code == 0, second.err
    assert "among the photos are supports or their masks (photo.png)" in second.err
    assert "files that this run does not write (annotations.json, classes.txt, other.txt)" in second.err
    assert (place / "out" / "other.txt").is_file()
    assert "photos that this run was not given" not in second.err
    for more in (), ("--resume",):
        third = " ".join(fewseg(*words, *more, place / "photo.png").err.split())
        assert "out holds masks of photos that this run was not given (other.png): they stay, and no table" in third
