"""Where results are written: files of their own, and nothing else is ever replaced."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fewseg.data.sets.scenes import Scenes
from fewseg.errors import UsageError
from fewseg.evaluation.benchmark import Benchmark
from fewseg.evaluation.evaluate import evaluate
from fewseg.evaluation.results import Results, results_name, unlike
from fewseg.evaluation.saved_masks import masks_folder
from helpers import Toy


@pytest.fixture(scope="module")
def source() -> Scenes:
    return Scenes(subset="test", level="simple", images=60, size=64)


@pytest.fixture(scope="module")
def results(source: Scenes) -> Results:
    torch.manual_seed(0)
    return evaluate(Toy().eval(), Benchmark.draw(source, source.fold(0), episodes=5, repeats=1), workers=0)


def test_what_is_measured_otherwise_has_another_name(source: Scenes) -> None:
    def name(fold: int = 0, *how: str, **choices: Any) -> str:
        return results_name(
            Benchmark.draw(source, source.fold(fold), **({"episodes": 5, "repeats": 1} | choices)), *how
        )

    changed: list[dict[str, Any]] = [
        {"protocol": "bam"},
        {"shots": 2},
        {"episodes": 6},
        {"repeats": 2},
        {"seeds": (3,)},
    ]
    changed = [c if "seeds" not in c else c | {"repeats": None} for c in changed]
    names = [name(), name(1), name(0, "flip"), *(name(**choices) for choices in changed)]
    assert len(set(names)) == len(names)
    assert name() == name()


def test_results_of_other_data_or_options_are_not_replaced(results: Results, tmp_path: Path) -> None:
    place = tmp_path / "results-a.json"
    assert unlike(place, results) == place
    results.save(place)
    assert unlike(place, results) == place
    for other in (replace(results, source_sha256="0" * 64), replace(results, options={"image_size": 257})):
        beside = unlike(place, other)
        assert (beside != place, beside.parent, beside) == (True, tmp_path, unlike(place, other))
    place.write_text("[1, 2]")
    assert unlike(place, results) == place, "what is no evaluation is refused there"


def test_an_evaluation_replaces_none_but_an_evaluation(results: Results, tmp_path: Path) -> None:
    results.save(tmp_path / "a.json")
    results.save(tmp_path / "a.json")
    (tmp_path / "empty.json").touch()
    results.save(tmp_path / "empty.json")
    others = {"list.csv": "# source: scenes\n", "annotations.json": '{"images": []}', "numbers.json": "[1, 2]"}
    for name, text in others.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(UsageError, match=f"{name} is there and holds something else"):
            results.save((tmp_path / name).with_suffix(".json"))
        assert (tmp_path / name).read_text() == text
    assert not (tmp_path / "list.json").exists()


def test_results_from_before_classes_without_episodes_were_named_are_read(results: Results, tmp_path: Path) -> None:
    file = results.save(tmp_path / "a.json")
    record = json.loads(file.read_text())
    del record["not_drawn"], record["base_without_truth"]
    file.write_text(json.dumps(record))
    assert Results.load(file).not_drawn == []


def test_saved_masks_are_those_that_were_counted(source: Scenes, tmp_path: Path) -> None:
    torch.manual_seed(0)
    drawn = Benchmark.draw(source, source.fold(0), episodes=3, repeats=2)
    place = masks_folder(tmp_path, results_name(drawn))
    evaluate(Toy().eval(), drawn, workers=0, masks=place)
    assert place.name.startswith("scenes-fewseg-fold0-1shot-2x3-")
    rows = list(csv.DictReader((place / "index.csv").read_text().splitlines()))
    assert [row["episode_sha256"] for row in rows[::3]] == [listed.sha256 for listed in drawn.lists]
    assert [(int(row["repeat"]), int(row["episode"])) for row in rows] == [(r, e) for r in range(2) for e in range(3)]
    for row in rows:
        spec = drawn.lists[int(row["repeat"])].specs[int(row["episode"])]
        mask = np.asarray(Image.open(place / row["file"]))
        truth = source.load(spec.query)[1]
        assert set(np.unique(mask)) <= {0, 255}
        found, true = (mask == 255) & (truth != 255), truth == spec.class_id
        assert ((found & true).sum(), (found | true).sum()) == (int(row["intersection"]), int(row["union"]))
        assert (row["query"], row["class"]) == (source.index.ids[spec.query], source.class_names[spec.class_id - 1])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds no masks of an evaluation"):
        masks_folder(tmp_path, "results-other.json")
