"""Overlays, error colours, heat maps and the figures for a paper."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fewseg.data.source import class_mask
from fewseg.errors import UsageError
from fewseg.report import figures
from fewseg.report import overlays as pictures
from fewseg.report.contents import ClassScores, Curve, OtherPrediction, Panel, Row

GREY = np.full((40, 60, 3), 128, np.uint8)


def square() -> np.ndarray:
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 10:30] = 1
    return mask


def test_overlay_tints_the_mask_and_outlines_it_crisply() -> None:
    shown = pictures.overlay_array(GREY, square(), (255, 0, 0))
    assert shown.shape == GREY.shape
    assert shown.dtype == np.uint8
    assert tuple(shown[10, 20]) == (255, 0, 0)
    assert shown[20, 20, 0] > shown[20, 20, 1]
    assert len(set(shown[20, 45].tolist())) == 1
    assert (GREY == 128).all()


def test_ignored_pixels_are_never_tinted() -> None:
    void = np.full((40, 60), 255, np.uint8)
    for shown in (pictures.overlay_array(GREY, void), pictures.error_array(GREY, void, square())):
        assert (shown == shown[..., :1]).all()


def test_hits_false_alarms_and_misses_have_their_own_colours() -> None:
    truth, prediction = square(), np.roll(square(), 10, 1).astype(bool)
    shown = pictures.error_array(GREY, truth, prediction).astype(int)
    hit, alarm, miss = shown[15:25, 23:27], shown[15:25, 33:37], shown[15:25, 13:17]
    nearest = {"hit": hit, "alarm": alarm, "miss": miss}
    colors = {"hit": pictures.HIT_COLOR, "alarm": pictures.FALSE_ALARM_COLOR, "miss": pictures.MISS_COLOR}
    for name, region in nearest.items():
        mean = region.mean((0, 1)) - shown[15, 50]
        likeness = {other: mean @ (np.array(color) - 128.0) for other, color in colors.items()}
        assert max(likeness, key=likeness.__getitem__) == name
    assert hit.std((0, 1)).max() == 0
    assert min(alarm.std((0, 1)).max(), miss.std((0, 1)).max()) > 5


@settings(max_examples=25, deadline=None)
@given(
    arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.floats(width=32)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_heat_takes_any_map_and_gives_the_size_asked_for(array: np.ndarray, size: tuple[int, int]) -> None:
    shown = pictures.heat(array, size)
    assert shown.shape == (*size, 3)
    assert shown.dtype == np.uint8


def test_heat_is_brightest_where_the_map_is_highest_whatever_its_scale() -> None:
    array = np.zeros((4, 6))
    array[1, 4] = 1e-3
    shown = pictures.heat(array, (40, 60))
    row, column = np.unravel_index(shown.sum(-1).argmax(), (40, 60))
    assert (row // 10, column // 10) == (1, 4)
    assert np.array_equal(shown, pictures.heat(1e6 * array - 5, (40, 60)))


def test_heat_of_a_constant_map_is_dark_and_shows_the_query() -> None:
    assert pictures.heat(np.full((3, 3), 0.7), (9, 9)).max() < 20
    image = GREY.copy()
    image[:, 30:] = 255
    shown = pictures.heat(np.full((3, 3), 0.7), (40, 60), image=image)
    assert shown[5, 50].sum() > shown[5, 5].sum()


def test_heat_refuses_what_is_no_map() -> None:
    with pytest.raises(UsageError, match=r"shape \(2, 3, 4\)"):
        pictures.heat(np.zeros((2, 3, 4)), (5, 5))


def test_class_255_of_a_data_set_of_many_classes_is_no_void() -> None:
    labels = np.array([[0, 254, 255, 65535]], np.uint16)
    assert class_mask(labels, 255).tolist() == [[0, 0, 1, 255]]
    assert class_mask(labels.astype(np.uint8), 254).tolist() == [[0, 1, 255, 255]]


def test_fit_shrinks_and_never_enlarges() -> None:
    assert pictures.fit((500, 1000), 320) == (160, 320)
    assert pictures.fit((30, 40), 320) == (30, 40)
    assert pictures.fit((1, 5000), 320) == (1, 320)


def test_thinned_curve_keeps_its_mean_and_range() -> None:
    values = np.random.default_rng(0).random(2400)
    values[7] = np.nan
    steps, means, bounds = figures.thin(np.arange(2400), values)
    assert len(steps) == figures.MAX_POINTS
    assert bounds is not None
    low, high = bounds
    assert (low <= means).all()
    assert (means <= high).all()
    assert high.max() == np.nanmax(values)
    assert figures.thin([1, 2], [3, 4])[2] is None


@pytest.mark.parametrize("truth", [True, False])
def test_the_colours_of_a_judged_prediction_are_told(truth: bool) -> None:
    shown = Panel("snail", (GREY,), (square(),), GREY, square() == 1, square() if truth else None)
    figure = figures.panel_figure(shown)
    told = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert told == (["marked, correct", "wrongly marked", "missed"] if truth else [])


@pytest.mark.slow
def test_a_class_without_episodes_has_no_bar() -> None:
    figure = figures.classes_figure((ClassScores("cat", math.nan, episodes=0), ClassScores("dog", 0.5)))
    assert [bar.get_width() for bar in figure.axes[0].patches][1] == 50


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
@pytest.mark.slow
def test_figures_are_saved_with_any_names(tmp_path: Path, ending: str) -> None:
    name = r"$\frac{a_b$ <i>&"
    rows = (Row(name, 0.5, (0.4, 0.6), highlight=True), Row("_hidden", 0.2))
    curves = (Curve(name, (1, 2), (0.1, 0.2), chart="c"), Curve("_b", (1, 2), (0.1, 0.2), chart="c"))
    shown = Panel(
        name,
        (GREY, GREY),
        (square(), square()),
        GREY,
        square() == 1,
        square(),
        correlations=(np.eye(3),),
        prior=np.eye(4),
        others=(OtherPrediction(name, square()),),
    )
    for i, figure in enumerate((figures.bars_figure(rows), figures.curves_figure(curves), figures.panel_figure(shown))):
        path = figures.save_figure(tmp_path / f"{i}.{ending}", figure)
        assert path.stat().st_size > 1000
    assert len(list(tmp_path.iterdir())) == 3


def test_bars_figure_names_its_rows() -> None:
    figure = figures.bars_figure((Row("prototype", 0.2), Row("HDMNet", 0.5, seen="3 of 5 test classes seen")))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["prototype", "HDMNet *"]
    assert "*: test classes seen in training" in figure.axes[0].get_xlabel()


def test_figure_of_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.pdf, \.png, \.svg"):
        figures.save_figure(tmp_path / "figure.gif", figures.bars_figure(()))
