"""Files that chance has changed: every reader either takes them or raises an error that a person can mend."""

from __future__ import annotations

import base64
import io
import json
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.sax import saxutils

import numpy as np
import pytest
import scipy.io
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fewseg.build import create_model
from fewseg.config import load_config
from fewseg.data.annotations.read import load_supports
from fewseg.data.episodes.lists import EpisodeList
from fewseg.data.episodes.protocols import get_protocol
from fewseg.data.episodes.sampling import sample_episodes
from fewseg.data.sets.coco_json import CocoJson
from fewseg.data.sets.pascal5i import _read_mat
from fewseg.data.sets.scenes import Scenes
from fewseg.storage.saved import load_model, save_model
from fuzzing import FUZZ, VALUES, changes, swaps, taken_or_told

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def source() -> Scenes:
    return Scenes(subset="test", level="simple", images=80, size=64)


@pytest.fixture(scope="module")
def listed(source: Scenes, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    protocol = get_protocol("fewseg", dataset="scenes")
    path = tmp_path_factory.mktemp("list") / "list.csv"
    sample_episodes(source, source.fold(0), protocol=protocol, seed=0, shots=1, episodes=5).save(path)
    return path.read_bytes()


@FUZZ
@given(change=changes(), keep_hash=st.booleans())
def test_episode_lists(
    change: Callable[[bytes], bytes], keep_hash: bool, source: Scenes, listed: bytes, tmp_path: Path
) -> None:
    lines = listed.splitlines(keepends=True)
    content = listed if keep_hash else b"".join(line for line in lines if b"sha256" not in line)
    (tmp_path / "list.csv").write_bytes(change(content))
    taken_or_told(lambda: EpisodeList.load(tmp_path / "list.csv", source))


CONFIG = load_config("prototype", "scenes", "data.level=simple").as_dict()


def plain(content: dict[str, Any]) -> dict[str, Any]:
    """A configuration as a recipe writes it: options beside the other keys."""
    return {
        group: {k: v for k, v in keys.items() if k != "options"} | keys.get("options", {})
        for group, keys in content.items()
    }


@pytest.mark.filterwarnings("ignore::fewseg.errors.DataWarning")  # bytes that are no UTF-8 may be another encoding's
@FUZZ
@given(change=changes())
def test_bytes_of_configurations(change: Callable[[bytes], bytes], tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(change(yaml.safe_dump(plain(CONFIG)).encode()))
    taken_or_told(lambda: load_config(str(tmp_path / "c.yaml")))


@FUZZ
@given(swap=swaps())
def test_values_of_configurations(swap: Callable[[Any], Any], tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(swap(plain(CONFIG))))
    taken_or_told(lambda: load_config(str(tmp_path / "c.yaml")))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model without the checksum of its metadata, which would catch every change before a reader sees it."""
    torch.manual_seed(0)
    made = create_model("prototype", backbone="timm/test_resnet", image_size=64)
    folder = save_model(made, tmp_path_factory.mktemp("model") / "model")
    record = json.loads((folder / "fewseg.json").read_text())
    del record["checksum"]
    (folder / "fewseg.json").write_text(json.dumps(record))
    return folder


@FUZZ
@given(change=changes(), swap=swaps(), structured=st.booleans(), name=st.sampled_from(["config.json", "fewseg.json"]))
def test_metadata_of_saved_models(
    change: Callable[[bytes], bytes], swap: Callable[[Any], Any], structured: bool, name: str, model: Path
) -> None:
    content = (model / name).read_bytes()
    changed = json.dumps(swap(json.loads(content))).encode() if structured else change(content)
    (model / name).write_bytes(changed)
    try:
        taken_or_told(lambda: load_model(model))
    finally:
        (model / name).write_bytes(content)


@FUZZ
@given(change=changes())
def test_weights(change: Callable[[bytes], bytes], model: Path, tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(change((model / "model.safetensors").read_bytes()))
    taken_or_told(
        lambda: create_model("prototype", backbone="timm/test_resnet", weights=str(tmp_path / "w.safetensors"))
    )


@FUZZ
@given(change=changes())
def test_torch_files(change: Callable[[bytes], bytes], tmp_path: Path) -> None:
    torch.save({"state_dict": {"module.layer0.weight": torch.ones(2, 3)}}, tmp_path / "plain.pth")
    (tmp_path / "w.pth").write_bytes(change((tmp_path / "plain.pth").read_bytes()))
    taken_or_told(lambda: create_model("prototype", backbone="timm/test_resnet", weights=str(tmp_path / "w.pth")))


SQUARE = [4, 4, 20, 4, 20, 20, 4, 20]
COCO = {
    "info": {"year": 2026},
    "images": [{"id": n, "file_name": f"{n}.jpg", "height": 24, "width": 32} for n in range(4)],
    "categories": [{"id": n, "name": f"class{n}"} for n in (1, 3, 4, 7)],
    "annotations": [
        {"id": 1, "image_id": 0, "category_id": 1, "segmentation": [SQUARE], "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 3, "segmentation": {"size": [24, 32], "counts": [100, 168, 500]}},
        {"id": 3, "image_id": 2, "category_id": 7, "segmentation": [SQUARE, SQUARE], "iscrowd": 1},
        {
            "id": 4,
            "image_id": 3,
            "category_id": 4,
            "segmentation": {"size": [24, 32], "counts": "k39?000000000000000000000000000m8"},
        },
    ],
}


@pytest.mark.filterwarnings("ignore::fewseg.errors.DataWarning")
@FUZZ
@given(change=changes(), swap=swaps(), structured=st.booleans())
def test_coco_files(
    change: Callable[[bytes], bytes],
    swap: Callable[[Any], Any],
    structured: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    root = tmp_path_factory.mktemp("coco")
    content = json.dumps(swap(COCO)).encode() if structured else change(json.dumps(COCO).encode())
    (root / "a.json").write_bytes(content)

    def read() -> None:
        source = CocoJson(root=str(root), folds=2)
        for i in range(len(source.ids)):
            source.labels(i)
        _ = source.index

    taken_or_told(read)


@FUZZ
@given(change=changes(), packed=st.booleans())
def test_matlab_files(change: Callable[[bytes], bytes], packed: bool, tmp_path: Path) -> None:
    struct = np.zeros((1, 1), dtype=[("Boundaries", object), ("Segmentation", object)])
    struct[0, 0] = (np.zeros(1), np.eye(9, 7, dtype=np.uint8))
    scipy.io.savemat(tmp_path / "plain.mat", {"GTcls": struct}, do_compression=packed)
    (tmp_path / "changed.mat").write_bytes(change((tmp_path / "plain.mat").read_bytes()))
    taken_or_told(lambda: _read_mat(tmp_path / "changed.mat"))


def png(mask: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(mask * np.uint8(255)).save(buffer, "PNG")
    return buffer.getvalue()


PART = png(np.eye(6, dtype=np.uint8))
BRUSH = [0, 0, 12, 0, 57, 27, 255, 7, 255, 255, 224, 127, 224, 0]
"""Run lengths of 32 x 24 RGBA values: 2,048 times 255, then zeros."""
LABELME = {
    "version": "5.5.0",
    "flags": {},
    "shapes": [
        {"label": "cat", "points": [[4, 4], [20, 4], [20, 20]], "shape_type": "polygon", "group_id": None},
        {"label": "cat", "points": [[4, 4], [20.5, 20]], "shape_type": "rectangle"},
        {"label": "dog", "points": [[9, 9], [12, 9]], "shape_type": "circle"},
        {"label": "road", "points": [[0, 9], [12, 9], [30, 20]], "shape_type": "linestrip"},
        {"label": "dot", "points": [[5, 5]], "shape_type": "point"},
        {"label": "dog", "points": [[3, 2], [8, 7]], "shape_type": "mask", "mask": base64.b64encode(PART).decode()},
    ],
    "imagePath": "0.jpg",
    "imageData": base64.b64encode(PART).decode(),
    "imageHeight": 24,
    "imageWidth": 32,
}
LABEL_STUDIO = [
    {
        "id": 1,
        "annotations": [
            {"id": 3, "result": [], "was_cancelled": True},
            {
                "id": 4,
                "was_cancelled": False,
                "result": [
                    {"original_width": 32, "original_height": 24, "image_rotation": 0, "value": value}
                    for value in (
                        {"format": "rle", "rle": BRUSH, "brushlabels": ["cat"]},
                        {"points": [[50, 25], [75, 25], [75, 75]], "closed": True, "polygonlabels": ["dog"]},
                        {"x": 5, "y": 5, "width": 10, "height": 25, "rotation": 20, "rectanglelabels": ["dog", "cow"]},
                        {"x": 50, "y": 50, "radiusX": 10, "radiusY": 25, "rotation": 0, "ellipselabels": ["cat"]},
                    )
                ],
            },
        ],
        "data": {"image": "/data/upload/3/1a2b3c4d-0.jpg"},
    }
]
CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <image id="0" name="0.jpg" width="32" height="24">
    <polygon label="cat" points="10.00,5.00;30.00,5.00;30.00,20.00"><attribute name="age">3</attribute></polygon>
    <mask label="cat" rle="1, 3, 1, 3" left="20" top="10" width="4" height="2" z_order="0"></mask>
    <box label="dog" xtl="0.00" ytl="10.00" xbr="6.00" ybr="20.00" rotation="30"></box>
    <ellipse label="dog" cx="16.0" cy="12.0" rx="6.0" ry="10.0" rotation="90.0"/>
  </image>
</annotations>
"""
VIA = {
    "0.jpg9": {
        "filename": "0.jpg",
        "size": -1,
        "regions": [
            {"shape_attributes": shape, "region_attributes": {"kind": "cat"}}
            for shape in (
                {"name": "polygon", "all_points_x": [4, 20, 20], "all_points_y": [4, 4, 20]},
                {"name": "rect", "x": 1, "y": 2, "width": 5, "height": 6},
                {"name": "ellipse", "cx": 9, "cy": 9, "rx": 3, "ry": 2, "theta": 0.5},
                {"name": "circle", "cx": 9, "cy": 9, "r": 3},
            )
        ],
    }
}
SUPERVISELY = {
    "size": {"height": 24, "width": 32},
    "objects": [
        {
            "classTitle": "cat",
            "geometryType": "polygon",
            "points": {"exterior": [[4, 4], [20, 4], [20, 20], [4, 20]], "interior": [[[8, 8], [12, 8], [12, 12]]]},
        },
        {"classTitle": "cat", "geometryType": "rectangle", "points": {"exterior": [[1, 2], [5, 9]], "interior": []}},
        {
            "classTitle": "dog",
            "geometryType": "bitmap",
            "bitmap": {"data": base64.b64encode(zlib.compress(PART)).decode(), "origin": [3, 4]},
        },
    ],
}
LABELMAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:255,255,255::\n"


@pytest.fixture
def export(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Makes folders with photos of 32 x 24 pixels."""

    def make() -> Path:
        root = tmp_path_factory.mktemp("export")
        for number in range(4):
            Image.new("RGB", (32, 24)).save(root / f"{number}.jpg")
        return root

    return make


@pytest.mark.filterwarnings("ignore::fewseg.errors.DataWarning")
@FUZZ
@given(change=changes(), swap=swaps(), structured=st.booleans())
@pytest.mark.parametrize(
    ("document", "name"),
    [(COCO, "a"), (LABELME, "a"), (LABEL_STUDIO, "a"), (VIA, "a"), (SUPERVISELY, "0.jpg")],
    ids=["COCO", "LabelMe", "Label Studio", "VIA", "Supervisely"],
)
def test_exports_in_json(
    document: Any,
    name: str,
    change: Callable[[bytes], bytes],
    swap: Callable[[Any], Any],
    structured: bool,
    export: Callable[[], Path],
) -> None:
    root = export()
    content = json.dumps(swap(document)).encode() if structured else change(json.dumps(document).encode())
    (root / f"{name}.json").write_bytes(content)
    taken_or_told(lambda: load_supports(root / f"{name}.json"))


TEXTS = VALUES.map(str) | st.sampled_from(["nan", "inf", "-1", "1e999", "1,2", "9" * 5000, "-9223372036854775808"])


@pytest.mark.filterwarnings("ignore::fewseg.errors.DataWarning")
@FUZZ
@given(change=changes(), where=st.floats(0, 0.999), text=TEXTS, structured=st.booleans())
def test_exports_of_cvat_in_xml(
    change: Callable[[bytes], bytes], where: float, text: str, structured: bool, export: Callable[[], Path]
) -> None:
    root = export()
    quoted = list(re.finditer(r'(?<==")[^"]*', CVAT))
    found = quoted[int(where * len(quoted))]
    new = CVAT[: found.start()] + saxutils.escape(text, {'"': "&quot;"}) + CVAT[found.end() :]
    (root / "a.xml").write_bytes(new.encode() if structured else change(CVAT.encode()))
    taken_or_told(lambda: load_supports(root / "a.xml"))


@pytest.mark.filterwarnings("ignore::fewseg.errors.DataWarning")
@FUZZ
@given(change=changes(), which=st.sampled_from(["labelmap.txt", "SegmentationClass/0.png"]))
def test_exports_of_cvat_as_masks(change: Callable[[bytes], bytes], which: str, export: Callable[[], Path]) -> None:
    root = export()
    (root / "SegmentationClass").mkdir()
    content = {"labelmap.txt": LABELMAP.encode(), "SegmentationClass/0.png": png(np.eye(24, 32, dtype=np.uint8))}
    for name, plain_content in content.items():
        (root / name).write_bytes(change(plain_content) if name == which else plain_content)
    taken_or_told(lambda: load_supports(root))


@pytest.mark.filterwarnings("ignore::fewseg.errors.DataWarning")
@FUZZ
@given(change=changes(), swap=swaps(), which=st.sampled_from(["json", "png", "values"]))
def test_exports_of_label_studio_as_masks(
    change: Callable[[bytes], bytes], swap: Callable[[Any], Any], which: str, export: Callable[[], Path]
) -> None:
    root = export()
    tasks = [{"id": 5, "image": "/data/upload/3/1a2b3c4d-0.jpg", "annotator": 2}]
    text = json.dumps(swap(tasks) if which == "values" else tasks).encode()
    mask = png(np.eye(24, 32, dtype=np.uint8))
    (root / "a.json").write_bytes(change(text) if which == "json" else text)
    (root / "task-5-annotation-12-by-2-tag-cat-0.png").write_bytes(change(mask) if which == "png" else mask)
    taken_or_told(lambda: load_supports(root))


@pytest.mark.filterwarnings("ignore::fewseg.errors.DataWarning")
@FUZZ
@given(change=changes(), which=st.sampled_from(["data.yaml", "0.txt"]))
def test_exports_in_yolo_s_text(change: Callable[[bytes], bytes], which: str, export: Callable[[], Path]) -> None:
    root = export()
    content = {"data.yaml": b"names: {0: cat, 1: dog}\n", "0.txt": b"0 0.1 0.1 0.5 0.1 0.5 0.5\n1 0.5 0.5 0.2 0.2\n"}
    for name, plain_content in content.items():
        (root / name).write_bytes(change(plain_content) if name == which else plain_content)
    taken_or_told(lambda: load_supports(root))


@pytest.mark.parametrize("name", ["coco", "labelme", "label studio", "via", "supervisely", "cvat", "cvat masks"])
def test_exports_that_nothing_happened_to_are_taken(name: str, export: Callable[[], Path]) -> None:
    """Else the fuzz above would try nothing but the first check."""
    root = export()
    if name == "cvat masks":
        (root / "SegmentationClass").mkdir()
        (root / "labelmap.txt").write_text(LABELMAP)
        (root / "SegmentationClass/0.png").write_bytes(png(np.eye(24, 32, dtype=np.uint8)))
        assert list(load_supports(root)) == ["cat"]
        return
    content = {
        "coco": json.dumps(COCO),
        "labelme": json.dumps(LABELME),
        "label studio": json.dumps(LABEL_STUDIO),
        "via": json.dumps(VIA),
        "supervisely": json.dumps(SUPERVISELY),
        "cvat": CVAT,
    }[name]
    file = root / {"cvat": "a.xml", "supervisely": "0.jpg.json"}.get(name, "a.json")
    file.write_text(content)
    classes = {
        "coco": ["class1", "class3", "class4", "class7"],
        "labelme": ["cat", "dog", "dot", "road"],
        "label studio": ["cat", "cow", "dog"],
        "via": ["cat"],
        "supervisely": ["cat", "dog"],
        "cvat": ["cat", "dog"],
    }
    assert list(load_supports(file)) == classes[name]
