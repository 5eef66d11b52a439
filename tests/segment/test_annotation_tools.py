"""What `fewseg segment` writes for annotation tools, read by the tools' own packages, corrected there, and taught."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from annotation_tools import corrected, run_tool
from fewseg.concept import Concept
from helpers import RED, Fewseg
from segment.small_work import given, make_work

pytestmark = pytest.mark.slow
NAMES = ("a", "b & c")
CONFIG = """<View><Image name="image" value="$image"/>
<BrushLabels name="tag" toName="image"><Label value="box"/></BrushLabels></View>"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, and what the command found in them, in the files for every tool."""
    place = make_work(tmp_path_factory.mktemp("annotation"), [f"{name}.png" for name in NAMES], [RED])
    kinds = [word for kind in ("png", "labelstudio", "cvat") for word in ("--format", kind)]
    words = ("segment", place / "photos", "--class", "box", *given(place), *kinds, "--no-overlay")
    assert Fewseg()(*words, "--out", place / "out").code == 0
    return place


def masks_in(folder: Path) -> list[NDArray[np.bool_]]:
    return [np.asarray(Image.open(folder / f"{name}.png")) == 255 for name in NAMES]


def taught(fewseg: Fewseg, place: Path, export: Path, out: Path) -> Sequence[NDArray[np.bool_]]:
    """The masks of a concept that was taught by an export."""
    words = ("--class", "box", "--annotations", export, "--photos", place / "photos", "--model", place / "tiny")
    done = fewseg("teach", *words, "--out", out / "box.concept")
    assert done.code == 0, done.err
    supports = Concept.load(out / "box.concept").supports
    assert [one.name for one in supports] == [f"{name}.png" for name in NAMES]
    return [one.mask == 1 for one in supports]


def assert_within_a_pixel(masks: Sequence[NDArray[np.bool_]], wanted: Sequence[NDArray[np.bool_]]) -> None:
    for mask, truth in zip(masks, wanted, strict=True):
        around = np.ones((3, 3), bool)
        assert not (mask & ~ndimage.binary_dilation(truth, around)).any()
        assert not (ndimage.binary_erosion(truth, around, border_value=1) & ~mask).any()


def test_label_studio_reads_corrects_and_teaches(place: Path, tmp_path: Path, fewseg: Fewseg) -> None:
    tasks = json.loads((place / "out/labelstudio.json").read_text())
    (tmp_path / "project.json").write_text(json.dumps({"config": CONFIG, "tasks": tasks}))
    run_tool("label-studio", tmp_path / "project.json", tmp_path / "read")
    written = masks_in(place / "out")
    np.testing.assert_array_equal(masks_in(tmp_path / "read"), written)
    wanted = [corrected(mask) for mask in written]
    for kind in ("JSON", "JSON_MIN"):
        np.testing.assert_array_equal(taught(fewseg, place, tmp_path / f"read/{kind}/result.json", tmp_path), wanted)
    coco = tmp_path / "read/BRUSH_TO_COCO/result_coco.json"  # the SDK's polygons: through pixels' centres
    assert_within_a_pixel(taught(fewseg, place, coco, tmp_path), wanted)


def test_cvat_s_file_is_read_by_datumaro_corrected_and_teaches(place: Path, tmp_path: Path, fewseg: Fewseg) -> None:
    (tmp_path / "cvat").mkdir()
    shutil.copy(place / "out/annotations.xml", tmp_path / "cvat")
    shutil.copytree(place / "photos", tmp_path / "cvat/images")
    run_tool("cvat", tmp_path / "cvat/annotations.xml", tmp_path / "read")
    written = masks_in(place / "out")
    np.testing.assert_array_equal(masks_in(tmp_path / "read"), written)
    wanted = [corrected(mask) for mask in written]
    masks = taught(fewseg, place, tmp_path / "read/masks/annotations.xml", tmp_path)
    np.testing.assert_array_equal(masks, wanted)
    polygons = taught(fewseg, place, tmp_path / "read/polygons/annotations.xml", tmp_path)
    assert_within_a_pixel(polygons, masks_in(tmp_path / "read/polygons"))  # simplified, as the tool draws them
