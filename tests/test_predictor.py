"""FewShotPredictor against a segmenter that can be checked by hand: the nearer of two mean colours wins."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional as F

from fewseg.data.decoding import PictureRule
from fewseg.data.marks import Marks
from fewseg.episode import Episode
from fewseg.errors import DataError, DataWarning, UsageError
from fewseg.models.mirrored import Mirrored
from fewseg.models.parts.ops import resize_nearest
from fewseg.predictor import FewShotPredictor, nearest, told_of
from fewseg.segment import segment_folder
from helpers import BLUE, GREEN, RED, ColorSegmenter, iou, scene


@pytest.fixture
def predictor():
    predictor = FewShotPredictor(ColorSegmenter())
    predictor.set_support(*scene())
    return predictor


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.booleans())
def test_masks_have_the_query_s_own_size(width, height, flip):
    predictor = FewShotPredictor(ColorSegmenter(), flip=flip)
    predictor.set_support(*scene())
    query = np.full((height, width, 3), RED, np.uint8)
    mask, proba = predictor.predict(query), predictor.predict_proba(query)
    assert mask.dtype == bool
    assert mask.shape == proba.shape == (height, width)
    assert mask.all()
    assert proba.dtype == np.float32
    assert 0 <= proba.min() <= proba.max() <= 1


@settings(max_examples=50)
@given(st.integers(1, 900), st.integers(1, 900), st.integers(8, 500))
def test_masks_are_squeezed_as_torch_squeezes_them(height, width, side):
    mask = np.arange(height * width).reshape(height, width).astype(np.uint8)
    expected = resize_nearest(torch.tensor(mask)[None, None], (side, side))[0, 0]
    np.testing.assert_array_equal(nearest(mask, side), expected.numpy())


def test_the_answer_is_that_of_the_model_called_by_hand():
    model = ColorSegmenter()
    predictor = FewShotPredictor(model)
    (image, mask), (query, truth) = scene(), scene(size=(51, 37), box=(7, 9, 33, 30))
    predictor.set_support(image, mask)

    def squeeze(pixels):
        return F.interpolate(torch.tensor(pixels).permute(2, 0, 1)[None] / 255, size=(32, 32), mode="bilinear")

    none = torch.tensor([-1])
    small = F.interpolate(torch.tensor(mask)[None, None].float(), size=(32, 32), mode="nearest").to(torch.uint8)
    with torch.no_grad():
        prediction = model(Episode(squeeze(query), squeeze(image)[None], small, none, none))
    logits = F.interpolate(prediction.logits, size=(37, 51), mode="bilinear", align_corners=True)
    result = predictor.predict_full(query)
    np.testing.assert_array_equal(result.mask, logits.argmax(1)[0].bool().numpy())
    np.testing.assert_allclose(result.proba, logits.softmax(1)[0, 1].numpy(), rtol=1e-5)
    np.testing.assert_array_equal(result.mask, predictor.predict(query))
    assert [c.shape for c in result.correlations] == [(16, 16), (32, 32)]
    np.testing.assert_allclose(result.correlations[1], prediction.correlations[1][0].numpy(), rtol=1e-5)
    assert iou(result.mask, truth) > 0.9


@pytest.mark.parametrize("flip", [False, True])
def test_presence_is_told_beside_the_mask_and_changes_nothing_in_it(flip):
    plain, telling = (FewShotPredictor(ColorSegmenter(presence=told), flip=flip) for told in (False, True))
    (red, mask), (brown, _) = scene(), scene((168, 50, 50))
    for predictor in (plain, telling):
        predictor.set_support(red, mask)
    assert plain.predict_full(red).presence is None
    there, absent = telling.predict_full(red), telling.predict_full(brown)
    assert absent.presence < 0.5 < there.presence
    np.testing.assert_array_equal(absent.proba, plain.predict_full(brown).proba)
    assert absent.mask.any()
    assert not absent.proba_if(0.5).any()
    assert absent.proba_if(0.0).any()
    assert there.proba_if(0.5) is there.proba


def test_flip_gives_mirrored_answers_for_mirrored_queries():
    predictor = FewShotPredictor(ColorSegmenter(), flip=True)
    predictor.set_support(*scene())
    query, truth = scene(size=(51, 37), box=(3, 9, 20, 30))
    np.testing.assert_allclose(
        predictor.predict_proba(query), predictor.predict_proba(query[:, ::-1])[:, ::-1], atol=1e-5
    )
    assert iou(predictor.predict(query), truth) > 0.9


def test_a_mirrored_model_is_the_mean_of_an_episode_and_its_mirror_image():
    model, episode = (
        ColorSegmenter(),
        Episode(
            query_image=torch.rand(1, 3, 32, 32),
            support_images=torch.rand(1, 1, 3, 32, 32),
            support_masks=torch.randint(0, 2, (1, 1, 32, 32), dtype=torch.uint8),
            class_id=torch.tensor([1]),
            base_index=torch.tensor([-1]),
        ),
    )
    mirror = {f: getattr(episode, f).flip(-1) for f in ("query_image", "support_images", "support_masks")}
    plain, mirrored = model(episode), model(replace(episode, **mirror))
    both = Mirrored(model)(episode)
    torch.testing.assert_close(both.logits, (plain.logits + mirrored.logits.flip(-1)) / 2)
    for mean, a, b in zip(both.correlations, plain.correlations, mirrored.correlations, strict=True):
        torch.testing.assert_close(mean, (a + b.flip(-1)) / 2)


def test_several_classes_in_one_label_map():
    model = ColorSegmenter()
    predictor = FewShotPredictor(model)
    predictor.set_support({"red": scene(RED), "blue": ([scene(BLUE)[0]] * 2, [scene(BLUE)[1]] * 2)})
    query, red = scene(RED, size=(64, 64), box=(4, 4, 24, 60))
    query[4:60, 40:60] = BLUE
    blue = np.zeros_like(red)
    blue[4:60, 40:60] = True
    labels = predictor.predict_labels(query)
    assert model.encoded == 1  # the query is encoded once for all classes
    assert labels.dtype == np.uint8
    assert iou(labels == 1, red) > 0.9
    assert iou(labels == 2, blue) > 0.9
    full = predictor.predict_each(query)
    assert list(full) == ["red", "blue"]
    probabilities = {name: result.proba for name, result in full.items()}
    stacked = np.stack(list(probabilities.values()))
    np.testing.assert_array_equal(labels, np.where((stacked > 0.5).any(0), stacked.argmax(0) + 1, 0))
    for method in (predictor.predict, predictor.predict_proba, predictor.predict_full):
        with pytest.raises(UsageError, match=r"several classes \(red, blue\); call predict_labels or predict_each"):
            method(query)


def test_among_overlapping_classes_the_more_probable_wins_whatever_the_order():
    orange, query = (220, 120, 20), np.full((8, 8, 3), RED, np.uint8)
    for order in (("red", "orange"), ("orange", "red")):
        supports = {"red": scene(RED), "orange": scene(orange)}
        predictor = FewShotPredictor(ColorSegmenter())
        predictor.set_support({name: supports[name] for name in order})
        assert all(result.mask.all() for result in predictor.predict_each(query).values())
        assert (predictor.predict_labels(query) == order.index("red") + 1).all()


def test_a_method_returns_one_type_with_a_name_and_without(predictor):
    named = FewShotPredictor(ColorSegmenter())
    named.set_support({"red": scene()})
    query, _ = scene(size=(33, 47), box=(3, 9, 20, 30))
    assert (list(predictor.predict_each(query)), list(named.predict_each(query))) == (["object"], ["red"])
    for method in ("predict", "predict_proba", "predict_labels"):
        one, other = (getattr(each, method)(query) for each in (predictor, named))
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    assert predictor.predict(query).dtype == bool
    assert predictor.predict_labels(query).dtype == np.uint8


def test_a_result_is_saved_and_drawn(predictor, tmp_path):
    query, _ = scene(size=(33, 47), box=(3, 9, 20, 30))
    result = predictor.predict_full(query)
    result.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "mask.png")) == 255, result.mask)
    drawn = result.plot(query)
    assert drawn.size == (33, 47)
    assert (np.asarray(drawn) != query).any()
    with pytest.raises(UsageError, match="no picture format"):
        result.save(tmp_path / "mask.what")


def test_boxes_and_points_are_supports():
    query, truth = scene(size=(64, 48), box=(10, 10, 40, 30))
    for marks, told in ((Marks(boxes=[(10, 10, 40, 30)]), "1 box"), (Marks(points=[(20, 20)]), "1 point")):
        predictor = FewShotPredictor(ColorSegmenter())
        predictor.set_support(query, marks)
        assert predictor.markings["support"][0].meaning == f"grown from {told}"
        assert iou(predictor.predict(query), truth) > 0.7
    with pytest.raises(UsageError, match=r"mask 1 of 'support': point 99,99 is outside"):
        predictor.set_support(query, Marks(points=[(99, 99)]))


@pytest.mark.parametrize("address", ["https://example.org/a.jpg", "s3://bucket/a.png"])
def test_addresses_are_refused_with_the_reason(predictor, address, tmp_path):
    for file in (address, Path(address)):
        with pytest.raises(UsageError, match=r"is an address .* fetches nothing by itself"):
            predictor.predict(file)
    with pytest.raises(UsageError, match=r"is an address|s3://bucket/a.png: .*(fsspec|s3fs)"):
        segment_folder(predictor, address, tmp_path / "out")


def test_every_kind_of_picture_gives_the_same_mask(predictor, tmp_path):
    pixels, _ = scene(size=(33, 47), box=(3, 9, 20, 30))
    expected = predictor.predict(pixels)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    opaque = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
    pictures = [
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        Image.fromarray(pixels),
        opaque,
        opaque / 255,
        pixels / 255,
        (pixels / 255).astype(np.float32),
        pixels.astype(np.int64),
        pixels[::-1][::-1],
        torch.tensor(pixels).permute(2, 0, 1),
        torch.tensor(pixels).permute(2, 0, 1) / 255,
    ]
    for picture in pictures:
        np.testing.assert_array_equal(predictor.predict(picture), expected)
    with pytest.warns(DataWarning, match="stretched"):
        assert iou(predictor.predict(pixels.astype(np.uint16) * 4), expected) > 0.95
    predictor.pictures = PictureRule(range=(0, 65535))
    np.testing.assert_array_equal(predictor.predict(pixels.astype(np.uint16) * 257), expected)


def test_grey_pictures_and_transparent_ones():
    predictor = FewShotPredictor(ColorSegmenter())
    grey = np.zeros((20, 20), np.uint8)
    grey[5:15, 5:15] = 255
    predictor.set_support(grey, grey)
    for picture in (grey, grey / 255, grey[..., None], grey > 0, Image.fromarray(grey)):
        assert iou(predictor.predict(picture), grey > 0) > 0.85
    cut = np.zeros((20, 20, 4), np.uint8)
    cut[..., 3] = 255 - grey
    assert iou(predictor.predict(cut), grey > 0) > 0.85  # see-through is white
    np.testing.assert_array_equal(predictor.predict(cut), predictor.predict(cut / 255))


def test_every_kind_of_mask_gives_the_same_support(predictor, tmp_path):
    (pixels, mask), (query, _) = scene(), scene(size=(33, 47), box=(3, 9, 20, 30))
    expected = predictor.predict_proba(query)
    binary = mask.astype(np.uint8)
    Image.fromarray(binary * 255).save(tmp_path / "m.png")
    kinds = [binary, binary * 255, binary.astype(np.int64), binary * 7, mask.astype(float), torch.tensor(mask)]
    for kind in [
        *kinds,
        tmp_path / "m.png",
        Image.fromarray(mask),
        Image.fromarray(binary * 255),
        binary * np.int64(1000),
    ]:
        predictor.set_support(pixels, kind)
        np.testing.assert_array_equal(predictor.predict_proba(query), expected)
    predictor.set_support([pixels, pixels], [mask, tmp_path / "m.png"])
    np.testing.assert_allclose(predictor.predict_proba(query), expected, rtol=1e-4)
    assert predictor.support_files == {(tmp_path / "m.png").resolve()}


def test_exif_turns_photos_and_their_masks(predictor, tmp_path):
    upright, truth = scene(size=(30, 50), box=(3, 4, 15, 40))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side: the viewer turns it clockwise
    Image.fromarray(np.rot90(upright).copy()).save(tmp_path / "a.png", exif=exif)
    mask = predictor.predict(tmp_path / "a.png")
    assert iou(mask, truth) > 0.9
    for marks, turned in ((truth, False), (np.rot90(truth).copy(), True)):
        predictor.set_support(tmp_path / "a.png", marks)
        assert ("turned as its photo is" in str(predictor.markings["support"][0])) == turned
        assert iou(predictor.predict(upright), truth) > 0.9


def test_marks_are_drawn_on_the_upright_photo(predictor, tmp_path):
    upright, truth = scene(size=(30, 50), box=(3, 4, 15, 40))
    exif = Image.Exif()
    exif[0x0112] = 3  # the wrong way up: a mask could be of either
    Image.fromarray(np.rot90(upright, 2).copy()).save(tmp_path / "a.png", exif=exif)
    predictor.set_support(tmp_path / "a.png", Marks(boxes=[(3, 4, 15, 40)]))
    assert iou(predictor.predict(upright), truth) > 0.9
    with pytest.warns(DataWarning, match="both before and after the turn"):
        predictor.set_support(tmp_path / "a.png", truth)


def test_255_in_a_mask_is_no_foreground(predictor):
    pixels, mask = scene()
    labels = mask.astype(np.uint8)
    pixels[:, 35:] = GREEN
    labels[:, 35:] = 255
    predictor.set_support(pixels, labels)
    assert not predictor.predict(np.full((9, 9, 3), GREEN, np.uint8)).any()


@pytest.mark.parametrize("bad", [np.zeros((30, 40)), np.full((30, 40), 0, np.uint8)])
def test_an_empty_mask_is_refused_and_the_former_support_kept(predictor, bad):
    before = predictor.predict(scene()[0])
    with pytest.raises(DataError, match="mask 1 of 'support' marks nothing"):
        predictor.set_support(scene(BLUE)[0], bad)
    np.testing.assert_array_equal(predictor.predict(scene()[0]), before)


def test_a_mask_too_small_for_the_model_is_refused(predictor):
    mask = np.zeros((640, 640), bool)
    mask[3, 3] = True
    with pytest.raises(DataError, match=r"marks only 1 pixel.*32 x 32; crop"):
        predictor.set_support(np.zeros((640, 640, 3), np.uint8), mask)


@pytest.mark.parametrize(
    ("images", "masks", "message"),
    [
        (scene()[0], None, "1 image and 0 masks"),
        ([scene()[0]] * 2, [scene()[1]], "2 images and 1 mask"),
        ([], [], "0 images"),
        ({}, None, "0 classes"),
        ({"cat": scene()[0]}, None, "'cat' is not a pair"),
        ({"cat": scene()}, scene()[1], "named supports bring their own masks"),
        (scene()[0], scene()[0], "holds the colours"),
        (scene()[0], np.zeros((30, 40, 2)), "30 x 40 pixels of 2 bands"),
        (scene()[0], 3, "a int"),
        (3, scene()[1], "int is no image"),
        (np.zeros((4, 4, 2)), np.ones((4, 4)), r"shape \(4, 4, 2\)"),
        (np.full((4, 4), 200.0), np.ones((4, 4)), "scale it to"),
        (np.full((4, 4), np.nan), np.ones((4, 4)), "scale it to"),
        (torch.zeros(4, 4), np.ones((4, 4)), r"must be \(3, H, W\)"),
        (torch.full((3, 4, 4), 9.0), np.ones((4, 4)), "scale it to"),
    ],
)
def test_what_cannot_be_used_is_named(predictor, images, masks, message):
    with pytest.raises(UsageError, match=message):
        predictor.set_support(images, masks)


def test_a_mask_of_another_size_is_refused(predictor):
    with pytest.raises(DataError, match="3 x 2 but its image is 40 x 30"):
        predictor.set_support(scene()[0], np.ones((2, 3), bool))


def test_predicting_without_support_and_unusable_devices_are_refused():
    with pytest.raises(UsageError, match="set_support"):
        FewShotPredictor(ColorSegmenter()).predict(scene()[0])
    with pytest.raises(UsageError, match="device 'abacus' cannot be used here"):
        FewShotPredictor(ColorSegmenter(), "abacus")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="device 'cuda' cannot be used here"):
            FewShotPredictor(ColorSegmenter(), "cuda")


def test_the_model_is_put_into_evaluation_mode_and_gets_no_gradient(predictor):
    assert not predictor.model.training
    predictor.predict(scene()[0])
    assert predictor.model.sharpness.grad is None


def test_what_is_told_of_a_mask_is_of_what_is_left_of_it():
    own = np.zeros((10, 10), bool)
    own[:4] = True
    for left, presence, told in (
        (own, 0.9, (0.9, 0.8, 1 - 0.8 * 0.9)),
        (own & (np.arange(10) < 5), 0.9, (0.9, 0.4, 1 - 0.4 * 0.9)),  # another class took half
        (own & False, 0.9, (0.9, 1 - 0.9, 0.9)),
        (own, None, (None, 0.8, 1 - 0.8)),
        (own & False, None, (None, 0.0, 1.0)),
    ):
        assert told_of(presence, 0.8, mask=left, own=own) == pytest.approx(told)
    assert told_of(0.9, None, mask=own, own=own) == (0.9, None, None)
    assert told_of(None, 0.8, mask=own & False, own=own & False) == pytest.approx((None, 0.8, 0.2))
