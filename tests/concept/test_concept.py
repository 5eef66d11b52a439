"""A concept: taught by drawn photos, kept in a file, and found in others."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import fewseg
from fewseg.cli.teach import advices
from fewseg.concept.choosing import THRESHOLDS, Counts, Way, best, counted, expected, expected_unseen, unseen
from fewseg.concept.file import MOST_HEADER, hash_of
from fewseg.concept.finder import Finder
from fewseg.concept.finding import encoded, found, moved, probability, views
from fewseg.concept.next_photos import chosen, growth
from fewseg.concept.presence import calibrated
from fewseg.concept.taught import Choice, Example
from fewseg.data.masks import SWAPPED
from fewseg.errors import DataError, DataWarning, UsageError
from fewseg.linear import FINEST
from fewseg.predictor import nearest
from fewseg.runtime.torch_engine import TorchEngine
from fewseg.storage.engines import graphs_of, open_engine
from fewseg.storage.opening import open_target
from fewseg.storage.saved import load_model
from helpers import BLUE, RED, ColorSegmenter, iou, scene

Pair = tuple[np.ndarray, np.ndarray]


def pairs(count: int, color: Any = RED) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Photos of a coloured box, and its masks."""
    made = [scene(color, box=(8 + i, 5, 26 + i, 20), size=(48, 36)) for i in range(count)]
    return [photo for photo, _ in made], [mask for _, mask in made]


def taught(count: int = 3, **options: Any) -> fewseg.Concept:
    return fewseg.teach(*pairs(count), **{"name": "box", "model": engine()} | options)


def engine(**options: Any) -> TorchEngine:
    return TorchEngine(ColorSegmenter(**options))


@pytest.fixture
def concept() -> fewseg.Concept:
    return taught()


@pytest.fixture
def file(concept: fewseg.Concept, tmp_path: Path) -> Path:
    concept.save(tmp_path / "box.concept")
    return tmp_path / "box.concept"


def test_what_was_taught_is_found_with_what_was_expected(concept):
    query, truth = scene(size=(61, 37), box=(7, 9, 33, 30))
    result = Finder([concept], engine()).predict_each(query)["box"]
    assert result.mask.shape == truth.shape
    assert iou(result.mask, truth) > concept.expected.low > 0.5
    np.testing.assert_array_equal(result.mask, result.proba > 0.5)
    assert result.quality is not None
    assert 0.5 < result.quality <= 1


def test_a_notebook_shows_no_photo_s_bytes(concept):
    assert "jpeg" not in repr(concept)
    assert len(repr(concept)) < 5000


@pytest.mark.slow
@pytest.mark.parametrize(("model", "chosen"), [("lite", "lite"), ("lite+linear", "lite+linear above 0.5")])
def test_of_two_supports_nothing_is_chosen_for_the_classifier_which_one_alone_does_not_train(model, chosen):
    """A threshold that was measured without the classifier hides with it most of what there is."""
    absent = scene(BLUE, box=(8, 5, 26, 20), size=(48, 36))[0]
    choice = taught(2, model=model, absent=[absent]).choice
    assert str(choice).startswith(chosen)
    assert choice.method == model


def test_one_support_is_looked_for_by_the_model_alone_which_trains_no_classifier_of_it():
    linear, own = open_engine("lite+linear"), open_engine("lite")
    alone = taught(1, model=linear)
    assert str(alone.choice) == "lite above 0.5"
    several = taught(2, model=linear)
    assert str(several.choice).startswith("lite+linear")
    query = scene(size=(61, 37), box=(7, 9, 33, 30))[0]
    for engines in (linear, own):
        assert Finder([alone], engines).predict_each(query)["box"].mask.any()
        Finder([several], engines)


def test_a_method_that_the_model_does_not_look_by_says_what_to_leave_out_or_to_do(concept):
    with pytest.raises(
        UsageError, match="--model dense runs here, which looks by dense alone: leave out --model dense"
    ):
        Finder([taught(1, model="lite")], "dense")
    asked = replace(concept, choice=replace(concept.choice, method="hdmnet"))
    with pytest.raises(UsageError, match=r"which the model that runs here, \w+, does not offer: take the one that was"):
        Finder([asked], engine())


