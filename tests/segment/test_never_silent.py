"""Whatever masks hold and however folders are laid out: no mask of everything or of nothing without a word."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from fewseg.data.sets.folder import Folder
from fewseg.errors import DataWarning, FewsegError
from fewseg.segment.supports import draw_supports, folder_supports
from trees import made

VALUES = st.sampled_from([0, 1, 2, 3, 12, 100, 127, 128, 200, 254, 255])
LAYOUTS = ("{c}/{n}.jpg {c}/{n}_mask.{e}", "images/{c}/{n}.jpg masks/{c}/{n}.{e}", "images/{n}.jpg masks/{n}.{e}")
LAYOUTS += ("images/{n}.jpg labels/{n}.{e}", "images/{n}.jpg annotations/{n}_gt.{e}")


@st.composite
def masks(draw: st.DrawFn) -> NDArray[np.uint8]:
    """A frame, a field and a square of values, which may be the same."""
    frame, field, square = draw(VALUES), draw(VALUES), draw(VALUES)
    values = np.full((24, 32), frame, np.uint8)
    values[2:-2, 2:-2] = field
    values[8:16, 8:20] = square
    return values


def saved(values: NDArray[np.uint8], path: Path, mode: str) -> None:
    image = Image.fromarray(values)
    if mode == "P":  # the colours of the values, drawn from a fixed table
        image.putpalette(np.random.default_rng(1).integers(0, 256, 768).astype(np.uint8).tobytes())
    image.convert("LA" if mode == "LA" and path.suffix == ".png" else image.mode).save(made(path))


@settings(derandomize=True, deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(masks(), min_size=2, max_size=3),
    st.sampled_from(LAYOUTS),
    st.sampled_from(["png", "tif", "bmp", "jpg", "gif"]),
    st.sampled_from(["L", "P", "LA"]),
    st.sampled_from([None, "any", "1", "255", ">=128"]),
)
@pytest.mark.slow
def test_a_mask_of_everything_or_nothing_is_never_silent(
    given_masks: list[NDArray[np.uint8]], layout: str, ending: str, mode: str, label: str | None
) -> None:
    with (
        tempfile.TemporaryDirectory() as name,
        tempfile.TemporaryDirectory() as out,
        warnings.catch_warnings(record=True) as told,
    ):
        warnings.simplefilter("always")
        root = Path(name)
        for number, values in enumerate(given_masks):
            photo, mask = layout.format(c="cow", n=number, e=ending).split()
            pixels = np.random.default_rng(number).integers(0, 255, (*values.shape, 3), np.uint8)
            Image.fromarray(pixels).save(made(root / photo))
            saved(values, root / mask, mode if ending != "jpg" else "L")
        odd = _of_supports(root, label, Path(out)) + _of_data_set(root, label)
        words = [str(warning.message) for warning in told if issubclass(warning.category, DataWarning)]
    assert len(odd) <= sum("nothing" in text for text in words), (odd, words)


def _of_supports(root: Path, label: str | None, out: Path) -> list[str]:
    """Supports that cover everything or nothing and were read nevertheless."""
    try:
        supports = folder_supports(root)
        lines = draw_supports(supports, {None: label} if label else {}, out)
    except FewsegError:
        return []
    shares = [float(line.rpartition("; ")[2].split(" %")[0]) for line in lines.values()]
    return [line for line, share in zip(lines.values(), shares, strict=True) if share in (0, 100)][:1]


def _of_data_set(root: Path, label: str | None) -> list[str]:
    """The kinds of masks of classes that cover everything or nothing and were indexed nevertheless."""
    try:
        source = Folder(root=root, label=label)
        assert source.index.counts.shape == (len(source.ids), 1 + len(source.class_names))
        masks = [source.mask_of(i, c) for i in range(len(source.ids)) for c in range(1, 1 + len(source.class_names))]
    except FewsegError:
        return []
    if not source.one_class_each:  # a label map need not hold every class
        masks = [mask for mask in masks if mask.all()]
    kinds = {"nothing" if not (mask == 1).any() else "all" if mask.all() else "" for mask in masks}
    return sorted(kinds - {""})
