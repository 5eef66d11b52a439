"""Measurements on disk, their intervals and paired differences."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fewseg.errors import DataError
from fewseg.experiments import Plan
from fewseg.experiments import supplement as published
from fewseg.experiments.lines import fold_lines, lines_table
from fewseg.experiments.measured import Measured, drop, load_measured, mean_of, save_measured
from fewseg.experiments.plots import setting_figure

NOVEL = (3, 4)


def counts(seed: int, episodes: int = 60):
    rng = np.random.default_rng(seed)
    union = rng.integers(100, 1000, episodes)
    hit = (union * rng.uniform(0.2, 0.9, episodes)).astype(int)
    return np.stack([np.resize(NOVEL, episodes), hit, union, union, union], 1).astype(np.int64)


def measured(tables, *, fold=0, hashes=("a",)):
    return Measured(tables=tuple(tables), fold=fold, novel=NOVEL, seeds=(0,), hashes=hashes, checkpoint="c")


def width(one):
    low, high = mean_of([one])[1]
    return high - low


def test_a_paired_drop_is_far_surer_than_the_two_numbers_apart():
    table = counts(0)
    lower = table.copy()
    lower[:, 1] = lower[:, 1] * 8 // 10
    a, b = measured([table]), measured([lower])
    found, (low, high) = drop([a], [b])
    assert found == pytest.approx(a.miou - b.miou)
    assert low < found < high
    assert high - low < 0.4 * width(a)
    assert low > 0


def test_folds_narrow_the_interval_of_a_mean():
    parts = [measured([counts(s)], fold=s) for s in range(4)]
    mean, interval = mean_of(parts)
    assert mean == pytest.approx(np.mean([p.miou for p in parts]))
    assert interval[1] - interval[0] < 0.7 * np.mean([width(p) for p in parts])


def test_where_nothing_was_learnt_no_drop_is_shown_as_sure(tmp_path):
    table = counts(0)
    table[:, 1] = 0
    zero = {0: measured([table])}
    lines = [*fold_lines(("with",), [0], zero), *fold_lines(("without",), [0], {0: measured([counts(1)])})]
    drops = list(fold_lines(("drop",), [0], zero, zero))
    assert (drops[0].miou, drops[0].interval, lines[0].interval) == (0, None, None)
    assert lines[1].interval is not None
    found = lines_table(Plan("scenes", tmp_path), "t", ["mask"], [*lines, *drops], with_published=False)
    (told,) = [note for note in found.notes if note.startswith("warning: no pixel of any class")]
    assert "(with fold 0)" in told
    figure = setting_figure(lines, label="mask")
    assert figure.get_supxlabel().replace("\n", " ") == told
    assert setting_figure(lines[1:], label="mask").get_supxlabel() == ""


def test_different_episodes_are_not_subtracted():
    with pytest.raises(DataError, match="different episodes"):
        drop([measured([counts(0)])], [measured([counts(0)], hashes=("b",))])


def test_a_measurement_is_read_again_only_for_what_it_was_made_for(tmp_path):
    tables = [counts(1), counts(2)]
    content = {
        "fold": {"index": 2, "novel": list(NOVEL)},
        "repeats": [{"seed": s, "episode_sha256": f"h{s}"} for s in (0, 1)],
        "checkpoint": {"sha256": "w"},
    }
    report = SimpleNamespace(tables=tables, as_dict=lambda: content)
    save_measured(tmp_path, "report", report, {"episodes": 60})
    found = load_measured(tmp_path, "report", {"episodes": 60})
    assert found is not None
    assert (found.fold, found.seeds, found.hashes, found.checkpoint) == (2, (0, 1), ("h0", "h1"), "w")
    assert all(np.array_equal(a, b) for a, b in zip(found.tables, tables, strict=True))
    assert load_measured(tmp_path, "report", {"episodes": 61}) is None
    assert load_measured(tmp_path, "other", {"episodes": 60}) is None
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(DataError, match=r"remove report\.json"):
        load_measured(tmp_path, "report", {"episodes": 60})


def rows(lines, *, with_published: bool):
    """The lines as a table has them: by the heads of its columns."""
    plan = Plan("scenes", out=Path("unused"))
    table = lines_table(plan, "title", ("support mask",), lines, with_published=with_published)
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def test_published_values_have_a_column_of_their_own_and_only_for_the_papers_folds():
    parts = {fold: measured([counts(fold)], fold=fold) for fold in range(4)}
    paper = published.SUPPORT_MASK["coco20i"][True]
    lines = list(fold_lines(("with",), (0, 1, 2, 3), parts, paper=paper))
    shown = rows(lines, with_published=True)
    assert [row["published"] for row in shown] == ["43.8", "55.3", "51.6", "49.4", "50.0"]
    assert shown[0]["mIoU"] == f"{100 * parts[0].miou:.2f}"
    # the paper's mean is over four folds
    assert list(fold_lines(("with",), (0, 1), parts, paper=paper))[-1].published is None
    assert "published" not in rows(lines, with_published=False)[0]


def test_the_papers_values_stand_beside_the_papers_data_and_back_end_alone():
    def beside(images: int, name: str = "pascal5i", backbone: str = "resnet50-ds"):
        source = SimpleNamespace(name=name, index=SimpleNamespace(ids=("a",) * images))
        return published.beside(published.SUPPORT_MASK, source, backbone)

    assert beside(1449) == (published.SUPPORT_MASK["pascal5i"], (published.NOTE,))
    for refused, why in (
        (beside(767), "767 test images, the papers' has 1449"),
        (beside(1449, backbone="lite0"), "lite0"),
    ):
        assert not refused[0]
        assert why in refused[1][0]
    assert beside(60, "scenes") == ({}, ())


def test_a_class_without_episodes_is_left_out_where_the_protocol_says_so():
    table = counts(0)[::2]  # of the first class alone
    zero = measured([table])
    left_out = replace(zero, drawn_only=True)
    assert left_out.miou == pytest.approx(2 * zero.miou)
    np.testing.assert_allclose(left_out.samples, 2 * zero.samples)


def test_a_mean_waits_for_all_folds():
    parts = {0: measured([counts(0)])}
    lines = list(fold_lines(("with",), (0, 1), parts))
    assert [row["mIoU"] for row in rows(lines, with_published=False)[1:]] == ["missing", "missing"]


@pytest.mark.parametrize("tables", [published.SUPPORT_MASK, published.TEMPERATURE, published.RELU])
def test_printed_means_fit_the_printed_folds(tables):
    for settings in tables.values():
        for values in settings.values():
            assert np.mean(values[:4]) == pytest.approx(values[4], abs=0.101)
