"""A COCO file's text is walked as the standard library reads it, and its pixels counted as they are drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import trees
from fewseg.data.annotations.coco_catalogue import parse
from fewseg.data.annotations.coco_file import CocoFile
from fewseg.data.annotations.runs import OddShape, as_rle, outline_rle, runs_of
from fewseg.errors import DataError
from fewseg.progress import Silent

SCALARS = st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=5)
NESTED = st.lists(SCALARS | st.integers(-(2**63), 2**63), max_size=3)
OBJECTS = st.dictionaries(st.text(max_size=3), SCALARS | st.integers(-(2**70), 2**70) | NESTED, max_size=4)


def opened(root: Path, entries: list[dict[str, Any]], **text: Any) -> CocoFile:
    photos = [{"id": n, "file_name": f"{n}.jpg", "height": 30, "width": 20} for n in (0, 2**64, 2**64 + 1)]
    content = {
        "info": {"a": {"b": {"c": "}]"}}},
        "images": photos,
        "annotations": entries,
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "__ignore__"}, {"id": 3, "name": "b"}],
    }
    (root / "a.json").write_text(json.dumps(content, **text))
    return CocoFile(root / "a.json", root=root, key="a")


@given(value=OBJECTS)
@settings(max_examples=50, deadline=None)
@pytest.mark.slow
def test_any_object_is_read_as_the_standard_library_reads_it(value: dict[str, Any]) -> None:
    text = json.dumps(value).encode()
    assert repr(parse(text)) == repr(json.loads(text))


@pytest.mark.parametrize(
    "extra", [{"x": {"y": {"z": '}{]["\\'}}}, {"nan": float("nan")}, {"x": "\ud800"}, {"x": "ä" * 10**5}]
)
@pytest.mark.parametrize("text", [{}, {"indent": 1}, {"ensure_ascii": False}])
def test_what_else_an_entry_holds_changes_nothing(tmp_path: Path, extra: dict[str, Any], text: dict[str, Any]) -> None:
    if extra == {"x": "\ud800"}:
        text = text | {"ensure_ascii": True}
    entry = {"image_id": 0, "category_id": 1, "segmentation": trees.square(2, 3, 5)} | extra
    file = opened(tmp_path, [entry, {**entry, "image_id": 2**64 + 1, "category_id": 3}], **text)
    assert file.index(file.files, Silent()).counts.tolist() == [[575, 25, 0], [600, 0, 0], [575, 0, 25]]


def test_where_the_text_breaks_is_told(tmp_path: Path) -> None:
    opened(tmp_path, [{"image_id": 0, "category_id": 1, "segmentation": trees.square(2, 3, 5)}])
    whole = (tmp_path / "a.json").read_text()
    place = whole.index('"segmentation": ') + len('"segmentation": ')
    (tmp_path / "a.json").write_text(whole[:place] + "?" + whole[place:])
    with pytest.raises(DataError, match=rf"no valid JSON \(Expecting value at byte {place}\)"):
        CocoFile(tmp_path / "a.json", root=tmp_path, key="a")


@st.composite
def shapes(draw: st.DrawFn) -> Any:
    if draw(st.booleans()):
        corners = st.lists(st.integers(-5, 35), min_size=6, max_size=12).filter(lambda c: len(c) % 2 == 0)
        return draw(st.lists(corners, min_size=1, max_size=2))
    ends = sorted(draw(st.lists(st.integers(0, 600), max_size=9)))
    return {"size": [30, 20], "counts": np.diff(ends, prepend=0, append=600).tolist()}


@given(drawn=st.lists(st.tuples(st.sampled_from([1, 2, 3]), shapes()), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
@pytest.mark.slow
def test_pixels_are_counted_as_they_are_drawn(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[int, Any]]
) -> None:
    root = tmp_path_factory.mktemp("counted")
    entries = [{"image_id": 0, "category_id": category, "segmentation": shape} for category, shape in drawn]
    file = opened(root, entries)
    labels = np.bincount(file.labels(0).ravel(), minlength=256)[: 1 + len(file.class_names)]
    assert file.index(file.files, Silent()).counts[0].tolist() == labels.tolist()
    masks = [file.mask(0, c) == 1 for c in range(1, 1 + len(file.class_names))]
    overlapping = file.index(file.files, Silent(), overlapping=True).counts[0]
    void = file.labels(0) == 255
    assert overlapping[1:].tolist() == [int(mask.sum()) for mask in masks]
    assert overlapping[0] == 600 - int(np.any([*masks, void], axis=0).sum())


@given(ends=st.lists(st.integers(0, 12), max_size=30).map(sorted))
@settings(max_examples=30, deadline=None)
def test_runs_of_no_pixel_are_joined(ends: list[int]) -> None:
    runs = np.diff(np.array(ends, int), prepend=0, append=12)
    joined = runs_of(as_rle(runs, 4, 3))
    painted = [np.repeat(np.arange(len(r)) % 2, r).tolist() for r in (runs, joined)]
    assert painted[0] == painted[1]
    assert (joined[1:] > 0).all()


@pytest.mark.parametrize("odd", [[1.0, float("nan"), 5, 5, 9, 1], [1, 2, float("inf"), 5, 9, 1], [1, 2, 3e9, 5, 9, 1]])
def test_a_corner_that_is_no_place_is_refused_wherever_it_stands(odd: list[float]) -> None:
    for turn in range(0, 6, 2):
        with pytest.raises(OddShape, match="no place on a photo"):
            outline_rle(odd[turn:] + odd[:turn], 30, 20)
