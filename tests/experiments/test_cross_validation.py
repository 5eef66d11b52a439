"""Every fold, every seed, one table: what is trained, what is not trained again, and what the table says."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewseg.errors import UsageError
from fewseg.evaluation.results import Results
from fewseg.experiments import cross_validation_cells
from fewseg.experiments.cross_validation import Asked, CrossValidation, cross_validate
from helpers import SCENES, TINY, Fewseg, Toy

WORDS = (*SCENES, "model.weights=null", "train.validation=none", "train.epochs=1", "train.episodes_per_epoch=2")
WORDS = (*WORDS, "train.batch_size=2", "train.workers=0", "train.lr=0.01")
DRAWN: dict[str, Any] = {"episodes": 25, "repeats": 1, "workers": 0}


@pytest.fixture
def recipe(toy: type[Toy], tmp_path: Path) -> str:
    (tmp_path / "toy.yaml").write_text("model: {name: toy, image_size: 64}")
    return str(tmp_path / "toy.yaml")


def run(recipe: str, out: Path, *words: str, **how: Any) -> CrossValidation:
    return cross_validate(recipe, [*WORDS, *words], out=out, **DRAWN | how)


@pytest.mark.slow
def test_folds_seeds_and_shots_become_a_table_that_is_resumed(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "cv"
    found = run(recipe, out, "data.fold=0,2", "train.seed=0,1", shots=(1, 2))
    assert [(line.shots, line.folds, line.seeds) for line in found.lines] == [(1, [0, 2], [0, 1]), (2, [0, 2], [0, 1])]
    first = found.lines[0]
    saved = [Results.load(next((out / "runs" / f"toy-fold{f}-seed0").glob("results-*1shot*.json"))) for f in (0, 2)]
    assert first.of(0) == [r.miou for r in saved]
    means = [np.mean(first.of(seed)) for seed in (0, 1)]
    assert first.miou == pytest.approx(np.mean(means))
    assert first.deviation == pytest.approx(np.std(means, ddof=1))
    assert found.paper.columns == ("method", "shots", "fold 0", "fold 2", "mean", "sd", "FB-IoU", "trained")
    assert found.paper.rows[0][4] == f"{100 * first.miou:.2f}"
    assert [row[2] for row in found.table.rows] == ["0", "1", "mean of 2"] * 2
    rows = list(csv.DictReader((out / "cross-validation.csv").read_text().splitlines()))
    assert [row["seed"] for row in rows] == ["0", "1", "mean"] * 2
    assert (int(rows[2]["trained"]), float(rows[2]["mean"])) == (first.trained, round(100 * first.miou, 2))
    assert json.loads((out / "cross-validation.json").read_text())["title"] == found.table.title
    assert "fold 0 & fold 2 & mean" in (out / "cross-validation.tex").read_text()
    page = (out / "cross-validation.html").read_text()
    assert "Cross-validation on scenes" in page
    assert "rows with as many shots on the same episodes" in page
    assert "against the best other row" not in page, "one of as many shots there is not"

    def never(*_: object, **__: object) -> None:
        pytest.fail("what is finished was done again")

    monkeypatch.setattr(cross_validation_cells, "train", never)
    monkeypatch.setattr(cross_validation_cells, "evaluate", never)
    assert run(recipe, out, "data.fold=0,2", "train.seed=0,1", shots=(1, 2)).table == found.table
    with pytest.raises(UsageError, match="configuration differs"):
        run(recipe, out, "data.fold=0,2", "train.seed=0,1", "train.weight_decay=0.5")


@pytest.mark.slow
def test_the_values_of_an_option_are_rows_with_tests_between_them(recipe: str, tmp_path: Path) -> None:
    found = run(recipe, tmp_path / "cv", "data.fold=0", "train.seed=0,1,2", "model.dropout=0.0,0.9")
    one, other = found.lines
    assert (one.options, other.options) == ({"model.dropout": "0.0"}, {"model.dropout": "0.9"})
    assert found.paper.columns[-2:] == ("p, seeds", "p, episodes")
    assert found.paper.rows[0][-2:] == ("", "")
    over_seeds, over_episodes = other.p_values(one)
    assert over_seeds is None or 0 <= over_seeds <= 1
    assert over_episodes is not None
    assert one.p_values(one)[1] == 1
    assert (tmp_path / "cv" / "runs" / "toy-model.dropout-0.9-fold0-seed2" / "config.yaml").is_file()


def test_a_method_without_training_has_no_seeds(fewseg: Fewseg, tmp_path: Path) -> None:
    words = ("prototype", *SCENES, "model.backbone=timm/test_resnet", "model.weights=null", "model.image_size=64")
    asked = ("--out", tmp_path, "--episodes=5", "--repeats=1", "--workers=0")
    done = fewseg("cross-validate", *words, "data.fold=0,1", "train.seed=0,1", *asked)
    assert done.code == 0, done.err
    assert "prototype" in done.out
    assert len(list((tmp_path / "runs").glob("*/results-scenes-fewseg-*.json"))) == 2
    again = fewseg("cross-validate", *words, "data.fold=0,1", "train.seed=0,1", *asked)
    assert again.out == done.out
    other = fewseg("cross-validate", *words, "data.fold=0,1", "data.images=50", *asked)
    assert other.code == 2


def test_what_cannot_be_swept_is_refused_before_anything_is_trained(
    recipe: str, tmp_path: Path, fewseg: Fewseg
) -> None:
    for word, told in {
        "data.fold=0,x": "whole numbers",
        "train.seed=a": "whole numbers",
        "data.fold=9": "no fold 9",
    }.items():
        with pytest.raises(UsageError, match=told):
            run(recipe, tmp_path / "cv", word)
    assert not (tmp_path / "cv").exists()
    done = fewseg("cross-validate", recipe, *WORDS, "--shots=0", "--out", tmp_path / "cv")
    assert (done.code, "--shots '0'" in done.err) == (2, True)


def test_what_is_a_list_to_sweep() -> None:
    asked = Asked.of("a,b", ["folder", "data.root=x,y", "data.names=[a,b]", "model.weights=a,b", "data.shots=1,5"])
    assert asked.methods == ("a", "b")
    assert asked.words == ("folder", "data.root=x,y", "data.names=[a,b]", "model.weights=a,b")
    assert (asked.folds, asked.seeds, asked.options) == (None, (0,), {"data.shots": ("1", "5")})


@pytest.mark.slow
@pytest.mark.usefixtures("jobs_here")
def test_trainings_at_once_share_base_learners_and_leave_nothing_to_do(
    base_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*WORDS, *TINY, "data.fold=0", "train.lr=0.01,0.02", f"base.recipe={base_recipe}")
    found = cross_validate("bam", words, out=tmp_path, jobs=2, **DRAWN)
    assert [line.options for line in found.lines] == [{"train.lr": "0.01"}, {"train.lr": "0.02"}]
    cells = [f"bam-train.lr-{lr}-fold0-seed0.log" for lr in ("0.01", "0.02")]
    assert sorted(path.name for path in (tmp_path / "jobs").glob("*.log")) == [*cells, f"base-{cells[0]}"]
    monkeypatch.setattr(cross_validation_cells, "train", None)
    monkeypatch.setattr(cross_validation_cells, "evaluate", None)
    assert cross_validate("bam", words, out=tmp_path, **DRAWN).table == found.table