@pytest.mark.parametrize("named", ["box.concept", "box.safetensors"])
def test_a_concept_that_is_given_for_a_model_is_told_by_its_name_and_by_its_content(file, named):
    path = str(file.rename(file.with_name(named)))
    for opens in (open_engine, lambda model: open_target(model, []), load_model, graphs_of):
        with pytest.raises(
            UsageError, match=r"is a concept, .* and no model: .* give it as --concept .*POST /v1/concepts"
        ):
            opens(path)


def test_a_file_is_read_by_whoever_reads_others_of_the_folder(file):
    (beside := file.with_name("beside")).touch()
    assert file.stat().st_mode == beside.stat().st_mode


def test_a_file_gives_the_concept_back_and_the_same_masks(concept, file):
    again = fewseg.Concept.load(file)
    assert again == concept
    query, _ = scene(size=(61, 37), box=(7, 9, 33, 30))
    masks = [Finder([each], engine()).predict_each(query)["box"].proba for each in (concept, again)]
    np.testing.assert_array_equal(*masks)
    again.save(file)
    assert fewseg.Concept.load(file) == concept, "saving again changes no photo"


def test_photos_of_any_size_are_kept_at_twice_the_model_s(tmp_path):
    photo, mask = scene(size=(900, 700), box=(300, 200, 700, 500))
    concept = fewseg.teach(photo, mask, model=engine())
    assert concept.supports[0].photo.shape == (50, 64, 3)
    assert concept.supports[0].mask.mean() == pytest.approx(mask.mean(), abs=0.02)
    concept.save(tmp_path / "c.concept")
    assert (tmp_path / "c.concept").stat().st_size < 20_000
    assert Finder([fewseg.Concept.load(tmp_path / "c.concept")], engine()).support_side == 900  # as it was given


def test_features_alone_hold_no_photo_and_give_the_same_mask(concept, tmp_path):
    alone = taught(keep_photos=False)
    assert alone.supports == alone.absent == ()
    alone.save(tmp_path / "c.concept")
    assert b"JFIF" not in (tmp_path / "c.concept").read_bytes()
    query, _ = scene(size=(61, 37), box=(7, 9, 33, 30))
    one, other = (
        Finder([each], engine()).predict_each(query)["box"].mask
        for each in (concept, fewseg.Concept.load(tmp_path / "c.concept"))
    )
    assert iou(one, other) > 0.99
    with pytest.raises(UsageError, match="keeps no photos"):
        fewseg.teach(*pairs(1), former=alone, model=engine())


def test_features_of_other_weights_or_another_form_are_refused(concept):
    alone = taught(keep_photos=False)
    with pytest.raises(DataError, match="no features of this model"):
        Finder([alone], engine(image_size=16))
    other = engine()
    other.weights = "another"
    with pytest.raises(DataError, match="features of another model"):
        Finder([alone], other)
    with pytest.warns(DataWarning, match="taught with other weights"):
        Finder([concept], other)


@pytest.mark.slow
def test_features_that_were_kept_before_there_was_a_classifier_are_found_by():
    graphs = open_engine("lite")
    photo, mask = scene()
    alone = fewseg.teach(photo, mask, model=graphs, keep_photos=False)
    former = replace(alone, features={name: value for name, value in alone.features.items() if name != FINEST})
    assert len(former.features) == len(alone.features) - 1
    masks = [Finder([each], graphs).predict_each(photo)["object"].proba for each in (alone, former)]
    np.testing.assert_array_equal(*masks)


def test_a_support_whose_mask_is_empty_is_a_photo_without_the_class():
    photos, masks = pairs(3)
    empty = scene(BLUE, size=(48, 36))[0]
    concept = fewseg.teach([*photos, empty], [*masks, np.zeros((36, 48), np.uint8)], model=engine(presence=True))
    same = fewseg.teach(photos, masks, absent=[empty], model=engine(presence=True))
    assert len(concept.supports) == 3
    assert len(concept.absent) == 1
    assert concept.presence == same.presence is not None
    finder = Finder([concept], engine(presence=True))
    there, absent = (finder.predict_each(photo)["object"].presence for photo in (scene(size=(48, 36))[0], empty))
    assert there > 0.5 > absent
    with pytest.raises(DataError, match="no photo has the object"):
        fewseg.teach(empty, np.zeros((36, 48), np.uint8), model=engine())


