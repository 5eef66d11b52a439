"""The pages of docs do what they say."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fewseg import FewShotPredictor, registry
from fewseg.config import load_config
from fewseg.errors import UsageError
from fewseg.evaluation.benchmark import Benchmark
from fewseg.evaluation.evaluate import evaluate
from fewseg.models.in_use import in_use
from fewseg.storage.opening import open_target
from fewseg.training.loop import train
from helpers import SHORT, TINY, Fewseg, Result, compared, page_block, scene

WORDS = ("scenes", "data.images=40", "data.size=64", *TINY)
BRIEF = (*SHORT, "train.epochs=1", "train.validation=none")


@pytest.fixture
def page(nearest_mean: None, tmp_path: Path) -> Path:
    """The page's YAML in a directory of its own, its method registered; the package is not edited."""
    (tmp_path / "nearest-mean.yaml").write_text(page_block("add-a-method.md", "yaml"))
    return tmp_path


@pytest.mark.slow
def test_a_method_added_as_the_page_says_trains_evaluates_and_is_compared(page: Path) -> None:
    words = (str(page / "nearest-mean.yaml"), *WORDS, *BRIEF)
    run = train(load_config(*words), page / "run")
    still = train(load_config(*words, "train.lr=0"), page / "still")
    trained, untrained = (load_file(r / "last" / "model.safetensors")["project.weight"] for r in (run, still))
    assert (trained - untrained).abs().max() > 1e-4
    entries = compared([str(run), "prototype"], WORDS, episodes=5, repeats=1, workers=0)
    assert [e.name for e in entries] == ["nearest-mean", "prototype"]
    opened = open_target(str(run), [])
    report = evaluate(opened.model, Benchmark.of(opened, episodes=5, repeats=1), workers=0)
    assert report.miou == entries[0].results.miou
    assert report.repeats[0].episode_sha256 == entries[1].results.repeats[0].episode_sha256
    assert 0 <= report.miou <= 1


def test_a_method_is_found_by_its_path_too(page: Path) -> None:
    config = load_config(*WORDS, *BRIEF, "model.name=nearest_mean:NearestMean", "model.width=8")
    assert config.model.options["width"] == 8


@pytest.mark.slow
def test_a_method_in_a_folder_of_one_s_own(tmp_path: Path, fewseg: Fewseg, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(registry.PLUGINS, "")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "nearest_mean_of_mine.py").write_text(page_block("add-a-method.md", "python"))
    (mine / "nearest-mean.yaml").write_text(page_block("add-a-method.md", "yaml"))
    plugin = ("--plugin", mine / "nearest_mean_of_mine.py")

    def alone(*words: object) -> Result:
        """A command as if it were the first of its process."""
        monkeypatch.setattr(registry, "_LOADED", {})
        monkeypatch.setattr(registry, "_REGISTERED", {"model": {}, "source": {}})
        monkeypatch.setenv(registry.PLUGINS, "")
        monkeypatch.delitem(sys.modules, "nearest_mean_of_mine", raising=False)
        return fewseg(*words)

    for words in (
        ["init", "-q"],
        ["add", "mine"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "mine"],
    ):
        subprocess.run(["git", *words], check=True, cwd=tmp_path)
    run = tmp_path / "run"
    trained = alone("train", "nearest-mean", *WORDS, *BRIEF, "--out", run, *plugin)
    assert trained.code == 0, trained.err
    assert "nearest-mean" in alone("models", *plugin).out
    for words in (("evaluate", run), ("rerun", run), ("export", run, "--onnx", "graphs")):
        result = alone(*words)
        assert (result.code, f"--plugin {mine / 'nearest_mean_of_mine.py'}" in result.err) == (2, True), result.err
    short = ("--episodes", 2, "--repeats", 1, "--workers", 0)
    first = alone("evaluate", run, *short, *plugin)
    assert (first.code, "is not what it was" in first.err) == (0, False), first.err
    assert alone("rerun", run, *plugin).code == 0
    assert alone("compare", run, *short, "--out=c.html", *plugin).code == 0
    assert alone("report", run, *short, "--out=r.html", *plugin).code == 0
    for command in (f"compare {run} ", f"report {run} ", "train nearest-mean ", "rerun "):
        pages = Path("c.html").read_text() + Path("r.html").read_text()
        assert re.search(f"fewseg {command}[^<\\n]*--plugin {plugin[1]}<", pages), command
    with plugin[1].open("a") as file:
        file.write("# another day\n")
    second = alone("evaluate", run, *short, *plugin)
    assert (second.code, "is not what it was when" in second.err) == (0, True), second.err
    again = alone("rerun", run, "--out", tmp_path / "again", *plugin)
    assert "nearest_mean_of_mine.py" in again.out + again.err
    assert "uncommitted changes of the project none, now " in again.out + again.err
    record = json.loads((run / "run.json").read_text())
    assert (record["project"]["dirty"], len(record["project"]["commit"])) == (False, 40)
    assert record["sources"]["nearest_mean_of_mine"] == record["plugins"][0]["sha256"]
    assert record["packages"]["torch"]


