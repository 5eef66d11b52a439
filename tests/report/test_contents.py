"""The HTML report: self-contained, escaped, true to the numbers given, accessible, written whole or not at all."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewseg.errors import UsageError
from fewseg.report.contents import (
    ClassScores,
    Curve,
    OtherPrediction,
    ReportPage,
    Row,
    Section,
)
from fewseg.report.html import render, write_report
from helpers import HOSTILE, example_mask, example_panel, full_page

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Outline(HTMLParser):
    """Collects what a reader meets, and fails where tags do not balance."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def read(html: str) -> Outline:
    outline = Outline()
    outline.feed(html)
    outline.close()
    assert outline.open == []
    return outline


def words(html: str) -> str:
    return " ".join(" ".join(read(html).text).split())


def test_page_loads_nothing_from_outside() -> None:
    html = render(full_page())
    outline = read(html)
    assert "http://" not in html.replace("http-equiv", "")
    assert "https://" not in html
    assert "url(" not in html
    assert "@import" not in html
    assert {name for name, _ in outline.tags}.isdisjoint({"script", "link", "iframe", "object", "embed"})
    references = [v for _, attributes in outline.tags for k, v in attributes.items() if k in {"src", "href", "srcset"}]
    assert references
    assert all(reference and reference.startswith("data:image/jpeg;base64,") for reference in references)


@pytest.mark.slow
def test_hostile_names_stay_text() -> None:
    plain, hostile = read(render(full_page())), read(render(full_page(HOSTILE)))
    assert [name for name, _ in hostile.tags] == [name for name, _ in plain.tags]
    assert [sorted(a) for _, a in hostile.tags] == [sorted(a) for _, a in plain.tags]
    assert "{{ 7 * 7 }}" in words(render(full_page(HOSTILE)))


@settings(max_examples=15, deadline=None)
@given(st.text(max_size=30))
@pytest.mark.slow
def test_any_name_gives_a_readable_file(name: str) -> None:
    html = render(ReportPage(name, rows=(Row(name, 0.5),), sections=(Section("facts", name, rows=((name,),)),)))
    read(html)
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", html)


def test_file_name_that_is_no_unicode_does_not_fail_the_report(tmp_path: Path) -> None:
    path = write_report(tmp_path / "report.html", ReportPage("query caf\udce9.jpg"))
    assert "caf\\udce9.jpg" in path.read_text("utf-8")


def test_numbers_shown_are_the_numbers_given() -> None:
    shown = words(render(full_page()))
    for number in (
        "45.7",
        "44.3 to 47.0",
        "68.3",
        "69.4",
        "11.2",
        "+34.4",
        "52.3",
        "50.0 to 55.0",
        "IoU 43.2 %",
        "200",
    ):
        assert number in shown
    assert "snail: 31.3 %" in shown
    assert "from 10.0 % at step 10 to 20.0 % at step 30, best 30.0 % at step 20" in shown
    assert "from 1 at step 0 to 0.001 at step 999" in shown


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=4))
def test_bars_stay_on_their_axis_and_in_proportion(values: list[float]) -> None:
    html = render(ReportPage("bars", rows=tuple(Row(f"row {i}", v) for i, v in enumerate(values))))
    lengths = [float(x) for x in re.findall(r'<i style="width:([\d.]+)%">', html)]
    assert len(lengths) == len(values)
    assert all(0 <= length <= 100 for length in lengths)
    largest = max(values)
    for length, value in zip(lengths, values, strict=True):
        assert math.isclose(length * largest, max(lengths) * value, abs_tol=0.02)


def test_what_was_never_measured_is_a_dash() -> None:
    nan = float("nan")
    shown = words(render(ReportPage("r", rows=(Row("a", nan, fb_iou=nan, highlight=True), Row("b", 0.2)))))
    assert "mIoU – FB-IoU –" in shown
    assert "nan" not in shown


@pytest.mark.parametrize("shots", [1, 5])
def test_every_picture_of_an_episode_is_there_and_described(shots: int) -> None:
    made = example_panel(
        shots, prior=np.zeros((5, 5)), others=(OtherPrediction("without the support mask", example_mask(), 0.125),)
    )
    pictures = read(render(ReportPage("r", panels=(made,)))).all("img")
    described = [str(picture["alt"]) for picture in pictures]
    assert len(pictures) == shots + 4 + 4
    assert all(described)
    assert len(set(described)) == len(described)
    assert "Query with the predicted mask of snail, IoU 43.2 %" in described
    assert any("without the support mask, IoU 12.5 %" in text for text in described)
    assert [text[:27] for text in described[-3:]] == [f"Correlation map of stage {s} "[:27] for s in (3, 2, 1)]
    for picture in pictures:
        assert int(str(picture["width"])) > 0
        assert int(str(picture["height"])) > 0


