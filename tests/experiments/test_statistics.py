"""Statistics from the index alone."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from fewseg.data.sets.scenes import Scenes
from fewseg.errors import UsageError
from fewseg.experiments import Plan, run_statistics


def plan(out, level, **changes):
    return Plan("scenes", out=out, words=(f"data.level={level}", "data.images=40", "data.size=64"), **changes)


@pytest.fixture
def no_photos(monkeypatch):
    def load(self, i):
        raise AssertionError("statistics read a photo")

    monkeypatch.setattr(Scenes, "load", load)


@pytest.mark.slow
def test_images_by_classes_are_counted_without_a_photo(tmp_path, no_photos):
    found = run_statistics(plan(tmp_path, "complex", folds=(1, 3)))
    assert [(one.subset, one.fold) for one in found.subsets] == [("train", 1), ("train", 3), ("test", 1), ("test", 3)]
    source = Scenes(subset="test", level="complex", images=40, size=64)
    fold = source.fold(3)
    expected: dict[int, int] = {}
    for i in range(40):
        present = source.index.classes_in(i, min_pixels=source.min_pixels)
        if set(present) & set(fold.novel):
            expected[len(present)] = expected.get(len(present), 0) + 1
    test = found.subsets[-1]
    assert {n: count for n, count in enumerate(test.by_classes, 1) if count} == expected
    assert test.images == sum(expected.values())
    assert not found.warnings
    rows = list(csv.DictReader((tmp_path / "statistics.csv").read_text().splitlines()))
    assert [row["images"] for row in rows] == [str(one.images) for one in found.subsets]
    record = json.loads((tmp_path / "statistics.json").read_text())
    assert record["index_sha256"]["test"] == source.index.sha256
    for name in ("statistics", "statistics-classes"):
        assert all((tmp_path / f"{name}.{ending}").stat().st_size > 1000 for ending in ("png", "pdf"))


@pytest.mark.slow
def test_a_class_share_is_its_part_of_the_images_that_hold_it(tmp_path, no_photos):
    found = run_statistics(plan(tmp_path, "simple", folds=(0,)))
    source = Scenes(subset="test", level="simple", images=40, size=64)
    images = source.index.images_of(1, min_pixels=source.min_pixels)
    shares = [source.index.counts[i, 1] / source.index.counts[i].sum() for i in images]
    assert found.classes[0].share == pytest.approx(np.mean(shares))
    assert found.classes[0].quartiles[0] <= found.classes[0].quartiles[1]


@pytest.mark.slow
def test_data_of_single_classes_is_warned_of(tmp_path, no_photos):
    found = run_statistics(plan(tmp_path, "simple", folds=(0, 1)))
    assert all(one.single == 1 for one in found.subsets)
    assert len(found.warnings) == 2
    assert "fold 0: 100 %" in found.warnings[0]
    assert "warning: fold 1" in (tmp_path / "statistics.json").read_text()


def test_a_fold_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UsageError, match="no fold 7; give some of 0, 1, 2, 3"):
        run_statistics(plan(tmp_path, "simple", folds=(7,)))
