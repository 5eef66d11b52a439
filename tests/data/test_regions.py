"""Parts and neighbourhoods of masks are scipy's, to the pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from fewseg.data.regions import connected, grown, shrunk

masks = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(lambda size: arrays(bool, size))


@given(masks)
def test_connected_parts_are_scipy_s_in_their_order(mask):
    parts = connected(mask)
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    np.testing.assert_array_equal(parts.labels, labels)
    assert parts.pixels.tolist() == np.bincount(labels.ravel(), minlength=count + 1)[1:].tolist()
    places = [[rows.start, columns.start, rows.stop, columns.stop] for rows, columns in ndimage.find_objects(labels)]
    assert parts.boxes.tolist() == places


def test_a_long_spiral_is_one_part():
    mask = np.zeros((61, 61), bool)
    for ring in range(0, 30, 2):
        mask[ring, ring : 61 - ring] = mask[60 - ring, ring : 61 - ring] = True
        mask[ring : 61 - ring, 60 - ring] = mask[ring + 2 : 61 - ring, ring] = True
        mask[ring + 2, ring : ring + 3] = True
    assert len(connected(mask).boxes) == ndimage.label(mask, structure=np.ones((3, 3)))[1] == 1


@given(masks, st.integers(1, 5))
def test_neighbourhoods_are_scipy_s_filters(mask, by):
    side = 2 * by + 1
    np.testing.assert_array_equal(grown(mask, by), ndimage.maximum_filter(mask, side, mode="constant", cval=0))
    np.testing.assert_array_equal(shrunk(mask, by), ndimage.minimum_filter(mask, side, mode="constant", cval=0))


@pytest.mark.parametrize("shape", [(0, 5), (5, 0)])
def test_nothing_has_no_parts(shape):
    assert len(connected(np.zeros(shape, bool)).boxes) == 0
