"""One annotation, written by many tools, is one mask; and what tools write oddly is told, and stops nothing."""

from __future__ import annotations

import base64
import io
import json
import math
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as rle

from fewseg.data.annotations.read import load_supports
from fewseg.data.annotations.runs import OddShape, checked_runs, outline_runs
from fewseg.errors import DataError, DataWarning, UsageError
from fewseg.segment.formats import write_classes, yolo

WIDTH, HEIGHT = 60, 40
Corners = Sequence[tuple[float, float]]
SQUARE = [(10, 5), (30, 5), (30, 20), (10, 20)]
OTHER = [(40, 10), (50, 10), (50, 30), (40, 30)]


def photo(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 60)).save(path)
    return path


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def annotation(corners: Corners, category: int = 1, image: Any = 1, **changes: Any) -> dict[str, Any]:
    flat = [value for corner in corners for value in corner]
    return {"image_id": image, "category_id": category, "segmentation": [flat], "iscrowd": 0} | changes


def coco(annotations: Sequence[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    image = {"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}
    categories = [{"id": 1, "name": "part"}, {"id": 2, "name": "other"}]
    return {"images": [image], "categories": categories, "annotations": list(annotations)} | changes


def labelme(shapes: Sequence[tuple[str, str, Any]], **changes: Any) -> dict[str, Any]:
    entries = [{"label": label, "shape_type": kind, "points": points} for label, kind, points in shapes]
    size = {"imageHeight": HEIGHT, "imageWidth": WIDTH}
    return {"shapes": entries, "imagePath": "a.png", "imageData": None} | size | changes


def write_coco(root: Path, corners: Corners) -> Path:
    return write(root / "a.json", coco([annotation(corners)]))


def write_labelme(root: Path, corners: Corners) -> Path:
    return write(root / "a.json", labelme([("part", "polygon", corners)]))


def write_cvat(root: Path, corners: Corners) -> Path:
    points = ";".join(f"{x},{y}" for x, y in corners)
    image = f'<image id="0" name="a.png" width="{WIDTH}" height="{HEIGHT}"><polygon label="part" points="{points}"/>'
    return write(root / "annotations.xml", f"<annotations>{image}</image></annotations>")


def shares(corners: Corners) -> list[tuple[float, float]]:
    return [(100 * x / WIDTH, 100 * y / HEIGHT) for x, y in corners]


def write_label_studio(root: Path, corners: Corners) -> Path:
    value = {"points": shares(corners), "polygonlabels": ["part"]}
    result = {"original_width": WIDTH, "original_height": HEIGHT, "value": value}
    task = {"id": 1, "data": {"image": "/data/upload/1/1a2b3c4d-a.png"}, "annotations": [{"result": [result]}]}
    return write(root / "a.json", [task])


def write_json_min(root: Path, corners: Corners) -> Path:
    region = {"points": shares(corners), "polygonlabels": ["part"], "original_width": WIDTH, "original_height": HEIGHT}
    return write(root / "a.json", [{"id": 1, "image": "/data/upload/1/1a2b3c4d-a.png", "label": [region]}])


def write_via(root: Path, corners: Corners) -> Path:
    x, y = zip(*corners, strict=True)
    region = {"shape_attributes": {"name": "polygon", "all_points_x": x, "all_points_y": y}}
    region["region_attributes"] = {"kind": "part"}
    return write(root / "a.json", {"a.png9": {"filename": "a.png", "size": -1, "regions": [region]}})


def write_supervisely(root: Path, corners: Corners) -> Path:
    entry = {"classTitle": "part", "geometryType": "polygon", "points": {"exterior": corners, "interior": []}}
    return write(root / "a.png.json", {"size": {"height": HEIGHT, "width": WIDTH}, "objects": [entry]})


def write_yolo(root: Path, corners: Corners) -> Path:
    write(root / "data.yaml", "names: [part]\n")
    write(root / "labels/a.txt", "0 " + " ".join(f"{x / WIDTH:.6g} {y / HEIGHT:.6g}" for x, y in corners) + "\n")
    (root / "images").mkdir()
    (root / "a.png").rename(root / "images/a.png")
    return root


FORMATS: Sequence[Callable[[Path, Corners], Path]] = [
    *(write_coco, write_labelme, write_cvat, write_label_studio, write_json_min, write_via),
    *(write_supervisely, write_yolo),
]
CORNERS = st.tuples(*(st.integers(-40, 4 * side + 40).map(lambda n: n / 4) for side in (WIDTH, HEIGHT)))


@given(corners=st.lists(CORNERS, min_size=3, max_size=9))
@settings(max_examples=15, deadline=None)
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools
@pytest.mark.slow
def test_one_outline_is_one_mask_in_every_format(tmp_path_factory: pytest.TempPathFactory, corners: Corners) -> None:
    flat = [value for corner in corners for value in corner]
    expected = rle.decode(rle.merge(rle.frPyObjects([flat], HEIGHT, WIDTH)))  # type: ignore[arg-type]
    for save in FORMATS:
        root = tmp_path_factory.mktemp("one")
        photo(root / "a.png")
        export = save(root, corners)
        if not expected.any():
            with pytest.raises(DataError, match="no annotated areas"):
                load_supports(export)
            continue
        ((images, masks),) = load_supports(export).values()
        assert len(images) == 1
        np.testing.assert_array_equal(masks[0], expected, err_msg=save.__name__)


def areas(export: Path, **options: Any) -> dict[str, list[int]]:
    return {name: [int((m == 1).sum()) for m in masks] for name, (_, masks) in load_supports(export, **options).items()}


def test_overlapping_classes_are_whole_in_any_order(tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    small = annotation([(15, 8), (20, 8), (20, 12), (15, 12)], 2)
    for entries in ([small, annotation(SQUARE)], [annotation(SQUARE), small]):
        assert areas(write(tmp_path / "a.json", coco(entries))) == {"other": [20], "part": [300]}


@pytest.mark.parametrize(
    ("odd", "told"),
    [
        (annotation([(5, 5), (6, 6)], bbox=[0, 0, 9, 9]), "neither an outline of three points"),
        (annotation(SQUARE, segmentation=[[1, 2, 3, 4], [40, 10, 50, 10, 50, 30]]), "fewer than three points"),
        (annotation(SQUARE, segmentation=[], bbox=[40, 10, 10, 20]), "boxes stand in for missing outlines"),
        (annotation(SQUARE, segmentation=[]), "neither an outline of three points or more nor a box"),
        (annotation(SQUARE, image=9), "of images that are not listed"),
        (annotation(SQUARE, category=9), "of categories that are not listed"),
        (annotation(SQUARE, image=None), "an id is neither a number nor text"),
        (annotation([(math.nan, 5), *SQUARE]), "neither an outline"),
        (annotation(SQUARE, segmentation={"size": [HEIGHT, WIDTH], "counts": [0, -1]}), "no whole numbers from 0"),
        (annotation(SQUARE, segmentation={"size": [HEIGHT, WIDTH], "counts": "0~"}), "compressed run lengths"),
        (annotation(SQUARE, segmentation={"size": [9, 9], "counts": [0, 81]}), "another size than their image"),
        (
            annotation(
                SQUARE,
                segmentation={"size": [HEIGHT, WIDTH], "counts": [0, *3 * [2**62, 0], 2**62 + HEIGHT * WIDTH]},
            ),
            "no whole numbers from 0",
        ),
        ("text", "is not built as the format says"),
    ],
)
def test_one_odd_annotation_is_told_and_stops_nothing(tmp_path: Path, odd: Any, told: str) -> None:
    photo(tmp_path / "a.png")
    export = write(tmp_path / "a.json", coco([annotation(SQUARE), odd]))
    for _ in range(2):  # the second time from the cache
        with pytest.warns(DataWarning, match=f"a.json: .*{told}"):
            assert areas(export)["part"][0] >= 300
    write(tmp_path / "a.json", coco([odd]))
    if "boxes" in told or "fewer" in told:
        with pytest.warns(DataWarning, match=told):
            assert areas(export)["part"][0] in (100, 200)
    else:
        with pytest.raises(DataError, match=f"no annotation that can be used.*{told}"):
            load_supports(export)


def test_ids_are_only_compared(tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    for image, category in (("img_a", 1), (7, 1.0), (7.0, "1")):
        images = [{"id": image, "coco_url": "http://x.org/val/a.png", "width": WIDTH, "height": HEIGHT}]
        export = write(tmp_path / "a.json", coco([annotation(SQUARE, category, image)], images=images))
        assert areas(export) == {"part": [300]}
    two = [{"id": 1, "file_name": name, "width": WIDTH, "height": HEIGHT} for name in ("a.png", "b.png")]
    with pytest.raises(DataError, match=r"'a.png' and 'b.png' have one id"):
        load_supports(write(tmp_path / "a.json", coco([annotation(SQUARE)], images=two)))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "gb18030"])
def test_class_names_of_any_encoding(tmp_path: Path, encoding: str) -> None:
    photo(tmp_path / "a.png")
    categories = [{"id": 1, "name": "零件"}]
    for content in (coco([annotation(SQUARE)], categories=categories), labelme([("零件", "polygon", SQUARE)])):
        (tmp_path / "a.json").write_bytes(json.dumps(content, ensure_ascii=False).encode(encoding))
        if encoding == "gb18030":
            with pytest.warns(DataWarning, match="read as gb18030"):
                assert areas(tmp_path / "a.json") == {"零件": [300]}
        else:
            assert areas(tmp_path / "a.json") == {"零件": [300]}


def test_labelme_ignores_and_x_anylabeling_shapes(tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    shapes = [("part", "rectangle", SQUARE), ("part", "rotation", OTHER), ("other", "spiral", SQUARE)]
    shapes += [("__ignore__", "polygon", [(20, 5), (40, 5), (40, 20), (20, 20)]), ("_background_", "polygon", OTHER)]
    export = write(tmp_path / "a.json", labelme(shapes))
    (mask,) = load_supports(export, classes=["part"])["part"][1]
    assert np.unique(mask, return_counts=True)[1].tolist() == [HEIGHT * WIDTH - 300 - 200 - 150, 500, 150]
    with pytest.warns(DataWarning, match="regions that cannot be drawn, left out .*'spiral' is not known"):
        assert areas(export) == {"part": [500]}
    with pytest.raises(DataError, match="'spiral' is not known"):
        load_supports(export, classes=["other"])


def test_labelme_in_sub_folders_with_other_json_beside(tmp_path: Path) -> None:
    for place in ("one", "two"):
        photo(tmp_path / place / "a.png")
        write(tmp_path / place / "a.json", labelme([("part", "polygon", SQUARE)]))
    write(tmp_path / "settings.json", {"theme": "dark"})
    with pytest.warns(DataWarning, match="JSON files are no annotations, left out .*settings.json"):
        images, _ = load_supports(tmp_path)["part"]
    assert images == [tmp_path / "one/a.png", tmp_path / "two/a.png"]
    write(tmp_path / "coco.json", coco([annotation(SQUARE)]))
    with pytest.raises(
        UsageError, match=r"holds several exports.* give one file, or the folder of LabelMe's files alone: copy"
    ):
        load_supports(tmp_path)


def test_the_photo_inside_where_the_path_is_no_picture(tmp_path: Path) -> None:
    data = base64.b64encode(photo(tmp_path / "hidden/x.png").read_bytes()).decode()
    content = labelme([("part", "polygon", SQUARE)], imagePath="a.json", imageData=data)
    images, _ = load_supports(write(tmp_path / "a.json", content))["part"]
    assert not isinstance(images[0], Path)


def test_two_entries_of_one_photo_are_one_support(tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    for name, corners in (("a", SQUARE), ("b", OTHER)):
        write(tmp_path / f"{name}.json", labelme([("part", "polygon", corners)]))
    with pytest.warns(
        DataWarning, match=r"photos have several entries, whose regions are taken together \(one: .*a\.png"
    ):
        assert areas(tmp_path) == {"part": [500]}


def test_a_missing_photo_stops_only_its_own_class(tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    images = [{"id": n, "file_name": f"{n}.png", "width": WIDTH, "height": HEIGHT} for n in (1, 2, 3)]
    photo(tmp_path / "1.png")
    entries = [annotation(SQUARE), annotation(SQUARE, 1, 3), annotation(SQUARE, 2, 2)]
    export = write(tmp_path / "a.json", coco(entries, images=images))
    with pytest.warns(DataWarning, match=r"2 photos were not found in .* \(the first: '2.png'\)"):
        assert areas(export) == {"part": [300]}
    with pytest.raises(DataError, match=r"no annotated areas of other to read .*'2.png'"):
        load_supports(export, classes=["other"])


def test_photos_of_another_size_than_the_export_says_are_left_out(tmp_path: Path) -> None:
    photo(tmp_path / "a.png", (30, 20))
    with pytest.raises(DataError, match="said to be of 60 x 40 pixels, but is of 30 x 20"):
        load_supports(write_coco(tmp_path, SQUARE))


def test_via_keeps_bytes_alone_so_that_another_photo_is_told_by_them_and_by_what_lies_beside_it(tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: it reaches to 120,20, and the photo is of 60 x 40 pixels; give the"):
        load_supports(write_via(tmp_path, [(20, 10), (120, 10), (120, 20)]))
    export = write_via(tmp_path, [(20, 10), (63, 10), (63, 20)])  # a hand slips
    assert areas(export)["part"][0] > 150
    export.write_text(export.read_text().replace('"size": -1', '"size": 9'))
    with pytest.warns(DataWarning, match=r"other files than those that were annotated.*a\.png has \d+ bytes, 9 when"):
        load_supports(export)


# where photos are found


def test_names_are_paths_first_and_addresses_then(tmp_path: Path) -> None:
    for file, name in (
        ("cam #1.png", "cam #1.png"),
        ("my%20part.png", "my%20part.png"),
        ("what?.png", "what?.png"),
        ("my part.png", "http://host/data/my%20part.png"),
        ("sub/b.png", r"C:\Users\me\sub\b.png"),
        ("c.png", "/data/upload/4/1a2b3c4d-c.png"),
        ("set/d.png", "/data/local-files/?d=set%2Fd.png"),
    ):
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        photo(root / file)
        images = [{"id": 1, "file_name": name, "width": WIDTH, "height": HEIGHT}]
        export = write(root / "a.json", coco([annotation(SQUARE)], images=images))
        assert load_supports(export)["part"][0] == [root / file], name


def subsets(root: Path) -> Path:
    photo(root / "images/Train/1.png")
    photo(root / "images/Test/1.png")
    points = ";".join(f"{x},{y}" for x, y in SQUARE)
    image = (
        f'<image name="1.png" subset="%s" width="{WIDTH}" height="{HEIGHT}"><polygon label="part" points="{points}"/>'
    )
    content = "".join(f"{image % name}</image>" for name in ("Train", "Test"))
    return write(root / "annotations.xml", f"<annotations>{content}</annotations>")


def test_subsets_of_a_cvat_project(tmp_path: Path) -> None:
    export = subsets(tmp_path)
    assert load_supports(export)["part"][0] == [tmp_path / f"images/{name}/1.png" for name in ("Train", "Test")]
    with pytest.raises(DataError, match=r"another entry of it would both be .*Train"):
        load_supports(export, photos=tmp_path / "images/Train", shots=1)
    (tmp_path / "images/Train").rename(tmp_path / "images/Val")
    with pytest.raises(DataError, match=r"'Train/1.png' may be any of .*Test.1.png, .*Val.1.png"):
        load_supports(export)


# run lengths and outlines


@given(counts=st.lists(st.integers(-5, 2**63), max_size=9) | st.text(st.characters(max_codepoint=126), max_size=12))
@pytest.mark.slow
def test_run_lengths_cover_the_image_or_are_refused(counts: Any) -> None:
    try:
        runs = checked_runs(counts, 12)
    except OddShape:
        return
    assert runs.min() >= 0
    assert runs.sum() == 12


def test_far_corners_are_cut_off_and_too_long_outlines_refused() -> None:
    assert outline_runs([10, -1e8, 1e8, -1e8, 1e8, 1e8, 10, 1e8], 40, 60).tolist() == [400, 2000]
    with pytest.raises(OddShape, match="longer than"):
        outline_runs([0, 0, 4000, 4000] * 2000, 4000, 4000)


# what only some tools have


def test_yolo_as_segment_writes_it_comes_back(tmp_path: Path) -> None:
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[5:30, 10:40], labels[10:20, 15:25], labels[33:39, 3:57] = 1, 0, 2
    photo(tmp_path / "photos/a.jpg")
    write(tmp_path / "out/a.txt", yolo(labels))
    write_classes(tmp_path / "out/classes.txt", ["ring", "bar"])
    found = load_supports(tmp_path / "out", photos=tmp_path / "photos")
    for number, name in ((1, "ring"), (2, "bar")):
        np.testing.assert_array_equal(found[name][1][0], labels == number)
    photo(tmp_path / "out/a.png")  # a mask, which `segment` writes too
    photo(tmp_path / "out/a_overlay.jpg")
    with pytest.raises(DataError, match="beside masks, as `fewseg segment` writes them; give --photos"):
        load_supports(tmp_path / "out")


def test_yolo_boxes_odd_lines_and_names(tmp_path: Path) -> None:
    for part in ("train", "valid"):
        photo(tmp_path / part / "images/a.png")
        write(tmp_path / part / "labels/a.txt", "1 0.5 0.5 0.5 0.5\n0 10 20 30 40 50 60\nx\n7 0 0 1 0 1 1\n\n")
    write(tmp_path / "data.yaml", "names:\n  0: part\n  1: box\n")
    with pytest.warns(DataWarning) as warned:
        assert areas(tmp_path / "data.yaml") == {"7": [1200, 1200], "box": [600, 600]} | areas(tmp_path, classes=["7"])
    told = "\n".join(str(warning.message) for warning in warned)
    for text in ("2 boxes stand in", "4 lines are not `class x y", "2 lines are of classes without a name"):
        assert text in told


def test_via_projects_and_shapes(tmp_path: Path) -> None:
    shapes = [
        {"name": "rect", "x": 10, "y": 5, "width": 20, "height": 15},
        {"name": "circle", "cx": 30, "cy": 20, "r": 10},
        {"name": "ellipse", "cx": 30, "cy": 20, "rx": 10, "ry": 5},
        {"name": "polyline", "all_points_x": [0, 60], "all_points_y": [20, 20]},
    ]
    names = ({"kind": "a"}, {"kind": {"b": True, "a": False}}, {"kind": "c", "colour": "red"}, {"kind": ""})
    regions = [
        {"shape_attributes": shape, "region_attributes": given} for shape, given in zip(shapes, names, strict=True)
    ]
    photo(tmp_path / "a.png")
    metadata = {"a.png9": {"filename": "a.png", "size": -1, "regions": dict(enumerate(regions))}}
    export = write(tmp_path / "a.json", {"_via_settings": {}, "_via_img_metadata": metadata})
    with pytest.warns(DataWarning) as warned:
        found = areas(export)
    assert found["a"] == [300]
    assert found["object"] == [600]
    assert abs(found["b"][0] - math.pi * 100) < 8
    assert abs(found["c"][0] - math.pi * 50) < 6
    told = "\n".join(str(warning.message) for warning in warned)
    assert "several attributes; the class is 'kind'" in told
    assert "no class and are called 'object'" in told


def bitmap(mask: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.dstack([mask * 255] * 4).astype(np.uint8)).save(buffer, "PNG")
    return base64.b64encode(zlib.compress(buffer.getvalue())).decode()


@pytest.mark.slow
def test_supervisely_bitmaps_holes_and_bombs(tmp_path: Path) -> None:
    part = np.zeros((6, 8), bool)
    part[1:, 2:] = True
    hole = [[15, 8], [20, 8], [20, 12], [15, 12]]
    bomb = base64.b64encode(zlib.compress(bytes(1 << 27))).decode()
    entries = [
        {"classTitle": "a", "geometryType": "polygon", "points": {"exterior": SQUARE, "interior": [hole]}},
        {"classTitle": "b", "geometryType": "bitmap", "bitmap": {"data": bitmap(part), "origin": [40, 30]}},
        {"classTitle": "b", "geometryType": "bitmap", "bitmap": {"data": bomb, "origin": [0, 0]}},
    ]
    photo(tmp_path / "ds/img/a.png")
    write(tmp_path / "meta.json", {"classes": []})
    write(tmp_path / "ds/ann/a.png.json", {"size": {"height": HEIGHT, "width": WIDTH}, "objects": entries})
    with pytest.warns(DataWarning) as warned:
        found = load_supports(tmp_path)
    assert found["a"][1][0].sum() == 280
    assert (found["b"][1][0][31:36, 42:48] == 1).all()
    assert found["b"][1][0].sum() == 30
    assert "its bitmap is too large" in "\n".join(str(warning.message) for warning in warned)


def test_an_unknown_json_is_told_with_what_is_known(tmp_path: Path) -> None:
    for name in ("a.json", ""):
        write(tmp_path / "a.json", {"frames": [1, 2]})
        with pytest.raises(DataError, match=r"known annotation format; known: COCO.*VIA.*Supervisely.*YOLO"):
            load_supports(tmp_path / name)