def test_photos_without_the_class_are_matched_where_that_helps():
    photos, masks = pairs(3)
    brown = (200, 60, 30)  # near enough to red to be taken for it
    wrong = [scene(brown, box=(4, 4 + i, 30, 24 + i), size=(48, 36))[0] for i in range(3)]
    plain = fewseg.teach(photos, masks, model=engine())
    against = fewseg.teach(photos, masks, absent=wrong, model=engine())
    assert plain.choice.negatives == 0
    query = scene(brown, box=(8, 4, 30, 24), size=(48, 36))[0]
    before, after = (Finder([one], engine()).predict_each(query)["object"].mask.mean() for one in (plain, against))
    assert after < 0.5 * before
    blue = [scene(BLUE, box=(4, 4 + i, 30, 24 + i), size=(48, 36))[0] for i in range(3)]
    harmless = fewseg.teach(photos, masks, absent=blue, model=engine())
    assert harmless.choice.negatives == 0
    assert [example.name for example in harmless.absent] == ["photo 4", "photo 5", "photo 6"]  # as they were given


def test_several_concepts_are_several_classes():
    red, blue = taught(), fewseg.teach(*pairs(3, BLUE), name="sea", model=engine())
    results = Finder([red, blue], engine()).predict_each(scene(BLUE, size=(48, 36))[0])
    assert list(results) == ["box", "sea"]
    assert results["sea"].mask.any()
    with pytest.raises(UsageError, match="two concepts have the name box"):
        Finder([red, red], engine())


def test_python_takes_boxes_thresholds_and_many_photos(monkeypatch):
    photos, _ = pairs(3)
    boxes = [fewseg.Marks(boxes=[(8 + i, 5, 26 + i, 20)]) for i in range(3)]
    concept = fewseg.teach(photos, boxes, model=engine())
    assert concept.supports[0].meaning.startswith("grown from 1 box")
    monkeypatch.setattr(Finder, "_taught_model", lambda self: engine())
    queries = [scene(size=(61, 37), box=(7 + i, 9, 33, 30))[0] for i in range(4)]
    every = list(concept.segment_all(queries))
    for query, result in zip(queries, every, strict=True):
        np.testing.assert_array_equal(concept.segment(query).proba, result.proba)
    low, high = (concept.segment(queries[0], threshold=threshold).mask for threshold in (0.02, 0.98))
    assert low.sum() > high.sum()
    assert not (high & ~low).any()


def test_what_was_taught_can_be_added_to(concept):
    photos, masks = pairs(5)
    more = fewseg.teach(photos[3:], masks[3:], former=concept, model=engine())
    assert more.name == "box"
    assert [example.name for example in more.supports] == [f"photo {n}" for n in (1, 2, 3, 4, 5)]


@pytest.mark.slow
@settings(max_examples=30)
@given(st.floats(0.01, 0.99), st.lists(st.floats(0, 1, width=32), min_size=1, max_size=20))
def test_moved_probabilities_keep_their_order_and_cut_at_a_half(threshold, values):
    proba = np.sort(np.array(values, np.float32))
    shown = moved(proba, threshold)
    assert (np.diff(shown) >= -1e-6).all()
    clear = abs(proba - threshold) > 1e-4
    np.testing.assert_array_equal((shown > 0.5)[clear], (proba > threshold)[clear])


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_counts_are_those_of_masks(seed):
    rng = np.random.default_rng(seed)
    proba, mask = rng.random((9, 7), np.float32), rng.choice(np.array([0, 1, 255], np.uint8), (9, 7))
    right, union = counted(proba, mask)
    known = max((mask != 255).sum(), 1)
    for i, threshold in enumerate(THRESHOLDS):
        above = (proba > np.float32(threshold)) & (mask != 255)
        assert right[i] == pytest.approx((above & (mask == 1)).sum() / known)
        assert union[i] == pytest.approx((above | (mask == 1)).sum() / known)


