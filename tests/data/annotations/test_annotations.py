"""Exports of annotation tools in their real layouts become supports."""

from __future__ import annotations

import base64
import io
import json
import re
import warnings
import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from fewseg.data.annotations.label_studio import decode_rle
from fewseg.data.annotations.read import load_supports
from fewseg.errors import DataError, DataWarning, UsageError

SIZE = (40, 60)
"""H, W of the photos."""


def rect(left, top, right, bottom, size=SIZE):
    mask = np.zeros(size, np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def photo(path: Path, size=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size[::-1], (90, 120, 60)).save(path)
    return path


def write(path: Path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def check(supports, expected):
    """`expected`: {class: {photo name: mask}}."""
    assert list(supports) == list(expected)
    for name, masks in expected.items():
        images, found = supports[name]
        assert [Path(image).name for image in images] == list(masks)
        for mask, truth in zip(found, masks.values(), strict=True):
            assert (mask.dtype, mask.shape) == (np.uint8, truth.shape)
            np.testing.assert_array_equal(mask, truth)


# COCO


def coco(tmp_path, name="a.jpg"):
    box, ring = rect(10, 5, 30, 20), rect(40, 10, 50, 30)
    flat = ring.T.ravel()
    counts = np.diff(np.flatnonzero(np.diff(flat, prepend=-1, append=-1))).tolist()
    packed = rle.encode(np.asfortranarray(rect(0, 30, 8, 40)))
    segmentations = [
        [[10, 5, 30, 5, 30, 20, 10, 20]],
        {"size": list(SIZE), "counts": counts if flat[0] == 0 else [0, *counts]},
        {"size": list(SIZE), "counts": packed["counts"].decode()},
    ]
    annotations = [
        {"id": i, "image_id": 7, "category_id": c, "segmentation": s, "iscrowd": int(i == 2), "bbox": [], "area": 1}
        for i, (c, s) in enumerate(zip((18, 17, 18), segmentations, strict=True), start=1)
    ]
    content = {
        "info": {"description": "a file"},
        "images": [
            {"id": 9, "file_name": "empty.jpg", "width": 60, "height": 40},
            {"id": 7, "file_name": name, "width": 60, "height": 40},
        ],
        "annotations": annotations,
        "categories": [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}],
    }
    return write(tmp_path / "annotations/instances.json", content), box | rect(0, 30, 8, 40), ring


def test_coco(tmp_path):
    file, dog, cat = coco(tmp_path)
    photo(tmp_path / "images/a.jpg")
    check(load_supports(file), {"cat": {"a.jpg": cat}, "dog": {"a.jpg": dog}})
    check(load_supports(file, classes=["dog"]), {"dog": {"a.jpg": dog}})
    with pytest.raises(UsageError, match="no class 'bird'; it has cat, dog"):
        load_supports(file, classes=["bird"])


def test_a_missing_photo_is_told_with_where_it_was_looked_for(tmp_path):
    file, dog, cat = coco(tmp_path)
    with pytest.raises(DataError, match=r"not found in .*annotations.*--photos \(one: 'a\.jpg'\)"):
        load_supports(file)
    photo(tmp_path / "elsewhere/a.jpg")
    check(load_supports(file, photos=tmp_path / "elsewhere"), {"cat": {"a.jpg": cat}, "dog": {"a.jpg": dog}})


def one_coco(segmentation, name="a.jpg", **changes):
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": segmentation} | changes
    image = {"id": 1, "file_name": name, "width": 60, "height": 40}
    return {"images": [image], "categories": [{"id": 1, "name": "cat"}], "annotations": [annotation]}


def test_run_lengths_as_tools_write_them(tmp_path):
    photo(tmp_path / "a.jpg")
    truth = rect(10, 5, 30, 20)
    packed = rle.encode(np.asfortranarray(truth))["counts"]
    lengths = np.diff(np.flatnonzero(np.diff(truth.T.ravel())), prepend=-1, append=40 * 60 - 1)
    for counts in (packed.decode(), str(packed), lengths.tolist(), [float(n) for n in lengths]):
        content = one_coco({"size": [40, 60], "counts": counts})
        check(load_supports(write(tmp_path / "a.json", content)), {"cat": {"a.jpg": truth}})


def test_an_empty_outline_is_its_box_and_shares_are_told(tmp_path):
    photo(tmp_path / "a.jpg")
    for empty in ([], [[]], None):
        with pytest.warns(DataWarning, match="boxes stand in"):
            found = load_supports(write(tmp_path / "a.json", one_coco(empty, bbox=[10, 5, 20, 15])))
        check(found, {"cat": {"a.jpg": rect(10, 5, 30, 20)}})
    with pytest.raises(DataError, match=r"within one pixel; are they shares"):
        load_supports(write(tmp_path / "a.json", one_coco([[0.1, 0.1, 0.9, 0.1, 0.9, 0.9]])))


@pytest.mark.parametrize(
    ("export", "place", "name"),
    [
        ("annotations/instances_val2017.json", "val2017/1.jpg", "1.jpg"),  # COCO's own
        ("annotations/instances_default.json", "images/default/sub/a.jpg", "sub/a.jpg"),  # CVAT's
        ("a.json", "pics/IMG_1.jpg", "img_1.JPG"),  # copied by Windows
        ("a.json", "K\u0075\u0308he.jpg", "K\u00fche.jpg"),  # unpacked by macOS
    ],
)
def test_photos_are_found_where_tools_put_them(tmp_path, export, place, name):
    photo(tmp_path / place)
    found = load_supports(write(tmp_path / export, one_coco([[10, 5, 30, 5, 30, 20, 10, 20]], name)))
    check(found, {"cat": {Path(place).name: rect(10, 5, 30, 20)}})


def test_other_json_files_are_told_from_annotations(tmp_path):
    photo(tmp_path / "ds0/img/a.jpg")
    corners = [[10, 5], [30, 5], [30, 20], [10, 20]]
    shape = {"geometryType": "polygon", "classTitle": "cat", "points": {"exterior": corners, "interior": []}}
    content = {"size": {"height": 40, "width": 60}, "objects": [shape]}
    write(tmp_path / "ds0/ann/a.jpg.json", content)
    write(tmp_path / "meta.json", {"classes": [], "tags": [], "projectType": "images"})
    write(tmp_path / "numbers.json", "[1, 2]")
    with pytest.warns(DataWarning, match=r"2 JSON files are no annotations, left out .*meta\.json"):
        check(load_supports(tmp_path), {"cat": {"a.jpg": rect(10, 5, 30, 20)}})


# LabelMe


def labelme(shapes, **changes):
    entries = [
        {"label": label, "points": points, "group_id": None, "description": "", "shape_type": kind, "flags": {}} | more
        for label, kind, points, more in shapes
    ]
    content = {
        "version": "5.5.0",
        "flags": {},
        "shapes": entries,
        "imagePath": "a.jpg",
        "imageData": None,
        "imageHeight": 40,
        "imageWidth": 60,
    }
    return content | changes


def test_labelme_shapes(tmp_path):
    part = np.zeros((11, 6), bool)
    part[2:, 1:] = True
    png = io.BytesIO()
    Image.fromarray(part).save(png, "PNG")
    shapes = [
        ("cat", "polygon", [[10.0, 5.0], [30.0, 5.0], [30.0, 20.0], [10.0, 20.0]], {"mask": None}),
        ("cat", "rectangle", [[50.0, 30.0], [40.0, 10.0]], {}),
        ("dog", "mask", [[3.0, 20.0], [8.0, 30.0]], {"mask": base64.b64encode(png.getvalue()).decode()}),
        ("sun", "circle", [[30.0, 20.0], [40.0, 20.0]], {}),
        ("road", "linestrip", [[0.0, 35.0], [60.0, 35.0]], {}),
    ]
    photo(tmp_path / "a.jpg")
    found = load_supports(write(tmp_path / "a.json", labelme(shapes)), classes=["cat", "dog"])
    check(
        found,
        {"cat": {"a.jpg": rect(10, 5, 30, 20) | rect(40, 10, 50, 30)}, "dog": {"a.jpg": rect(4, 22, 9, 31)}},
    )
    rest = load_supports(tmp_path / "a.json", classes=["sun", "road"])
    sun, road = rest["sun"][1][0], rest["road"][1][0]
    assert abs(sun.sum() - np.pi * 100) < 8
    assert (sun[20, 20], sun[20, 39], sun[20, 41], sun[9, 30]) == (1, 1, 0, 0)
    assert road.sum(0).tolist() == [10] * 60


def test_a_folder_of_labelme_files_and_photos_inside_them(tmp_path):
    square = [[0, 0], [10, 0], [10, 10], [0, 10]]
    data = base64.b64encode(photo(tmp_path / "hidden/x.png").read_bytes()).decode()
    for name in ("a", "b", "c"):
        photo(tmp_path / f"set/{name}.jpg")
        content = labelme([("cat", "polygon", square, {})], imagePath=f"{name}.jpg")
        write(tmp_path / f"set/{name}.json", content)
    write(tmp_path / "set/d.json", labelme([("dog", "polygon", square, {})], imagePath="..\\gone.jpg", imageData=data))
    found = load_supports(tmp_path / "set", shots=2)
    check({"cat": found["cat"]}, {"cat": {"a.jpg": rect(0, 0, 10, 10), "b.jpg": rect(0, 0, 10, 10)}})
    assert found["dog"][0][0].size == (60, 40)
    with pytest.raises(DataError, match="of type 'spiral'"):
        load_supports(write(tmp_path / "e.json", labelme([("cat", "spiral", square, {})])))


# Label Studio


def pack(values, sizes=(3, 4, 8, 16)):
    """Run lengths as Label Studio's editor writes them: repeated words and literal ones, by length."""
    bits = f"{len(values):032b}{7:05b}" + "".join(f"{s - 1:04b}" for s in sizes)
    edges = np.flatnonzero(np.diff(values.astype(int), prepend=-1, append=-1))
    for first, end in pairwise(edges):
        begin = first
        while begin < end:
            length = min(end - begin, 1 << sizes[-1])
            kind = next(i for i, s in enumerate(sizes) if length <= 1 << s)
            if length == 2:  # a literal run
                bits += f"0{kind:02b}{length - 1:0{sizes[kind]}b}" + f"{values[begin]:08b}" * 2
            else:
                bits += f"1{kind:02b}{length - 1:0{sizes[kind]}b}{values[begin]:08b}"
            begin += length
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def brush(mask):
    return pack(np.repeat(mask.ravel() * np.uint8(255), 4))


def region(kind, value, labels):
    return {
        "original_width": 60,
        "original_height": 40,
        "image_rotation": 0,
        "value": value | {kind: labels},
        "id": "Jx3kQ0",
        "from_name": "tag",
        "to_name": "image",
        "type": kind,
        "origin": "manual",
    }


def task(number, results, image):
    return {
        "id": number,
        "annotations": [
            {"id": 10 * number, "completed_by": 1, "result": [], "was_cancelled": True},
            {"id": 10 * number + 1, "completed_by": 1, "result": results, "was_cancelled": False},
        ],
        "file_upload": Path(image).name,
        "data": {"image": image},
        "meta": {},
        "project": 3,
    }


def test_label_studio_brushes_and_outlines(tmp_path):
    odd = rect(7, 3, 29, 33)
    odd[5, 40], odd[39, 59] = 1, 1
    results = [
        region("brushlabels", {"format": "rle", "rle": brush(odd)}, ["Airplane"]),
        region("polygonlabels", {"points": [[50, 25], [75, 25], [75, 75], [50, 75]], "closed": True}, ["Car"]),
        region("rectanglelabels", {"x": 0, "y": 0, "width": 10, "height": 25, "rotation": 0}, ["Car"]),
        {"value": {"choices": ["sunny"]}, "type": "choices", "from_name": "weather", "to_name": "image"},
    ]
    ellipse = {"x": 50, "y": 50, "radiusX": 10, "radiusY": 25, "rotation": 0}
    tasks = [
        task(1, results, "/data/upload/3/1a2b3c4d-a.jpg"),
        task(2, [region("ellipselabels", ellipse, ["Car"])], "/data/local-files/?d=set%2Fsub/b.jpg"),
    ]
    photo(tmp_path / "a.jpg")
    photo(tmp_path / "images/b.jpg")
    found = load_supports(write(tmp_path / "project-3-at-2026-01-01.json", tasks))
    boxes = rect(30, 10, 45, 30) | rect(0, 0, 6, 10)
    check(found | {"Car": tuple(p[:1] for p in found["Car"])}, {"Airplane": {"a.jpg": odd}, "Car": {"a.jpg": boxes}})
    assert Path(found["Car"][0][1]).name == "b.jpg"
    assert abs(found["Car"][1][1].sum() - np.pi * 60) < 6


def test_of_several_annotations_of_a_task_the_first_is_read_and_told(tmp_path):
    photo(tmp_path / "a.jpg")
    outlines = [{"points": [[x, 25], [75, 25], [75, 75], [x, 75]]} for x in (50, 25)]
    regions = [region("polygonlabels", outline, ["Car"]) for outline in outlines]
    full = task(1, [], "/data/upload/3/1a2b3c4d-a.jpg")
    full["annotations"] += [{"id": i, "result": [r], "was_cancelled": False} for i, r in enumerate(regions)]
    short = [
        {"id": 1, "image": "a.jpg", "annotation_id": i, "tag": [r["value"] | {k: r[k] for k in r if "original" in k}]}
        for i, r in enumerate(regions)
    ]
    for content in ([full], short):
        with pytest.warns(DataWarning, match="tasks have several annotations, of which the first is read"):
            found = load_supports(write(tmp_path / "a.json", content))
        check(found, {"Car": {"a.jpg": rect(30, 10, 45, 30)}})
    full |= {"annotations": [], "predictions": [{"result": regions}]}
    with pytest.raises(DataError, match="predictions alone"):
        load_supports(write(tmp_path / "a.json", [full]))


def test_label_studio_s_own_bytes_are_read():
    """The first bytes of a published export: 3332 x 2527 RGBA pixels that begin with zeros."""
    head = [2, 1, 233, 240, 57, 27, 255, 255, 255, 0, 255, 255, 224, 31, 255, 252, 3, 255, 255, 128, 127, 255]
    assert int.from_bytes(bytes(head[:4])) == 4 * 3332 * 2527
    small = [0, 4, 0, 0, *head[4:]]  # the same run, ended after its first 4 * 65536 values
    with pytest.raises(DataError, match="cut off"):
        decode_rle(head)
    assert not decode_rle([0, 1, 0, 0, *head[4:]]).any()
    assert len(decode_rle([0, 1, 0, 0, *head[4:]])) == 65536
    assert small[4:] == head[4:]


def test_label_studio_brushes_as_png_beside_the_json(tmp_path):
    first, second = rect(7, 3, 29, 33), rect(40, 3, 50, 33)
    photo(tmp_path / "a.jpg")
    for name, mask in (("Car-0", first), ("Car-1", second), ("Big-Boat-0", second)):
        Image.fromarray(mask * np.uint8(255)).save(tmp_path / f"task-5-annotation-12-by-2-tag-{name}.png")
    with pytest.raises(DataError, match="put the JSON export"):
        load_supports(tmp_path)
    write(tmp_path / "project.json", [{"id": 5, "image": "/data/upload/3/1a2b3c4d-a.jpg", "annotator": 2}])
    check(load_supports(tmp_path), {"Big-Boat": {"a.jpg": second}, "Car": {"a.jpg": first | second}})


# CVAT

XML = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta><task><id>4</id><name>cats</name><mode>annotation</mode>
    <labels><label><name>cat</name><color>#ff00cc</color><type>any</type><attributes></attributes></label></labels>
  </task></meta>
  <image id="0" name="set/a.jpg" width="60" height="40">
    <polygon label="cat" source="manual" occluded="0" points="10.00,5.00;30.00,5.00;30.00,20.00;10.00,20.00">
      <attribute name="age">3</attribute>
    </polygon>
    <mask label="cat" source="manual" occluded="0" rle="1, 3, 1, 3" left="50" top="30" width="4" height="2" z_order="0">
    </mask>
    <box label="dog" source="manual" occluded="0" xtl="0.00" ytl="10.00" xbr="6.00" ybr="20.00" z_order="0"></box>
    <points label="cat" source="manual" occluded="0" points="1.00,2.00" z_order="0"></points>
  </image>
  <image id="1" name="set/b.jpg" width="60" height="40">
    <ellipse label="dog" source="manual" occluded="0" cx="30.0" cy="20.0" rx="6.0" ry="10.0" rotation="90.0"/>
  </image>
  <image id="2" name="set/c.jpg" width="60" height="40"></image>
</annotations>
"""


def test_cvat_for_images(tmp_path):
    photo(tmp_path / "images/set/a.jpg")
    photo(tmp_path / "images/set/b.jpg")
    with pytest.warns(DataWarning, match=r"shapes without an area are left out \(one: a points on 'set/a.jpg'"):
        found = load_supports(write(tmp_path / "annotations.xml", XML))
    mask = rect(10, 5, 30, 20)
    mask[30, 51:54], mask[31, 51:54] = 1, 1
    dog = {"dog": tuple(part[:1] for part in found["dog"])}
    check(found | dog, {"cat": {"a.jpg": mask}, "dog": {"a.jpg": rect(0, 10, 6, 20)}})
    turned = found["dog"][1][1]
    assert (turned[20, 21], turned[20, 38], turned[12, 30], turned[15, 30]) == (1, 1, 0, 1)
    with pytest.warns(DataWarning):
        assert list(load_supports(tmp_path)) == ["cat", "dog"]


def test_cvat_for_video_and_hostile_xml_are_refused(tmp_path):
    track = '<annotations><track id="0" label="cat"><polygon frame="0" points="1,1;2,2;3,1"/></track></annotations>'
    with pytest.raises(DataError, match="CVAT for images"):
        load_supports(write(tmp_path / "v.xml", track))
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><annotations>&b;</annotations>'
    with pytest.raises(DataError, match="read safely"):
        load_supports(write(tmp_path / "bomb.xml", bomb))
    with pytest.raises(DataError, match="read safely"):
        load_supports(write(tmp_path / "cut.xml", XML[:700]))
    with pytest.raises(DataError, match=r"images that are not of CVAT's format, left out \(one: image 1: it lacks"):
        load_supports(write(tmp_path / "odd.xml", '<annotations><image id="0"/></annotations>'))


@pytest.mark.parametrize("mode", ["P", "RGB"])
def test_cvat_segmentation_masks(tmp_path, mode):
    labelmap = "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:250,50,83::\ndog:10,128,0::\n"
    write(tmp_path / "labelmap.txt", labelmap)
    write(tmp_path / "ImageSets/Segmentation/default.txt", "set/a\n")
    labels = rect(10, 5, 30, 20) + 2 * rect(40, 10, 50, 30)
    mask = Image.fromarray(labels, "P") if mode == "P" else None
    if mask is not None:
        mask.putpalette([0, 0, 0, 250, 50, 83, 10, 128, 0])
    else:
        mask = Image.fromarray(np.array([[0, 0, 0], [250, 50, 83], [10, 128, 0]], np.uint8)[labels])
    (tmp_path / "SegmentationClass/set").mkdir(parents=True)
    mask.save(tmp_path / "SegmentationClass/set/a.png")
    with pytest.raises(DataError, match=r"not found in .*one: 'set/a'"):
        load_supports(tmp_path)
    photo(tmp_path / "images/set/a.jpg")
    check(load_supports(tmp_path), {"cat": {"a.jpg": rect(10, 5, 30, 20)}, "dog": {"a.jpg": rect(40, 10, 50, 30)}})


def test_what_is_no_export_is_told_with_what_is_known(tmp_path):
    for name, message in (
        ("a.txt", "of no known annotation format; known: COCO"),
        ("a.zip", "unpack it"),
        ("a.json", "of no known annotation format; known: COCO.*YOLO"),
    ):
        with pytest.raises((UsageError, DataError), match=message):
            load_supports(write(tmp_path / name, "{}"))
    with pytest.raises(DataError, match="no such file or folder"):
        load_supports(tmp_path / "gone.json")
    for content in ("[1]", [{"image": "a.jpg", "annotations": []}], [{"image_id": 1, "segmentation": {}}]):
        with pytest.raises(DataError, match="of no known annotation format"):
            load_supports(write(tmp_path / "b.json", content))


SQUARE = [[0, 0], [10, 0], [10, 10], [0, 10]]
HEADER = b"IHDR" + 2 * (60_000).to_bytes(4) + bytes([8, 0, 0, 0, 0])
BOMB = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4) + HEADER + zlib.crc32(HEADER).to_bytes(4) + bytes(4) + b"IDAT" + bytes(4)


def marked(kind="polygon", points=SQUARE, **changes):
    return json.dumps(labelme([("cat", kind, points, {"mask": changes.pop("mask", None)})], **changes))


def brushed(runs):
    return json.dumps([task(1, [region("brushlabels", {"format": "rle", "rle": runs}, ["cat"])], "a.jpg")])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", marked(imagePath="http://[a.jpg"), "not found in"),
        ("a.json", marked(imagePath="a" * 5000), "not found in"),
        ("a.json", marked(imagePath="a\0.jpg"), "not found in"),
        ("a.json", marked(imageHeight=10**6, imageWidth=10**6), "1000000 x 1000000 pixels"),
        ("a.json", marked(imageHeight=-4), "60 x -4 pixels"),
        ("a.json", marked(imageHeight=float("inf")), "no LabelMe file"),
        ("a.json", marked(points=[[float("nan"), 1], *SQUARE]), "cannot be drawn.*no place on a photo"),
        ("a.json", marked("linestrip", [[0, 0], [1e300, 5]]), "cannot be drawn.*no place on a photo"),
        ("a.json", marked("mask", [[0, 0]], mask="AAAA"), "is not a picture"),
        ("a.json", marked("mask", [[0, 0]], mask=base64.b64encode(BOMB).decode()), "too large"),
        ("a.json", marked("mask", [[0, 0]], mask=[1]), "cannot be drawn"),
        ("a.json", '{"shapes": ' + "[" * 100_000, "no valid JSON"),
        ("a.json", '{"shapes": ' + "9" * 5000 + "}", "no valid JSON"),
        ("a.json", '[{"file_upload": ' + "[" * 100_000, "no valid JSON"),
        ("a.json", brushed([255] * 40), "a brush has 4294967295 values"),
        ("a.json", brushed([0, 0, 37, 128, 300]), "cannot be drawn"),
        ("a.json", '[{"id": 1, "file_upload": "", "annotations": [7]}]', "not of Label Studio's JSON format.*task 1"),
        ("a.xml", XML.replace("utf-8", "utf-88"), "read safely"),
        ("a.xml", XML.replace('height="40"', 'height="4000000"'), "60 x 4000000 pixels"),
        ("a.xml", XML.replace('rle="1, 3', f'rle="{2**62}, {2**62}, {2**62}, {2**62}, 3'), "longer than its box"),
        ("a.xml", XML.replace('width="4" height="2"', 'width="-400000" height="-400000"'), "its box is"),
        ("a.xml", XML.replace('left="50"', 'left="' + "9" * 30 + '"'), "annotated areas|cat"),
    ],
)
def test_hostile_exports_are_told_in_words(tmp_path, name, content, message):
    for photo_name in ("a.jpg", "set/a.jpg", "set/b.jpg"):
        photo(tmp_path / photo_name)
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            told = str(list(load_supports(write(tmp_path / name, content))))
        told += "".join(str(warning.message) for warning in warned)
    except (DataError, UsageError) as error:
        told = str(error)
    assert re.search(message, told), told
