import hashlib
import multiprocessing
import pickle
import subprocess
import sys
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewseg.data.scenes.kept import KeptScenes, kept_scenes
from fewseg.data.sets.scenes import Scenes
from fewseg.data.source import ImageSource
from fewseg.errors import UsageError

LEVELS = ("simple", "complex")
SUBSETS = ("train", "test")


def digest(source: Scenes, i: int) -> str:
    image, labels = source.load(i)
    return hashlib.sha256(image.tobytes() + labels.tobytes()).hexdigest()


@lru_cache
def built(level: str, subset: str) -> Scenes:
    return Scenes(level=level, subset=subset, images=120, size=128)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.slow
def test_an_image_is_the_same_bytes_in_another_process(level):
    code = (
        "from fewseg.data.sets.scenes import Scenes; import hashlib;"
        f"image, labels = Scenes(level={level!r}, images=9, size=160, seed=3).load(7);"
        "print(hashlib.sha256(image.tobytes() + labels.tobytes()).hexdigest())"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert printed == digest(Scenes(level=level, images=50, size=160, seed=3), 7)


@pytest.mark.slow
def test_order_of_loading_and_pickling_change_nothing():
    first = Scenes(images=6, size=96)
    forward = [digest(first, i) for i in range(6)]
    for other in (lambda: Scenes(images=6, size=96), lambda: pickle.loads(pickle.dumps(first))):
        kept_scenes.cache_clear()  # so that all are drawn once more
        second = other()
        assert [digest(second, i) for i in reversed(range(6))] == forward[::-1]


def test_a_scene_that_a_loader_process_has_drawn_is_not_drawn_again(monkeypatch):
    kept_scenes.cache_clear()
    source = Scenes(images=3, size=96)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        there = pool.apply(digest, (source, 1))  # pickled on its way, but of the same process tree
    monkeypatch.setattr("fewseg.data.sets.scenes.render", None)
    assert digest(source, 1) == digest(Scenes(images=3, size=96), 1) == there


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1), st.integers(0, 400))
def test_kept_scenes_come_back_whole_or_not_at_all(height, width, seed, damaged):
    kept = KeptScenes(3, 9)
    drawn = np.random.default_rng(seed).integers(0, 256, (height, width, 4), dtype=np.uint8)
    for i in (0, 1, 2, 3, -1):
        assert kept.get(i) is None
        kept.put(i, drawn)
    assert all(np.array_equal(kept.get(i), drawn) for i in range(3))
    assert kept.get(3) is None
    assert kept.get(-1) is None
    # as a process that is killed while it writes leaves a slot
    slot = kept._memory[kept._slot : 2 * kept._slot]
    slot[damaged % (12 + drawn.size)] ^= 1
    assert kept.get(1) is None
    assert np.array_equal(kept.get(0), drawn)


def test_scenes_without_room_are_drawn_anew(monkeypatch):
    monkeypatch.setattr("fewseg.data.scenes.kept.MOST_BYTES", 0)
    kept_scenes.cache_clear()
    source = Scenes(images=2, size=96)
    assert digest(source, 1) == digest(source, 1)
    kept_scenes.cache_clear()


@pytest.mark.parametrize(
    ("level", "sha256"),
    [
        ("simple", "6686d0149bf6b4dab943e7ea153019de108094b10c493ec426597a7fbc8c076e"),
        ("complex", "aae3595d70f5ff09535d971e4c1ea368f8b830a589cef0410bdaefb59e72f8c9"),
        ("mixed", "8be52dc4ee8a0b7104c4343056429de6d6d8909e6454b1d5446665625e5145fa"),
    ],
)
@pytest.mark.slow
def test_the_label_maps_stay_what_they_are(level, sha256):
    """Episode lists and published numbers on `scenes` rest on them."""
    assert Scenes(level=level, images=60, size=96).index.sha256 == sha256


def test_seed_subset_level_and_image_each_change_the_scene():
    variants = [{}, {"seed": 1}, {"subset": "test"}, {"level": "simple"}]
    digests = {digest(Scenes(size=96, **options), 0) for options in variants} | {digest(Scenes(size=96), 1)}
    assert len(digests) == 5