def test_panel_without_truth_has_no_error_colours_in_the_legend() -> None:
    shown = words(render(ReportPage("r", panels=(example_panel(truth=None, iou=None, correlations=()),))))
    assert "prediction" in shown
    for absent in ("truth", "missed", "IoU", "stage", "lowest"):
        assert absent not in shown


def test_parts_left_out_leave_no_trace() -> None:
    outline = read(render(ReportPage("only a title")))
    assert [name for name, _ in outline.tags if re.fullmatch(r"h\d", name)] == ["h1"]
    present = {name for name, _ in outline.tags}
    assert present.isdisjoint({"section", "table", "ul", "dl", "figure", "pre"})
    shown = words(render(ReportPage("r", rows=(Row("a", 0.1),), sections=(Section("no table"),))))
    for absent in ("FB-IoU", "published", "interval", "None"):
        assert absent not in shown


def test_panels_are_gathered_under_their_group_in_order_of_appearance() -> None:
    made = tuple(example_panel(group=group, caption=f"number {i}") for i, group in enumerate(("Best", "Worst", "Best")))
    shown = words(render(ReportPage("r", panels=made)))
    places = [shown.index(text) for text in ("Best", "number 0", "number 2", "Worst", "number 1")]
    assert places == sorted(places)


def test_report_replaces_the_old_one_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "report.html"
    assert write_report(path, ReportPage("first")) == path
    before = path.read_bytes()

    def fail(page: ReportPage) -> None:
        raise RuntimeError("broken")

    with monkeypatch.context() as patch:
        patch.setattr("fewseg.report.html._shown", fail)
        with pytest.raises(RuntimeError):
            write_report(path, ReportPage("second"))
    with monkeypatch.context() as patch:
        patch.setattr("fewseg.files.os.replace", fail)
        with pytest.raises(TypeError):
            write_report(path, ReportPage("second"))
    assert path.read_bytes() == before
    assert [item.name for item in path.parent.iterdir()] == ["report.html"]


@pytest.mark.slow
def test_same_data_give_the_same_file(tmp_path: Path) -> None:
    first, second = (write_report(tmp_path / name, full_page()) for name in ("a.html", "b.html"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.slow
def test_twelve_large_panels_stay_small(tmp_path: Path) -> None:
    size = (500, 375)
    # Photo-like: noise would cost three times what any photo does.
    ramp = np.add.outer(np.arange(size[0]), np.arange(size[1]))[..., None] // np.array([3, 4, 5])
    photo = (ramp + np.random.default_rng(0).integers(0, 25, (*size, 3))).clip(0, 255).astype(np.uint8)
    made = example_panel(
        support_images=(photo,),
        support_masks=(example_mask(*size),),
        query_image=photo,
        prediction=example_mask(*size),
        truth=example_mask(*size),
    )
    path = write_report(tmp_path / "report.html", ReportPage("r", panels=(made,) * 12))
    assert path.stat().st_size < 4_000_000


def test_curve_with_gaps_and_one_without_values() -> None:
    nan = float("nan")
    curves = (Curve("gaps", (1, 2, 3, 4), (1.0, nan, 2.0, 3.0)), Curve("empty", (), ()), Curve("never", (1,), (nan,)))
    html = render(ReportPage("r", curves=curves))
    (path,) = re.findall(r'<path d="([^"]+)"[^>]*style="[^"]*stroke: var\(--c0\)', html)
    assert path.count("M") == 2
    assert "nan" not in html
    assert "never" not in words(html)
    assert "Training" not in words(render(ReportPage("r", curves=curves[1:])))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Row("HDMNet", 45.7), "'HDMNet' holds 45.7, which is no IoU; give fractions"),
        (lambda: ClassScores("cat", 0.5, (0.4, 60.0)), "'cat' holds 60"),
        (lambda: Curve("loss", (1, 2), (0.1,)), "2 steps and 1 values"),
        (lambda: example_panel(support_masks=()), "1 support images, 0 masks"),
        (lambda: example_panel(prediction=example_mask(7, 7)), r"query image is \(48, 64\) and its mask \(7, 7\)"),
        (lambda: example_panel(query_image=np.zeros((48, 64, 3))), r"type float64; give \(H, W, 3\) uint8"),
    ],
)
def test_wrong_data_are_refused_by_name(make: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()  # type: ignore[operator]


def test_more_marks_than_can_be_told_apart_are_refused() -> None:
    scores = ClassScores("cat", 0.5, marks=dict.fromkeys("abcd", 0.1))
    with pytest.raises(UsageError, match="at most 3"):
        render(ReportPage("r", per_class=(scores,)))