@pytest.mark.slow
def test_the_contract_of_a_method_outside_the_package_is_checked_as_the_page_says(tmp_path: Path) -> None:
    """With the name of the page's method, which the tests register too, in a file of another name."""
    page, file = Path(__file__).parents[1] / "docs" / "add-a-method.md", tmp_path / "mean_of_mine.py"
    line = re.search(r"`FEWSEG_PLUGINS=PATH/nearest_mean.py pytest ([^`]+)`", page.read_text())
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *line[1].split()]  # type: ignore[index]
    environment = os.environ | {registry.PLUGINS: str(file)}
    root = Path(__file__).parents[1]
    how: dict[str, Any] = {"cwd": root, "env": environment, "capture_output": True, "text": True, "timeout": 600}

    def tested(*words: str, change: tuple[str, str] = ("", "")) -> Any:
        file.write_text(page_block("add-a-method.md", "python").replace(*change))
        return subprocess.run([*command, *words], check=False, **how)

    done = tested()
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 20  # type: ignore[index]
    assert (
        tested("-k", "prototype", "--collect-only").returncode == pytest.ExitCode.NO_TESTS_COLLECTED
    )  # it is no method of the file
    broken = tested("-x", "-k", "any_image_size", change=("resize_ac(logits, size)", "logits[:, :1]"))
    assert broken.returncode == pytest.ExitCode.TESTS_FAILED, broken.stdout[-3000:]


@pytest.fixture
def named_mean(page: Path, documented: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The page's method that is told the names."""
    text = (
        (Path(__file__).parents[1] / "docs" / "add-a-method.md").read_text().partition("## What the class is called")[2]
    )
    (page / "named_mean.py").write_text(text.partition("```python\n")[2].partition("```")[0])
    monkeypatch.syspath_prepend(page)
    monkeypatch.delitem(sys.modules, "named_mean", raising=False)
    monkeypatch.setenv(registry.PLUGINS, "")  # put back at the end: processes that are started load what it names
    registry.load_plugin(str(page / "named_mean.py"))
    yield
    registry._LOADED.pop(str(page / "named_mean.py"))
    sys.modules.pop("named_mean", None)


@pytest.mark.slow
def test_a_method_is_told_what_its_classes_are_called(
    named_mean: None, page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="The method 'named-mean' is known but has no recipe"):
        load_config("named-mean", *WORDS)
    words = (str(page / "nearest-mean.yaml"), "model.name=named-mean", *WORDS, *BRIEF)
    run = train(load_config(*words, "train.cache_features=true"), page / "run")
    opened = open_target(str(run), [])
    benchmark = Benchmark.of(opened, episodes=6, repeats=1, shots=2)
    assert opened.model.class_names == benchmark.source.class_names
    scheduled, plain = (evaluate(opened.model, benchmark, workers=0, plain=p) for p in (False, True))
    np.testing.assert_allclose(scheduled.tables[0], plain.tables[0], atol=2)
    flipped = evaluate(in_use(opened.model, flip=True), benchmark, workers=0, batch_size=2)
    assert 0 <= flipped.miou <= 1
    episode = benchmark.dataset(64)[0].episode
    with torch.no_grad():
        before = opened.model(episode).logits
        encoded = opened.model.encode_support(episode.support_images, episode.support_masks, episode.class_id)
        assert encoded["class_id"].tolist() == [[int(episode.class_id)] * 2]
        opened.model.name_classes([f"other {name}" for name in benchmark.source.class_names])
        assert (opened.model(episode).logits != before).any()  # the names say something
    with pytest.raises(UsageError, match="cannot look twice"):
        in_use(opened.model, refine="fast")
    (image, mask), (query, _) = scene(), scene(size=(90, 70), box=(20, 10, 60, 50))
    predictor = FewShotPredictor(opened.model)
    predictor.set_support({"leaf": ([image], [mask]), "wheel": ([image], [mask])})
    leaf, wheel = (result.proba for result in predictor.predict_each(query).values())
    assert (leaf != wheel).any()
