"""Folders of photos: names, sub-folders, formats, bad files, and inputs that must not be overwritten."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pycocotools import mask as rle
from pycocotools.coco import COCO

from fewseg.data.images import read_image, read_labels
from fewseg.errors import DataError, DataWarning, UsageError
from fewseg.predictor import FewShotPredictor
from fewseg.progress import Silent
from fewseg.segment import plan, segment_folder
from helpers import BLUE, RED, ColorSegmenter, iou, scene


@pytest.fixture
def predictor():
    predictor = FewShotPredictor(ColorSegmenter())
    predictor.set_support(*scene())
    return predictor


def photo(path: Path, color=RED, **options) -> np.ndarray:
    """A photo on disk; returns where its box is."""
    pixels, mask = scene(color, **options)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **({"quality": 95} if path.suffix != ".png" else {}))
    return mask


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_class_that_is_probably_not_there_is_left_out_of_the_photo(tmp_path):
    predictor = FewShotPredictor(ColorSegmenter(presence=True))
    predictor.set_support(*scene())
    photo(tmp_path / "red.png")
    photo(tmp_path / "brown.png", (168, 50, 50))
    for presence, empty in ((0.5, ["brown.png"]), (0.0, [])):
        out = tmp_path / f"out{presence}"
        pictures = [tmp_path / "red.png", tmp_path / "brown.png"]
        summary = segment_folder(predictor, pictures, out, overlay=False, presence=presence)
        assert [path.name for path in summary.empty] == empty
        assert read_labels(out / "red.png").any()


def test_where_nothing_is_found_in_a_picture_far_larger_than_the_supports_windows_are_named(predictor, tmp_path):
    Image.new("RGB", (150, 40), BLUE).save(tmp_path / "wide.png")
    Image.new("RGB", (60, 40), BLUE).save(tmp_path / "usual.png")
    with pytest.warns(DataWarning, match=r"in wide\.png, at least 3 times .*: --window 64$"):
        segment_folder(predictor, tmp_path, tmp_path / "out", overlay=False)
    photo(tmp_path / "wide.png", size=(150, 40))
    segment_folder(predictor, tmp_path, tmp_path / "out", overlay=False)


def test_classes_that_are_found_in_the_same_places_are_told(predictor, tmp_path):
    photo(tmp_path / "a.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        segment_folder(predictor, tmp_path / "a.png", tmp_path / "one", overlay=False)
    image, mask = scene()
    predictor.set_support({"cow": (image, mask), "horse": (image, mask)})
    with pytest.warns(DataWarning, match=r"cow and horse \(100 % of what is marked as cow\).*--absent"):
        segment_folder(predictor, tmp_path / "a.png", tmp_path / "two", overlay=False)


class Stopped(Silent):
    """Ends the work before the third picture."""

    def __call__(self, items, title="", total=None):
        for number, item in enumerate(items):
            if number == 2:
                raise KeyboardInterrupt
            yield item


def test_a_run_that_was_stopped_and_goes_on_ends_with_the_files_of_one_that_was_not(tmp_path):
    predictor = FewShotPredictor(ColorSegmenter(presence=True))
    predictor.set_support({"a": scene(), "b": scene(BLUE)})
    for i in range(4):
        photo(tmp_path / f"photos/{i}.png", box=(5 + i, 5, 40, 30))
    formats = {"formats": ("png", "csv", "labelstudio"), "overlay": False}
    segment_folder(predictor, tmp_path / "photos", tmp_path / "whole", **formats)
    with pytest.raises(KeyboardInterrupt):
        segment_folder(predictor, tmp_path / "photos", tmp_path / "stopped", **formats, progress=Stopped())
    done = len(list((tmp_path / "stopped").glob("*.png")))
    assert 0 < done < 4
    summary = segment_folder(predictor, tmp_path / "photos", tmp_path / "stopped", **formats, resume=True)
    assert summary.skipped == done
    assert files(tmp_path / "stopped") == files(tmp_path / "whole")
    for name in files(tmp_path / "whole"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert ",0." in (tmp_path / "whole" / "results.csv").read_text()


def test_to_go_on_is_for_the_same_photos(predictor, tmp_path):
    photo(tmp_path / "a/0.png")
    photo(tmp_path / "a/1.png")
    segment_folder(predictor, tmp_path / "a", tmp_path / "out")
    truth = photo(tmp_path / "a/0.png", box=(3, 3, 20, 20))
    with pytest.warns(DataWarning, match=r"made anew, since .* of other photos of the same names, .*: 0\.png"):
        summary = segment_folder(predictor, tmp_path / "a", tmp_path / "out", resume=True)
    assert summary.skipped == 1
    assert iou(read_labels(tmp_path / "out/0.png") > 0, truth) > 0.9


@pytest.mark.parametrize("formats", [("coco",), ("yolo", "csv")])
def test_corrected_masks_are_not_passed_over_where_no_masks_are_written(predictor, tmp_path, formats):
    photo(tmp_path / "photos/a.png")
    segment_folder(predictor, tmp_path / "photos", tmp_path / "out", formats=("png", "csv"))
    mask = tmp_path / "out" / "a.png"
    Image.fromarray(255 - np.asarray(Image.open(mask))).save(mask)
    told = pytest.raises(UsageError, match=r"corrected, .* \(a\.png\): with --format png")
    with told, pytest.warns(DataWarning, match="holds files that this run does not write"):
        segment_folder(predictor, tmp_path / "photos", tmp_path / "out", formats=formats)
    segment_folder(predictor, tmp_path / "photos/a.png", tmp_path / "photos", formats=formats, overlay=False)


def test_masks_and_overlays_of_the_photos_own_sizes_in_the_same_sub_folders(predictor, tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "out"
    truth = photo(photos / "a.jpg")
    deep = photo(photos / "sub" / "deep" / "b.png", size=(71, 33), box=(8, 4, 50, 30))
    (photos / "notes.txt").write_text("no picture")
    (photos / ".hidden.jpg").write_text("no picture")
    told = []

    class Told(Silent):
        def __call__(self, items, description, total, *, done=0):
            told.append((description, total))
            return items

    with pytest.warns(DataWarning, match=r"files that are no pictures .* left out \(one: .*notes\.txt\)"):
        summary = segment_folder(predictor, photos, out, progress=Told())
    assert files(out) == ["a.png", "a_overlay.jpg", "sub/deep/b.png", "sub/deep/b_overlay.jpg"]
    for name, mask in (("a.png", truth), ("sub/deep/b.png", deep)):
        written = read_labels(out / name)
        assert set(np.unique(written)) == {0, 255}
        assert iou(written > 0, mask) > 0.85
    assert read_image(out / "sub/deep/b_overlay.jpg").size == (71, 33)
    assert summary.written == (
        (photos / "a.jpg", out / "a.png"),
        (photos / "sub/deep/b.png", out / "sub/deep/b.png"),
    )
    assert summary.failed == summary.empty == ()
    assert told == [("segmenting", 2)]


def test_names_never_collide(tmp_path):
    for name in ("x/a.jpg", "x/a.png", "x/a_png.jpg", "y/a.jpg", "y/b.jpg", "z/x/a.jpg", "z/x/A.JPG"):
        photo(tmp_path / name)
    queries = [tmp_path / "x", tmp_path / "y", tmp_path / "z/x", tmp_path / "x/a.jpg"]
    jobs = plan(queries, tmp_path / "out")
    assert len({job.stem.casefold() for job in jobs}) == len({job.name for job in jobs}) == len(jobs) == 7
    assert [job.stem for job in plan([tmp_path / "y"], tmp_path / "out")] == ["a", "b"]
    assert [job.stem for job in plan([tmp_path / "x"], tmp_path / "out")] == ["a_jpg", "a_png", "a_png_2"]


def test_bad_files_are_listed_and_the_good_ones_done(predictor, tmp_path):
    photo(tmp_path / "in/a.png")
    photo(tmp_path / "in/c.png", (90, 90, 90))
    (tmp_path / "in/b.jpg").write_text("broken")
    summary = segment_folder(predictor, tmp_path / "in", tmp_path / "out", overlay=False)
    assert files(tmp_path / "out") == ["a.png", "c.png"]
    assert [path.name for path, _ in summary.failed] == ["b.jpg"]
    assert "use JPEG or PNG" in summary.failed[0][1]
    assert [path.name for path in summary.empty] == ["c.png"]


def test_a_run_can_be_repeated_into_a_sub_folder(predictor, tmp_path):
    photo(tmp_path / "a.jpg")
    first = segment_folder(predictor, tmp_path, tmp_path / "out", formats=("png", "coco"))
    before = files(tmp_path)
    assert segment_folder(predictor, tmp_path, tmp_path / "out", formats=("png", "coco")) == first
    assert files(tmp_path) == before


def test_inputs_are_never_overwritten(predictor, tmp_path):
    photo(tmp_path / "a.png")
    original = (tmp_path / "a.png").read_bytes()
    with pytest.raises(UsageError, match=r"a\.png is an input"):
        segment_folder(predictor, tmp_path / "a.png", tmp_path)
    with pytest.raises(UsageError, match="both the folder of pictures and the output folder"):
        segment_folder(predictor, tmp_path, tmp_path / "sub" / "..")
    assert (tmp_path / "a.png").read_bytes() == original
    image, mask = scene()
    photo(tmp_path / "s.jpg")
    Image.fromarray(mask).save(tmp_path / "s.png")
    predictor.set_support(tmp_path / "s.jpg", tmp_path / "s.png")
    with pytest.raises(UsageError, match=r"s\.png is an input"):
        segment_folder(predictor, tmp_path / "s.jpg", tmp_path)
    assert image.shape[:2] == mask.shape
    assert files(tmp_path) == ["a.png", "s.jpg", "s.png"]


def test_nothing_to_segment_is_said(predictor, tmp_path):
    with pytest.raises(UsageError, match="no pictures to segment"):
        segment_folder(predictor, tmp_path, tmp_path / "out")
    with pytest.raises(UsageError, match="no such file or folder"):
        segment_folder(predictor, tmp_path / "gone.jpg", tmp_path / "out")
    assert files(tmp_path) == []


def test_a_wrong_support_stops_the_run_and_leaves_no_half_written_file(predictor, tmp_path, monkeypatch):
    photo(tmp_path / "a.jpg")

    def refuse(image):
        raise UsageError("the model was trained for 5 shots")

    monkeypatch.setattr(predictor, "predict_each", refuse)
    with pytest.raises(UsageError, match="5 shots"):
        segment_folder(predictor, tmp_path, tmp_path / "out", formats=("png", "coco"))
    assert files(tmp_path) == ["a.jpg"]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' decode under numpy 2
def test_several_classes_give_label_maps_and_coco_annotations(predictor, tmp_path):
    predictor.set_support({"red": scene(RED), "blue": scene(BLUE)})
    red = photo(tmp_path / "in/r.png", RED)
    photo(tmp_path / "in/sub/b.png", BLUE, size=(50, 64), box=(10, 8, 40, 60))
    photo(tmp_path / "in/none.png", (90, 90, 90))
    summary = segment_folder(predictor, tmp_path / "in", tmp_path / "out", formats=("png", "coco"))
    labels = read_labels(tmp_path / "out/r.png")
    with Image.open(tmp_path / "out/r.png") as image:
        assert image.mode == "P"
    assert set(np.unique(labels)) == {0, 1}
    assert iou(labels == 1, red) > 0.85
    assert set(np.unique(read_labels(tmp_path / "out/sub/b.png"))) == {0, 2}
    assert [path.name for path in summary.empty] == ["none.png"]
    assert summary.annotations == tmp_path / "out/annotations.json"
    content = json.loads(summary.annotations.read_text())
    assert content["categories"] == [{"id": 1, "name": "red"}, {"id": 2, "name": "blue"}]
    assert {entry["file_name"] for entry in content["images"]} == {"r.png", "sub/b.png", "none.png"}
    assert [entry["category_id"] for entry in content["annotations"]] == [1, 2]
    first = content["annotations"][0]
    np.testing.assert_array_equal(rle.decode(first["segmentation"]), labels == 1)
    rows, columns = np.nonzero(labels == 1)
    width, height = columns.max() - columns.min() + 1, rows.max() - rows.min() + 1
    assert first["bbox"] == [columns.min(), rows.min(), width, height]
    assert first["area"] == (labels == 1).sum()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' decode under numpy 2
def test_pycocotools_reads_the_annotations(predictor, tmp_path, capsys):
    truth = photo(tmp_path / "in/a.jpg")
    summary = segment_folder(predictor, [tmp_path / "in"], tmp_path / "out", formats=("png", "coco"))
    coco = COCO(str(summary.annotations))
    (annotation,) = coco.loadAnns(coco.getAnnIds(catIds=coco.getCatIds(["object"])))
    assert iou(coco.annToMask(annotation).astype(bool), truth) > 0.85


def test_a_data_error_is_not_swallowed_before_anything_is_written(predictor, tmp_path):
    photo(tmp_path / "a.jpg")
    with pytest.raises(DataError, match="marks nothing"):
        predictor.set_support(tmp_path / "a.jpg", np.zeros((30, 40), bool))
    assert len(segment_folder(predictor, tmp_path / "a.jpg", tmp_path / "out").written) == 1


def test_a_photo_called_classes_leaves_the_list_of_classes_alone(predictor, tmp_path):
    photo(tmp_path / "in/classes.jpg")
    segment_folder(predictor, tmp_path / "in", tmp_path / "out", formats=["yolo"], overlay=False)
    assert files(tmp_path / "out") == ["classes.txt", "classes_2.txt"]
    assert (tmp_path / "out/classes.txt").read_text() == "object\n"
    assert [job.stem for job in plan([tmp_path / "in"], tmp_path / "out")] == ["classes"]


def test_a_name_without_utf_8_is_spelled_out(tmp_path):
    predictor = FewShotPredictor(ColorSegmenter())
    pixels, mask = scene()
    predictor.set_support({"a\ud800b": ([pixels], [mask])})
    photo(tmp_path / "a.png")
    segment_folder(predictor, tmp_path / "a.png", tmp_path / "out", formats=["png", "yolo", "geojson", "coco"])
    assert (tmp_path / "out/classes.txt").read_text() == "a\\ud800b\n"


@pytest.mark.parametrize("resume", [False, True])
def test_masks_that_are_somebodys_work_stay_without_any_table(predictor, tmp_path, resume):
    photos, out = [tmp_path / f"{name}.png" for name in "abcd"], tmp_path / "out"
    for path in photos:
        photo(path)
    segment_folder(predictor, photos[:3], out)
    written = {path.stem: (out / path.name).read_bytes() for path in photos[:3]}
    mended = np.zeros_like(read_labels(out / "a.png"))
    mended[5:20, 5:20] = 255
    with Image.open(out / "a.png") as mask:
        texts = PngInfo()
        for key, value in mask.info.items():  # as a paint program keeps them
            texts.add_text(key, value)
    Image.fromarray(mended).save(out / "a.png", pnginfo=texts)
    Image.fromarray(mended).convert("RGB").save(out / "b.png")
    mended[4] = np.linspace(0, 255, mended.shape[1])
    Image.fromarray(mended).save(out / "d.png")  # which fewseg never wrote
    kept = {name: (out / f"{name}.png").read_bytes() for name in "abd"}
    predictor.set_support(*scene(BLUE))
    told = r"not fewseg's own: a\.png, b\.png, d\.png \(b\.png in colours, as saved, without the classes' values\)"
    told += r" \(d\.png with soft edges, of which the upper half is the object\);"
    with pytest.warns(DataWarning, match=told):
        summary = segment_folder(predictor, photos, out, resume=resume)
    assert {name: (out / f"{name}.png").read_bytes() for name in "abd"} == kept
    assert ((out / "c.png").read_bytes() == written["c"]) == resume
    assert summary.skipped == (4 if resume else 3)
    assert (out / "d_overlay.jpg").is_file()


def test_a_kept_mask_whose_edge_counts_as_nothing_is_not_told_to_be_soft(predictor, tmp_path):
    photo(tmp_path / "a.png")
    segment_folder(predictor, tmp_path / "a.png", tmp_path / "out")
    mended = np.zeros_like(read_labels(tmp_path / "out" / "a.png"))
    mended[4:21, 4:21] = 255
    mended[5:20, 5:20] = 1
    Image.fromarray(mended).save(tmp_path / "out" / "a.png")
    with pytest.warns(DataWarning, match=r"not fewseg's own: a\.png; tables"):
        segment_folder(predictor, tmp_path / "a.png", tmp_path / "out")


def test_a_corrected_mask_of_another_class_is_told_and_stays(tmp_path):
    path, out = tmp_path / "a.png", tmp_path / "out"
    photo(path)
    for name, others in (("rust", ()), ("scab", ()), ("scab", ("rot",))):
        predictor = FewShotPredictor(ColorSegmenter())
        predictor.set_support({one: scene() for one in (name, *others)})
        summary = segment_folder(predictor, [path], out, formats=("png", "csv"))
        if name == "rust":
            Image.fromarray(255 - read_labels(out / "a.png")).save(out / "a.png")
            mended = (out / "a.png").read_bytes()
            continue
        ((_, why),) = summary.failed
        assert f"a.png was corrected, and stays, but is of rust, and this run is of {', '.join((name, *others))}" in why
        assert (out / "a.png").read_bytes() == mended


@pytest.mark.parametrize("formats", [("png", "csv"), ("png", "coco", "yolo")])
@pytest.mark.parametrize("names", [("rust", "rot"), ("rust",)])
def test_masks_of_another_class_are_not_gone_on_with(
    tmp_path: Path, formats: tuple[str, ...], names: tuple[str, ...]
) -> None:
    for name in "ab":
        photo(tmp_path / f"{name}.png")

    def go(*names: str, name: str = "a", resume: bool = True) -> dict[str, bytes]:
        predictor = FewShotPredictor(ColorSegmenter())
        predictor.set_support({one: scene(color) for one, color in zip(names, (RED, BLUE), strict=False)})
        segment_folder(predictor, [tmp_path / f"{name}.png"], tmp_path / "out", formats=formats, resume=resume)
        return {name: (tmp_path / "out" / name).read_bytes() for name in files(tmp_path / "out")}

    kept = go(*names, resume=False)
    for other in ((*names[:-1], "scab"), ("scab", *names[1:])):
        with pytest.raises(
            UsageError, match=rf"a\.png is of {', '.join(names)}, and this run is of {', '.join(other)}"
        ):
            go(*other)
    assert go(*names) == kept
    with pytest.warns(DataWarning, match=r"masks of photos that this run was not given \(a\.png\)"):
        go(*(f"no {one}" for one in names), name="b")  # beside it
    with pytest.warns(DataWarning, match=r"masks of photos that this run was not given \(b\.png\)"):
        assert go(*names)["a.png"] == kept["a.png"]


def test_a_file_called_like_the_table_that_is_none_is_not_written_over(predictor, tmp_path):
    photo(tmp_path / "a.png")
    table = tmp_path / "out/results.csv"
    table.parent.mkdir()
    table.write_text("plot,yield\n1,2\n")
    with pytest.raises(UsageError, match=r"results\.csv is no table of fewseg segment .*move it away, or give another"):
        segment_folder(predictor, [tmp_path / "a.png"], table.parent, formats=("png", "csv"))
    assert table.read_text() == "plot,yield\n1,2\n"


@pytest.mark.parametrize("resume", [False, True])
def test_what_a_killed_run_left_is_removed_and_nothing_else(predictor, tmp_path, resume):
    photo(tmp_path / "in/sub/a.jpg")
    left = ["sub/.a.png.0123abcd.tmp", ".annotations.json.89abcdef.tmp"]
    mine = [".notes.tmp", "sub/.b.png.0123abcd.tmp", "sub/.a.png.mine.tmp"]
    for name in (*left, *mine):
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).touch()
    formats = ["png", "coco"]
    segment_folder(predictor, tmp_path / "in", tmp_path / "out", formats=formats, overlay=False, resume=resume)
    assert files(tmp_path / "out") == sorted([*mine, "annotations.json", "sub/a.png"])


def test_an_output_folder_that_vanishes_meanwhile_is_told(predictor, tmp_path):
    for name in "abc":
        photo(tmp_path / f"in/{name}.jpg")

    class Remover(Silent):
        def __call__(self, items, description, total, *, done=0):
            for number, item in enumerate(items):
                if number == 2:
                    shutil.rmtree(tmp_path / "out")
                yield item

    summary = segment_folder(predictor, tmp_path / "in", tmp_path / "out", progress=Remover())
    assert [path.name for path, _ in summary.written] == ["c.jpg"]
    assert [path.name for path, _ in summary.failed] == ["a.jpg", "b.jpg"]
    assert all("its output is gone" in reason for _, reason in summary.failed)


def test_photos_at_once_give_the_files_of_one_after_another(predictor, tmp_path):
    for number in range(9):
        photo(tmp_path / "photos" / f"{number}.png", size=(40 + 9 * number, 50), box=(3, 4, 30 + number, 40))
    for number in (2, 5):
        (tmp_path / "photos" / f"{number}.png").write_bytes(b"broken")
    given = {}
    for lanes in (1, 2, 3):
        predictor.engine.lanes = lanes
        out = tmp_path / f"out{lanes}"
        summary = segment_folder(predictor, tmp_path / "photos", out, formats=("png", "coco"))
        told = [(path.name, reason) for path, reason in summary.failed]
        given[lanes] = (
            told,
            [path.name for path, _ in summary.written],
            {f: (out / f).read_bytes() for f in files(out)},
        )
        again = segment_folder(predictor, tmp_path / "photos", out, formats=("png", "coco"), resume=True)
        assert again.skipped == 7
    assert given[1] == given[2] == given[3]
    assert [name for name, _ in given[1][0]] == ["2.png", "5.png"]