def test_a_way_that_costs_more_must_be_worth_it():
    count = len(THRESHOLDS)
    plain = Counts(np.full((3, count), 0.50), np.ones((3, count)))
    for better, way in ((0.505, Way("lite")), (0.52, Way("lite", 2))):
        tiled = Counts(np.full((3, count), better), np.ones((3, count)))
        assert best({Way("lite"): plain, Way("lite", 2): tiled})[0] == way
    dense = Counts(np.full((3, count), 0.51), np.ones((3, count)))
    assert best({Way("lite"): plain, Way("dense"): dense})[0] == Way("dense")


@settings(max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=12))
def test_what_is_expected_goes_from_what_is_usual_to_the_mean_of_many_photos(each):
    shares = np.array(each)
    few, many = (expected(np.tile(shares, times), np.ones(times * len(each)), 0.5) for times in (1, 40))
    for told in (few, many):
        assert 0 <= told.low <= told.iou <= told.high <= 1
    assert abs(many.iou - shares.mean()) < 0.06
    assert abs(few.iou - 0.55) <= abs(many.iou - 0.55) + 1e-9
    assert many.high - many.low <= few.high - few.low + 1e-9


def test_a_photo_is_asked_by_what_the_others_chose():
    right, union = np.zeros((3, len(THRESHOLDS))), np.ones((3, len(THRESHOLDS)))
    for photo, at in enumerate((2, 2, 15)):
        right[photo, at - 2 : at + 3] = 0.9
    found, asked = unseen({Way("lite"): Counts(right, union)})
    assert asked[2][1] < 5
    np.testing.assert_allclose(found[0], [0.9, 0.9, 0.0], atol=0.91)
    assert found[0, 2] == 0, "the others would not have taken its threshold"


@pytest.mark.parametrize("right_mask", [True, False])
def test_a_mask_is_doubted_only_where_its_photo_is_found_by_no_setting_that_was_asked(concept, right_mask):
    counts = {}
    for way, shares in {Way("lite"): (0.6, 0.6, 0.7 * right_mask), Way("lite+linear"): (0.8, 0.8, 0.02)}.items():
        right = np.tile(np.array(shares)[:, None], len(THRESHOLDS))
        counts[way] = Counts(right, np.ones_like(right))
    way, _ = best(counts)
    assert way.method == ("lite" if right_mask else "lite+linear")
    choice = Choice(way.method, 0.5, 1)
    told = expected_unseen(counts, np.ones(3, bool), choice, 0.5)
    assert told.each == pytest.approx((0.6, 0.6, 0.02) if right_mask else (0.8, 0.8, 0.02))
    asked = replace(concept, choice=choice, expected=told)
    doubts = [advice for advice in advices(asked) if "is its mask right?" in advice]
    if right_mask:
        others = "2 % by lite+linear above 0.05, which would have been chosen without it"
        assert asked.found_by_others(2) == f"70 % IoU by lite above 0.5; {others}"
        assert not doubts
    else:
        photo = concept.supports[2].name
        least = (
            "2 % IoU by lite+linear above 0.5; 2 % by lite+linear above 0.05, which would have been chosen without it"
        )
        assert doubts == [f"{photo} is hardly found by the others ({least}): is its mask right?"]
        first = replace(asked.supports[0], meaning=f"255 is the object, with 90 % of the border ({SWAPPED})")
        swapped = replace(asked, supports=(first, *asked.supports[1:]))
        assert advices(swapped)[0].endswith(f"does {first.name}'s mask mark what is around the object? Then invert it")
        two = replace(told, each=(0.02, 0.8), by_choice=(0.02, 0.8), settings=told.settings[:2])
        asked = replace(asked, expected=two, supports=asked.supports[:2])
        assert "is hardly found by the other (" in advices(asked)[0]
        assert advices(asked)[0].endswith("is the mask of each right?")  # which of both misleads cannot be told