@pytest.mark.slow
@given(st.sampled_from(LEVELS), st.sampled_from(SUBSETS), st.integers(0, 119))
@settings(max_examples=25, deadline=None)
def test_the_loaded_labels_agree_with_the_index(level, subset, i):
    source = built(level, subset)
    image, labels = source.load(i)
    assert image.mode == "RGB"
    assert image.size == labels.shape[::-1]
    assert max(image.size) == 128
    assert 0.74 <= image.width / image.height <= 1.35
    assert labels.dtype == np.uint8
    assert set(np.unique(labels)) <= {*range(21), 255}
    np.testing.assert_array_equal(np.bincount(labels.ravel(), minlength=256)[:21], source.index.counts[i])


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("subset", SUBSETS)
def test_every_class_is_large_enough_in_several_images(level, subset):
    source = built(level, subset)
    assert isinstance(source, ImageSource)
    for class_id in range(1, 21):
        assert len(source.index.images_of(class_id, min_pixels=source.min_pixels)) >= 6, source.class_names[
            class_id - 1
        ]


@pytest.mark.slow
def test_simple_scenes_hold_one_class_and_complex_ones_three_to_six_objects_of_several():
    simple, crowded = built("simple", "train"), built("complex", "train")
    assert {len(simple.index.classes_in(i)) for i in range(120)} == {1}
    assert min(len(crowded.index.classes_in(i)) for i in range(120)) >= 2
    objects = [sum(thing.class_id > 0 for thing in crowded._arrange(i).things) for i in range(120)]
    assert set(objects) == {3, 4, 5, 6}


@pytest.mark.parametrize("level", LEVELS)
def test_a_thin_void_line_separates_every_object_from_what_is_around_it(level):
    source = built(level, "test")
    for i in range(20):
        labels = source.labels(i)
        assert 0.005 < (labels == 255).mean() < 0.25
        for a, b in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
            touching = (a != b) & (a != 255) & (b != 255)
            assert not touching.any()


@pytest.mark.slow
def test_colour_does_not_tell_the_class():
    """Nearest class mean by mean object colour is hardly better than chance (5 %)."""
    source = Scenes(level="simple", images=400, size=64)
    colours, classes = [], []
    for i in range(len(source)):
        image, labels = source.load(i)
        inside = (labels > 0) & (labels < 255)
        colours.append(np.asarray(image, float)[inside].mean(0))
        classes.append(int(labels[inside][0]))
    colour, label = np.array(colours), np.array(classes)
    half = np.arange(len(label)) < 200
    means = np.stack([colour[half & (label == c)].mean(0) for c in range(1, 21)])
    guess = 1 + np.linalg.norm(colour[~half, None] - means, axis=-1).argmin(1)
    assert (guess == label[~half]).mean() < 0.15
    chroma = colour - colour.mean(1, keepdims=True)
    within = np.mean([chroma[label == c].std(0).mean() for c in range(1, 21)])
    assert within > 0.85 * chroma.std(0).mean()


def test_folds_divide_the_twenty_classes():
    source = Scenes(images=18, size=64)
    assert len(set(source.class_names)) == 20
    assert sorted(c for i in range(4) for c in source.fold(i).novel) == list(range(1, 21))
    assert source.index.ids[17] == "complex-train-000017"


def test_min_pixels_grows_with_the_image():
    assert Scenes(size=473).min_pixels == 2048
    assert Scenes(size=64).min_pixels == 64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"root": "/data"}, "needs no root"),
        ({"level": "complx"}, "Did you mean 'complex'"),
        ({"subset": "val"}, "choose train, test"),
        ({"images": 0}, "give 1 to"),
        ({"size": 10}, "give 64 to"),
        ({"seed": -1}, "give 0 to"),
    ],
)
def test_wrong_options_are_refused_with_what_is_allowed(options, message):
    with pytest.raises(UsageError, match=message):
        Scenes(**options)


def test_an_image_beyond_the_last_is_an_index_error():
    with pytest.raises(IndexError, match="images 0 to 4"):
        Scenes(images=5).load(5)


def test_a_part_that_only_grazes_the_border_is_drawn():
    """In this scene one pixel of a part is inside the image: too few for a slope."""
    image, labels = Scenes(subset="test", images=137, size=96).load(136)
    assert image.size == labels.shape[::-1]


def test_mixed_has_simple_and_complex_scenes_by_turns():
    source = Scenes(level="mixed", images=20, size=64)
    objects = [len(np.unique(source.labels(i))) - 2 for i in range(20)]  # without background and void
    assert all(count == 1 for count in objects[0::2])
    assert np.mean(objects[1::2]) > 2
