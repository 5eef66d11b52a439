"""The support-mask experiment and the sweep that it runs on."""

from __future__ import annotations

import json

import pytest

from fewseg.config import load_config
from fewseg.errors import DataError, FewsegError, UsageError
from fewseg.experiments import Plan, run_support_mask, sweep
from fewseg.experiments.at_once import job_environment
from fewseg.progress import Silent


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("mask") / "out"


@pytest.fixture(scope="module")
def found(out, tiny_plan):
    return run_support_mask(tiny_plan(out))


@pytest.mark.slow
def test_both_ways_are_trained_and_measured_on_simple_and_complex_scenes(found, out):
    settings = [(*one.setting, one.fold) for one in found.lines]
    assert settings == [(level, way, 0) for level in ("simple", "complex") for way in ("with", "without")]
    for way in ("with", "without"):
        config = load_config(str(out / "cells" / f"fold0-{way}" / "config.yaml"))
        assert config.model.options["support_mask"] is (way == "with")
        assert config.data.options["level"] == "mixed"
    for level in ("simple", "complex"):
        hashes = {one.hashes for one in found.lines if one.setting[0] == level}
        assert len(hashes) == 1
        one = found.drop(level)
        ways = {line.setting[1]: line.miou for line in found.lines if line.setting[0] == level}
        assert one.miou == pytest.approx(ways["with"] - ways["without"])
        assert one.interval is None  # six episodes


@pytest.mark.slow
def test_table_record_and_pictures_are_written(found, out):
    text = (out / "support-mask.csv").read_text()
    assert all(h[:16] in text for one in found.lines for h in one.hashes)
    record = json.loads((out / "support-mask.json").read_text())
    assert record["config"]["train"]["seed"] == 0
    assert record["versions"]["torch"]
    assert [s["kind"] for s in record["pictures"]] == ["simple"] * 3 + ["complex"] * 3
    assert len({s["class"] for s in record["pictures"][:3]}) == 3
    for name in ("support-mask", "support-mask-scenes"):
        assert all((out / f"{name}.{ending}").stat().st_size > 1000 for ending in ("png", "pdf"))


@pytest.mark.slow
def test_what_is_finished_is_not_repeated(found, out, tiny_plan, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("a finished cell was run again")

    monkeypatch.setattr(sweep, "train", refuse)
    monkeypatch.setattr(sweep, "evaluate", refuse)
    again = run_support_mask(tiny_plan(out))
    assert again.table == found.table


@pytest.mark.slow
def test_more_episodes_are_measured_without_training_again(found, out, tiny_plan, monkeypatch):
    monkeypatch.setattr(sweep, "train", None)
    asked = []
    open_target = sweep.open_target

    def spy(target, words, **options):
        asked.append((target.split("/")[-1], options["support_mask"]))
        return open_target(target, words, **options)

    monkeypatch.setattr(sweep, "open_target", spy)
    again = run_support_mask(tiny_plan(out, episodes=7), at_test_only=True)
    assert {one.episodes for one in again.lines} == {7}
    # one trained model, measured with and without its mask
    assert asked == [("fold0-with", True), ("fold0-with", False)] * 2
    assert "test time only" in again.table.title


@pytest.mark.slow
def test_another_configuration_is_refused_in_the_same_folder(found, out, tiny_plan):
    with pytest.raises(UsageError, match="configuration differs"):
        run_support_mask(tiny_plan(out, "train.lr=1e-3"))


@pytest.mark.slow
def test_only_the_table_shows_what_is_missing(tiny_plan, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "train", None)
    result = run_support_mask(tiny_plan(tmp_path, folds=(0, 1)), only_table=True)
    assert all(one.miou is None for one in (*result.lines, *result.drops))
    assert result.table.rows[0][3] == "missing"
    text = (tmp_path / "support-mask.csv").read_text()
    assert text.splitlines()[1].startswith("simple,with,0,,,")
    assert "numbers missing: 8" in "".join(result.table.notes)


@pytest.mark.slow
def test_what_ends_a_training_is_told_and_the_same_call_goes_on(tiny_plan, tmp_path):
    class Ending(Silent):
        def __init__(self, error):
            self.error = error

        def __call__(self, items, description, total, *, done=0):
            for item in items:
                if description.startswith("training hdmnet"):
                    raise self.error
                yield item

    plan = tiny_plan(tmp_path, "model.distill=false", episodes=5)
    for error, told in (
        (DataError("give --resume or not"), "^give --resume or not; 0 of 2 batches were done; the same command starts"),
        (KeyboardInterrupt(), "the same command goes on"),
    ):
        with pytest.raises(FewsegError, match=told):
            run_support_mask(plan, at_test_only=True, progress=Ending(error))
    assert (tmp_path / "cells" / "fold0-with" / "config.yaml").is_file()
    result = run_support_mask(plan, at_test_only=True)
    assert all(one.miou is not None for one in result.lines)


def test_methods_without_the_switch_and_too_many_repeats_are_told_before_training(tiny_plan, tmp_path):
    with pytest.raises(UsageError, match="this experiment is HDMNet's"):
        run_support_mask(Plan("scenes", out=tmp_path, words=("prototype",)))
    with pytest.raises(UsageError, match="has 5 seeds"):
        run_support_mask(tiny_plan(tmp_path, repeats=6))
    assert not list(tmp_path.iterdir())


def test_jobs_divide_threads_and_devices(monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: 8)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    environments = [job_environment(slot, 3) for slot in range(3)]
    assert [e["OMP_NUM_THREADS"] for e in environments] == ["2", "2", "2"]
    assert [e["CUDA_VISIBLE_DEVICES"] for e in environments] == ["4", "6", "4"]