@pytest.mark.slow
@settings(max_examples=50)
@given(
    st.lists(st.floats(-14, 14), min_size=1, max_size=8),
    st.lists(st.floats(-14, 14), min_size=1, max_size=8),
)
def test_presence_rises_with_its_sign_and_tells_apart_what_is_far_apart(present, absent):
    found = calibrated(np.array(present + absent), np.array([True] * len(present) + [False] * len(absent)))
    assert found is not None
    told = [probability(found, sign) for sign in sorted(present + absent)]
    assert told == sorted(told)
    if min(present) > max(absent) + 3:
        assert probability(found, min(present)) > 0.5 or min(present) < np.mean(present) - 2
        assert probability(found, max(present)) > 0.5 > probability(found, min(absent))


def test_photos_to_annotate_are_doubtful_and_differ_from_those_before():
    photos = np.array([[1, 0, 0.02], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    supports = np.array([[0, 0, 1]], np.float32)
    picked = chosen(np.array([0.6, 0.5, 0.4, 0.9]), photos, supports, 9)
    assert [number for number, *_ in picked] == [0, 2, 1, 3], "1 is as 0, and 3 is the support"
    assert picked[0][1] > 0.9 < picked[1][1]
    assert max(picked[2][1], picked[3][1]) < 0.01


def test_what_more_supports_bring_is_told_with_an_interval_that_narrows():
    concept = taught(8)
    few, many = (growth(engine(), taught(count)) for count in (2, 8))
    assert few.error > many.error > 0
    gain, low, high = many.of(concept.shots, 4)
    assert low < gain < high
    assert abs(gain) < 0.05, "all are found as they are"
    assert many.of(8, 8)[0] == pytest.approx(many.doubling)


@pytest.mark.parametrize("size", [(31, 17), (64, 64), (1, 1), (3, 200)])
def test_tiles_cover_a_photo_of_any_size(size):
    net = engine()
    photo, mask = scene(size=(max(size[0], 4), max(size[1], 4)), box=(1, 1, 3, 3))
    photo = photo[: size[1], : size[0]]
    support = net.encode_support([scene(size=(32, 32))])
    for tiles in (1, 2, 3):
        answer = found(net, views(net, photo, tiles), support, net.method)
        assert answer.proba.shape == (size[1], size[0])
        assert np.isfinite(answer.proba).all()
    assert mask.any()


class Shown:
    """Keeps what it is to encode."""

    image_size = 64

    def encode_support(self, pairs):
        ((self.photo, self.mask),) = pairs


def test_for_tiles_a_support_is_shown_as_near_as_its_object_will_be_found():
    photo, mask = np.zeros((200, 300, 3), np.uint8), np.zeros((200, 300), np.uint8)
    mask[180:192, 5:17] = 1
    photo[mask == 1] = 255
    example, net = Example.of(photo, mask, side=300, name="a.jpg", meaning="a mask"), Shown()
    encoded(net, example, 1)
    assert net.photo.shape == (200, 300, 3)
    encoded(net, example, 2)
    assert net.photo.shape == (120, 180, 3)
    assert (net.photo[..., 0] > 200).sum() == 144  # the whole object
    assert (net.mask == 1).sum() > 2 * (nearest(mask, 64) == 1).sum()
    apart = np.zeros_like(mask)
    apart[:20, :20] = apart[-20:, -20:] = 1  # nothing is in the middle of the two
    encoded(net, Example.of(photo, apart, side=300, name="b.jpg", meaning="a mask"), 2)
    assert net.photo.shape == (200, 300, 3)
    large = np.zeros_like(mask)
    large[50:150, 80:220] = 1  # a tile would show little else
    encoded(net, Example.of(photo, large, side=300, name="c.jpg", meaning="a mask"), 2)
    assert net.photo.shape == (200, 300, 3)


def rewritten(file: Path, change: Any) -> None:
    """The file with a change to its JSON and tensors, and a hash that fits."""
    with safetensors.safe_open(file, framework="numpy") as opened:
        metadata = opened.metadata()
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    document = json.loads(metadata["concept"])
    change(document, tensors, metadata)
    metadata["concept"] = json.dumps(document)
    metadata["sha256"] = hash_of(metadata["concept"], tensors)
    safetensors.numpy.save_file(tensors, file, metadata)


def _set(*path: Any, to: Any) -> Any:
    def change(document: Any, *_: Any) -> None:
        for step in path[:-1]:
            document = document[step]
        document[path[-1]] = to

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_set("choice", "threshold", to=float("nan")), "threshold is nan"),
        (_set("choice", "threshold", to="0.5"), "threshold is 0.5"),
        (_set("choice", "tiles", to=10**9), "tiles is 1000000000"),
        (_set("choice", "tiles", to=True), "tiles is True"),
        (_set("choice", "negatives", to=2), "matched against 2 photos, and holds 0"),
        (_set("choice", "negatives", to=-1), "photos without the class is -1"),
        (_set("expected", "iou", to=2), "expected IoU is 2"),
        (_set("expected", "by_choice", to=[0.5]), "not every support has its setting"),
        (_set("expected", "settings", 0, to="a\nb"), "a setting is"),
        (_set("presence", to={"slope": 1e300, "offset": 0, "absent": 1}), "calibration of presence"),
        (_set("model", "name", to=["lite"]), "model's name is no text"),
        (_set("name", to="a\nb"), "name of the class"),
        (_set("supports", to=[]), "more than a concept does"),
        (_set("supports", 0, "side", to=-5), "side of a photo is -5"),
        (_set("extra", to=1), "extra"),
        (_set("pictures", "bands", to=[1, 2]), "no rule for pictures"),
        (lambda d, t, m: t.update({"supports.0.jpeg": np.frombuffer(b"GIF89a", np.uint8)}), "cannot be read"),
        (lambda d, t, m: t.update({"supports.0.png": t["supports.0.jpeg"]}), "cannot be read"),
        (lambda d, t, m: t.update({"more": np.zeros(3, np.uint8)}), "more than a concept does"),
        (lambda d, t, m: t.update({"features.x": np.full((1, 1, 2), np.nan, np.float16)}), "not finite"),
        (lambda d, t, m: t.update({"features.x": np.zeros((1, 1, 2), np.float64)}), "is of F64"),
        (lambda d, t, m: m.update({"format": "2"}), "a newer fewseg wrote it"),
        (lambda d, t, m: m.update({"kind": "model"}), "is no concept"),
    ],
)
def test_a_file_that_lies_is_refused_with_the_reason(file, change, reason):
    rewritten(file, change)
    with pytest.raises(DataError, match=reason):
        fewseg.Concept.load(file)


