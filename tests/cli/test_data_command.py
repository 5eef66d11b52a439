"""`fewseg data` on the built-in data set."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import trees
from fewseg.cli.main import app
from fewseg.data.episodes.lists import EpisodeList
from fewseg.data.sets.scenes import Scenes
from fewseg.errors import UsageError

SMALL = ["data.images=40", "data.size=64"]


def call(*words: str):
    return CliRunner().invoke(app, ["data", *words])


@pytest.mark.slow
def test_stats_as_json_and_as_a_table():
    done = call("stats", "scenes", *SMALL, "--json")
    folds = json.loads(done.stdout)
    assert [fold["fold"] for fold in folds] == [0, 1, 2, 3]
    assert folds[0]["train_background"] >= folds[0]["train_drop"]
    table = call("stats", "scenes", *SMALL).stdout
    assert "novel" in table
    assert "training leaves out those of classes that train.validation=base holds out" in table


@pytest.mark.slow
def test_show_and_check(tmp_path):
    assert call("show", "scenes", *SMALL, "--out", str(tmp_path / "a" / "sheet.png"), "--count", "6").exit_code == 0
    with Image.open(tmp_path / "a" / "sheet.png") as sheet:
        assert sheet.width > 400
    assert "no files to check" in call("check", "scenes", *SMALL).stdout


def test_classes_that_no_fold_measures_are_told(tmp_path):
    trees.write_masks(tmp_path, {f"{name}/{n}": trees.label_map({1: 100}) for name in "abcde" for n in range(2)})
    told = [line for line in call("stats", "folder", f"data.root={tmp_path}").stdout.splitlines() if "no fold" in line]
    assert len(told) == 1
    assert re.fullmatch(r"novel in no fold, and so measured in none: [a-e]", told[0])


def test_check_counts_an_image_once_and_names_small_classes(tmp_path):
    names = [*(f"{name}/{n}" for name in ("a", "b") for n in range(3)), "c/0"]
    trees.write_masks(tmp_path, {name: trees.label_map({1: 100}) for name in names})
    done = call("check", "folder", f"data.root={tmp_path}")
    told = f"7 images of {tmp_path}: nothing wrong but for what the notes say\n"
    assert (done.exit_code, done.stdout) == (0, told)
    assert "fewer of: 'c' 1. These classes are left out" in done.stderr
    trees.write_png(trees.label_map({}), tmp_path / "masks/a/0.png", palette=False)
    done = call("check", "folder", f"data.root={tmp_path}", "data.val_fraction=0.5")
    assert done.stdout == f"empty: the mask of {tmp_path}/images/a/0.jpg marks nothing\n"
    assert str(done.exception) == f"1 problem in 7 images of {tmp_path}"


def test_problems_of_one_kind_are_told_ten_times_and_then_by_their_ids(tmp_path):
    trees.write_masks(tmp_path, {f"a/{n:02}": trees.label_map({1: 100}) for n in range(30)})
    for n in range(14):
        (tmp_path / f"masks/a/{n:02}.png").write_bytes(b"no picture")
    done = call("check", "folder", f"data.root={tmp_path}")
    lines = done.stdout.splitlines()
    assert len(lines) == 11
    assert lines[-1] == "labels: 4 more: a/10 a/11 a/12 a/13"
    assert str(done.exception).startswith("14 problems in 30 images")


def test_a_class_whose_masks_look_swapped_is_told(tmp_path, fewseg):
    sound = {f"{name}/{n}": trees.label_map({1: 500 + n}) for name in ("a", "b") for n in range(6)}
    swapped = {f"c/{n}": np.pad(np.zeros((28, 28), np.uint8), 18, constant_values=1) for n in range(6)}
    # an object that fills its photo, but not its border
    large = {f"d/{n}": np.pad(np.ones((56, 56), np.uint8), 4) for n in range(6)}
    trees.write_masks(tmp_path, sound | swapped | large)
    words = ("folder", f"data.root={tmp_path}")
    checked = fewseg("data", "check", *words)
    assert (checked.code, "but for what the notes say" in checked.out) == (0, True), checked.err
    told = (
        "6 of 6 masks of 'c' mark more than 50% of their photo, and 6 of 6 that were looked at more than 75% of its "
        f"border (if that is background, invert the mask; the first: {tmp_path}/masks/c/0.png)"
    )
    for result in (checked, fewseg("data", "stats", *words)):  # what takes the index has it told, kept or not
        (note,) = [line for line in result.err.splitlines() if "invert the mask" in line]
        assert told in note
    assert told in fewseg("data", "check", *words, "data.label=any").err


def test_a_class_of_label_maps_that_looks_swapped_is_told(tmp_path, fewseg):
    background = np.zeros((64, 64), np.uint8)
    background[20:40, 10:50] = 1
    maps = {f"a{n}": trees.label_map({1: 500 + n}) for n in range(6)} | {f"b{n}": 2 - 2 * background for n in range(6)}
    trees.write_labels(tmp_path, maps, classes=("a", "b"))
    checked = fewseg("data", "check", "folder", f"data.root={tmp_path}")
    assert (checked.code, "but for what the notes say" in checked.out) == (0, True), checked.err
    assert "6 of 6 masks of 'b' mark more than 50% of their photo" in checked.err


def test_what_a_coco_file_lacks_is_a_problem_with_advice_that_works(tmp_path, fewseg):
    images = {f"{n}.jpg": [(1 + n % 2, trees.square(2, 2, 20))] for n in range(8)}
    trees.write_coco(tmp_path / "all.json", images, categories={1: "a", 2: "b"}, photos=tmp_path / "photos")
    words = ("coco_json", f"data.root={tmp_path}")
    sound = fewseg("data", "check", *words)
    assert (sound.code, "nothing wrong" in sound.out) == (0, True), sound.err
    (tmp_path / "photos" / "3.jpg").unlink()
    content = json.loads((tmp_path / "all.json").read_text())
    content["annotations"].append({"id": 99, "image_id": 3, "category_id": 55, "segmentation": trees.square(1, 1, 9)})
    (tmp_path / "all.json").write_text(json.dumps(content))
    done = fewseg("data", "check", *words)
    assert (done.code, "--photos" in done.err) == (1, False), done.err
    assert f"give their folder with data.images=FOLDER, or put them below {tmp_path}" in done.err
    assert "missing: the photo '3.jpg' was not found in" in done.out
    assert "left out: " in done.out
    assert "2 problems in 7 images" in done.err


@pytest.mark.slow
def test_an_episode_list_is_written_for_evaluate(tmp_path):
    out = ["--out", str(tmp_path / "list.csv"), "--episodes", "5"]
    done = call("episodes", "scenes", *SMALL, "data.fold=1", *out)
    listed = EpisodeList.load(tmp_path / "list.csv", Scenes(subset="test", images=40, size=64))
    assert len(listed) == 5
    assert listed.fold == 1
    assert listed.sha256 in done.stdout
    old = call("episodes", "scenes", "images=40", "size=64", "--fold=1", *out)
    assert old.stdout == done.stdout
    assert "write data.fold=1 for --fold 1" in old.stderr
    assert "write data.images=40 for images=40" in old.stderr


def test_wrong_names_are_told():
    for words, message in (
        (["stats", "scnes"], "scenes"),
        (["stats", "scenes", "data.levle=simple"], "level"),
        (["stats", "pascal5i"], "data.root"),
        (["download", "voc2013", "--root", "x"], "voc2012"),
    ):
        done = call(*words)
        assert isinstance(done.exception, UsageError)
        assert message in str(done.exception)


@pytest.mark.parametrize("command", ["stats", "check", "show", "episodes", "download"])
def test_every_command_has_help(command):
    assert "Usage" in call(command, "--help").stdout
