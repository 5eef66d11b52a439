"""A visitor's work without a browser: limits, painted masks, thresholds without the network, the zip."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
from PIL import Image, ImageDraw

from fewseg.data.images import read_labels
from fewseg.errors import DataError, UsageError
from fewseg.server.session import Limits, Session, painted_mask
from helpers import BLUE, RED, ColorSegmenter, iou, scene


def saved(path, color=RED, **options):
    pixels, mask = scene(color, **options)
    Image.fromarray(pixels).save(path)
    return path, mask


@pytest.fixture
def session(tmp_path):
    session = Session(Limits(megapixels=1, photos=3, supports=2), root=tmp_path)
    for name, color in (("red", RED), ("blue", BLUE)):
        pixels, mask = scene(color)
        session.add_support(name, Image.fromarray(pixels), mask.astype(np.uint8))
    return session


def test_answers_follow_the_threshold_without_the_network(session, tmp_path):
    path, red = saved(tmp_path / "r.png", size=(90, 70), box=(20, 10, 60, 50))
    model = ColorSegmenter()
    assert list(session.answer(model, [("r.png", path), ("r.png", path)])) == [(1, ""), (2, "")]
    assert model.encoded == 2
    with zipfile.ZipFile(session.zip_masks(threshold=0.5, presence=0.5, min_area=0)) as archive:
        assert archive.namelist() == ["r.png", "r_2.png", "classes.txt"]
        assert archive.read("classes.txt") == b"red\nblue\n"
        (tmp_path / "mask.png").write_bytes(archive.read("r.png"))
    labels = read_labels(tmp_path / "mask.png")
    assert labels.shape == red.shape
    assert iou(labels == 1, red) > 0.85
    captions = [caption for _, caption in session.shown(threshold=0.5, presence=0.5, min_area=0)]
    assert captions[0] == f"r.png: red {100 * (labels == 1).mean():.1f} %"
    assert [c for _, c in session.shown(threshold=1.0, presence=0.5, min_area=0)] == ["r.png: nothing found"] * 2
    assert [c for _, c in session.shown(threshold=0.5, presence=0.5, min_area=10**6)] == ["r.png: nothing found"] * 2
    assert model.encoded == 2
    session.close()
    assert not list(tmp_path.glob("session-*"))


def test_a_class_that_is_probably_not_there_is_left_out_as_far_as_the_slider_says(session, tmp_path):
    path, _ = saved(tmp_path / "brown.png", (168, 50, 50))
    list(session.answer(ColorSegmenter(presence=True), [("brown.png", path)]))
    (_, told), (_, all_told) = (
        next(session.shown(threshold=0.5, presence=presence, min_area=0)) for presence in (0.5, 0.0)
    )
    assert told == "brown.png: nothing found"
    assert all_told.startswith("brown.png: red ")


def test_what_is_too_much_is_refused_and_the_rest_done(session, tmp_path):
    Image.new("L", (1100, 1000)).save(tmp_path / "big.png")
    path, _ = saved(tmp_path / "r.png")
    told = list(session.answer(ColorSegmenter(), [("big.png", tmp_path / "big.png"), ("r.png", path)]))
    assert "1100 x 1000 pixels; at most 1 megapixels" in told[0][1]
    assert [answer.name for answer in session.answers] == ["r.png"]
    with pytest.raises(UsageError, match="Give 1 to 3 photos at a time, not 4"):
        list(session.answer(ColorSegmenter(), [("r.png", path)] * 4))
    with pytest.raises(UsageError, match="that is the limit"):
        session.add_support("third", Image.new("RGB", (4, 4)), np.ones((4, 4), np.uint8))
    with pytest.raises(DataError, match="not a picture"):
        session.limits.read(__file__)


def test_nothing_marked_is_said(tmp_path):
    session = Session()
    with pytest.raises(UsageError, match="Mark the object"):
        list(session.answer(ColorSegmenter(), []))
    with pytest.raises(UsageError, match="Nothing is marked"):
        session.add_support("cat", Image.new("RGB", (4, 4)), np.zeros((4, 4), np.uint8))
    with pytest.raises(UsageError, match="a name"):
        session.add_support(" ", Image.new("RGB", (4, 4)), np.ones((4, 4), np.uint8))
    assert session.zip_masks(threshold=0.5, presence=0.5, min_area=0) is None


def test_what_is_painted_small_is_a_mask_of_the_photo(tmp_path):
    pixels, truth = scene(size=(400, 300), box=(100, 80, 240, 200))
    photo, layer = Image.fromarray(pixels), Image.new("RGBA", (200, 150))
    ImageDraw.Draw(layer).rectangle((50, 40, 119, 99), fill=(255, 0, 0, 255))
    assert iou(painted_mask(photo, layer, strokes=False) > 0, truth) > 0.98
    thin = Image.new("RGBA", (200, 150))
    ImageDraw.Draw(thin).line([(60, 50), (110, 90)], fill=(255, 0, 0, 255), width=4)
    assert painted_mask(photo, thin, strokes=False).mean() < 0.05
    assert iou(painted_mask(photo, thin, strokes=True) > 0, truth) > 0.95
    assert not painted_mask(photo, None, strokes=True).any()