def test_a_picture_larger_than_any_concept_keeps_is_refused_before_it_is_read(file):
    png = io.BytesIO()
    Image.new("L", (5_000, 8)).save(png, "PNG")
    rewritten(file, lambda d, t, m: t.update({"supports.0.png": np.frombuffer(png.getvalue(), np.uint8)}))
    with pytest.raises(DataError, match="5000 x 8"):
        fewseg.Concept.load(file)


def test_a_flipped_bit_anywhere_is_told(file):
    content = file.read_bytes()
    for place in np.linspace(0, len(content) - 1, 40).astype(int):
        changed = bytearray(content)
        changed[place] ^= 4
        file.write_bytes(changed)
        with pytest.raises(DataError):
            fewseg.Concept.load(file)


@pytest.mark.parametrize(
    "content", [b"", b"abc", b"\xff" * 200, (MOST_HEADER + 1).to_bytes(8, "little") + bytes(10**7)]
)
def test_what_is_no_concept_is_said_to_be_none(content, tmp_path):
    (tmp_path / "c.concept").write_bytes(content)
    with pytest.raises(DataError, match=r"is no concept|at most"):
        fewseg.Concept.load(tmp_path / "c.concept")
    with pytest.raises(DataError, match="there is no such file"):
        fewseg.Concept.load(tmp_path / "absent.concept")


def test_a_model_that_a_file_names_is_never_looked_for_on_the_disk(file):
    rewritten(file, _set("model", "name", to="../../somewhere"))
    with pytest.raises(UsageError, match="give it: --model DIR"):
        Finder([fewseg.Concept.load(file)])


@pytest.mark.slow
def test_a_concept_names_the_model_and_not_what_runs_it(file):
    concept = fewseg.teach(*pairs(1), model=open_engine("lite"))
    assert concept.model.name == "lite"
    concept.save(file)
    assert Finder([fewseg.Concept.load(file)]).engine.name == "lite"  # it can be opened again by that name alone
