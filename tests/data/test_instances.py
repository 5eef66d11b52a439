"""Single objects of a mask, and several classes' objects whole in one label map."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from fewseg.data.instances import distance, instances
from fewseg.data.winners import label_map
from fewseg.errors import UsageError


def discs(*centres: tuple[int, int, int], size: tuple[int, int] = (120, 160)) -> np.ndarray:
    """A mask of discs, each by row, column and radius."""
    rows, columns = np.indices(size)
    return np.any([(rows - y) ** 2 + (columns - x) ** 2 < r * r for y, x, r in centres], axis=0)


def noise(seed: int, smooth: float, size: tuple[int, int] = (61, 83)) -> np.ndarray:
    return ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=size), smooth) > 0


@settings(max_examples=20)
@given(st.integers(0, 1000), st.floats(0.3, 8))
def test_distances_are_scipy_s(seed, smooth):
    mask = noise(seed, smooth)
    np.testing.assert_allclose(distance(mask), ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1], atol=1e-4)


@settings(max_examples=20)
@given(st.integers(0, 1000), st.floats(0.3, 8))
def test_every_pixel_is_of_one_object_and_no_object_of_two_parts(seed, smooth):
    mask = noise(seed, smooth)
    found, parts = instances(mask), ndimage.label(mask, np.ones((3, 3)))[0]
    np.testing.assert_array_equal(found.labels > 0, mask)
    np.testing.assert_array_equal(np.unique(found.labels[mask]), 1 + np.arange(len(found.pixels)))
    for number, (box, pixels) in enumerate(zip(found.boxes, found.pixels, strict=True), start=1):
        rows, columns = np.nonzero(found.labels == number)
        assert box.tolist() == [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
        assert pixels == len(rows)
        assert len(np.unique(parts[rows, columns])) == 1


@pytest.mark.parametrize("scale", [1, 4])
def test_what_touches_is_told_apart_at_any_size(scale):
    mask = discs((30, 30, 15), (30, 57, 15), (52, 44, 13), (90, 60, 20), (90, 120, 12))
    assert ndimage.label(mask)[1] == 3
    assert len(instances(np.kron(mask, np.ones((scale, scale), bool))).pixels) == 5


def test_a_body_keeps_its_limbs():
    body = discs((60, 80, 25))
    body[55:65, 20:140] = body[20:110, 76:84] = True
    assert len(instances(body).pixels) == 1
    assert len(instances(discs((40, 60, 20), (64, 60, 6))).pixels) == 1, "what is small hangs on the large one"
    ring = discs((60, 80, 50)) & ~discs((60, 80, 38))
    assert len(instances(ring).pixels) == 1


def test_an_object_is_of_one_class_and_neighbours_of_two_stay_apart():
    cat, dog = np.full((2, 20, 40), 0.1, np.float32)
    cat[5:15, 5:15], dog[5:15, 5:15] = 0.8, 0.6
    dog[5:15, 12:15] = 0.9  # its paws look like a dog's
    cat[5:15, 25:30], dog[5:15, 25:30] = 0.9, 0.6
    cat[5:15, 30:35], dog[5:15, 30:35] = 0.6, 0.9
    labels = label_map([cat, dog])
    assert set(np.unique(labels[5:15, 5:15])) == {1}
    assert set(np.unique(labels[5:15, 25:30])) == {1}
    assert set(np.unique(labels[5:15, 30:35])) == {2}
    np.testing.assert_array_equal(label_map([dog, cat])[5:15, 5:15], 2)
    np.testing.assert_array_equal(labels > 0, np.maximum(cat, dog) > 0.5)


def test_a_label_map_needs_a_class():
    with pytest.raises(UsageError, match="at least one class"):
        label_map([])
