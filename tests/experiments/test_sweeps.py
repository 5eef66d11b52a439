"""Temperature and last ReLU: sweeps over values and folds."""

from __future__ import annotations

import json

import pytest

from fewseg.config import load_config
from fewseg.errors import FewsegError, UsageError
from fewseg.experiments import Plan, run_relu, run_temperature


@pytest.mark.slow
def test_every_temperature_is_a_cell_and_a_killed_sweep_goes_on(tiny_plan, tmp_path):
    first = run_temperature(tiny_plan(tmp_path, episodes=5), values=(2.0,))
    assert first.lines[0].miou is not None
    seen = run_temperature(tiny_plan(tmp_path, episodes=5), values=(0.5, 2.0), only_table=True)
    assert [one.miou is None for one in seen.lines] == [True, False]
    assert "numbers missing: 1" in seen.table.notes[-1]
    found = run_temperature(tiny_plan(tmp_path, episodes=5), values=(0.5, 2.0))
    assert [one.setting for one in found.lines] == [("0.5",), ("2",)]
    assert found.lines[1] == first.lines[0]
    config = load_config(str(tmp_path / "cells" / "fold0-T0.5" / "config.yaml"))
    assert config.model.options["temperature"] == 0.5
    assert (tmp_path / "temperature.png").stat().st_size > 1000
    assert json.loads((tmp_path / "temperature.json").read_text())["values"] == [0.5, 2.0]


def test_wrong_temperatures_are_told(tiny_plan, tmp_path):
    with pytest.raises(UsageError, match="above 0"):
        run_temperature(tiny_plan(tmp_path), values=(0.0,))
    with pytest.raises(UsageError, match="no temperature"):
        run_temperature(Plan("scenes", out=tmp_path, words=("bam",)))


@pytest.mark.slow
def test_cells_run_at_once_share_a_base_learner_and_give_the_same_numbers(tiny_plan, base_recipe, tmp_path):
    words = ("model.base_learner=true", f"base.recipe={base_recipe}")
    together = run_temperature(tiny_plan(tmp_path / "a", *words, episodes=5, jobs=2), values=(1.0, 2.0))
    bases = {load_config(str(f)).base.run for f in (tmp_path / "a" / "cells").glob("*/config.yaml")}
    assert bases == {str(tmp_path / "a" / "fold0" / "base")}
    assert len(list((tmp_path / "a" / "cells").glob("*/report.json"))) == 2
    # given instead of trained; {fold} stands for the cell's
    given = (*words, f"base.run={tmp_path}/a/fold{{fold}}/base")
    alone = run_temperature(tiny_plan(tmp_path / "b", *given, episodes=5), values=(1.0,))
    assert alone.lines[0] == together.lines[0]
    assert not (tmp_path / "b" / "fold0").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("jobs_here")
def test_a_cell_that_fails_is_told_with_its_reason_from_its_log(tiny_plan, tmp_path):
    plan = tiny_plan(tmp_path, "train.lr=1e15", episodes=5, jobs=2)
    with pytest.raises(FewsegError, match=r"fold0-T\d failed: the loss is not finite.*\.log"):
        run_temperature(plan, values=(1.0, 2.0))


def test_a_backbone_without_a_last_relu_is_told_which_ones_have_one(tiny_plan, tmp_path):
    with pytest.raises(UsageError, match="has none; choose model"):
        run_relu(tiny_plan(tmp_path, "model.backbone=lite0"))


@pytest.mark.slow
def test_last_relu_on_and_off_by_shots(tiny_plan, tmp_path):
    words = ("model.backbone=vgg16_bn", "train.episodes_per_epoch=2")
    found = run_relu(tiny_plan(tmp_path, *words, episodes=5), shots=(2,))
    assert [one.setting for one in found.lines] == [("2", "with"), ("2", "without")]
    for name, kept in (("relu", True), ("norelu", False)):
        config = load_config(str(tmp_path / "cells" / f"fold0-2shot-{name}" / "config.yaml"))
        assert (config.model.options["last_relu"], config.data.shots) == (kept, 2)
    assert len({one.hashes for one in found.lines}) == 1
    assert "relu" in {path.stem for path in tmp_path.glob("*.pdf")}
