"""docs/add-a-dataset.md does what it says."""

import sys
from pathlib import Path

import pytest

import trees
from fewseg import registry
from fewseg.config import load_config
from fewseg.data.inspect.check import check_source
from fewseg.data.inspect.stats import fold_statistics
from fewseg.data.source import ImageSource
from fewseg.errors import UsageError
from fewseg.evaluation.benchmark import Benchmark
from fewseg.evaluation.evaluate import evaluate
from fewseg.storage.opening import open_target
from helpers import TINY, page_block


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rows = ["image,labels,subset"]
    for subset in ("train", "test"):
        images = trees.many([1, 2, 3, 4], 4, prefix=subset)
        trees.write_labels(tmp_path, images, classes=["one", "two", "three", "four"])
        rows += [f"images/{name}.jpg,labels/{name}.png,{subset}" for name in images]
    (tmp_path / "table.csv").write_text("\n".join(rows))
    return tmp_path


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "table_source.py").write_text(page_block("add-a-dataset.md", "python"))
    (tmp_path / "table.yaml").write_text(page_block("add-a-dataset.md", "yaml"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_REGISTERED", {"model": {}, "source": {}})
    registry.register("source", __import__("table_source").Table)
    yield str(tmp_path / "table.yaml")
    sys.modules.pop("table_source")


def test_a_data_set_added_as_the_page_says_is_checked_counted_and_evaluated(root: Path, added: str) -> None:
    train, test = (registry.create("source", "table", root=str(root), subset=subset) for subset in ("train", "test"))
    assert isinstance(train, ImageSource)
    assert check_source(train) == []
    numbers = [(f["fold"], f["train_drop"], f["test"]) for f in fold_statistics(train, test)]
    assert numbers == [(0, 8, 8), (1, 8, 8)]
    config = load_config(added, f"data.root={root}", "data.folds=2", "data.fold=1")
    assert config.data.options["folds"] == 2
    opened = open_target("prototype", [added, f"data.root={root}", *TINY])
    report = evaluate(opened.model, Benchmark.of(opened, episodes=6, repeats=1), workers=0)
    assert 0 <= report.miou <= 1


def test_its_dotted_path_is_enough(root: Path, added: str) -> None:
    source = registry.create("source", "table_source:Table", root=str(root))
    assert source.fold(1).novel == (3, 4)


def test_without_a_recipe_its_name_is_told_how_it_is_given(root: Path, added: str) -> None:
    with pytest.raises(UsageError, match="The data set 'table' is known but has no recipe"):
        load_config("prototype", "table")
    assert load_config("prototype", "data.name=table", f"data.root={root}").data.name == "table"
