"""Models and data sets by name: those of the package, registered ones, dotted paths."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fewseg import registry
from fewseg.data.sets.scenes import Scenes
from fewseg.errors import UsageError
from fewseg.models.base import FewShotSegmenter
from fewseg.models.prototype import Prototype


def test_the_package_is_found_without_a_list() -> None:
    assert {"hdmnet", "bam", "pfenet", "hsnet", "prototype", "dense"} <= set(registry.classes("model"))
    assert {"pascal5i", "folder", "scenes"} <= set(registry.classes("source"))
    assert all(issubclass(cls, FewShotSegmenter) for cls in registry.classes("model").values())
    # the protocol class itself and what modules import from each other are no data sets
    assert all(cls.name == name for name, cls in registry.classes("source").items())


@pytest.mark.parametrize(
    ("kind", "name", "close"), [("model", "hdmnett", "hdmnet"), ("source", "pascal-5i", "pascal5i")]
)
def test_an_unknown_name_lists_the_known_ones_and_suggests(kind: registry.Kind, name: str, close: str) -> None:
    with pytest.raises(UsageError, match=f"Did you mean '{close}'") as caught:
        registry.find(kind, name)
    assert all(known in str(caught.value) for known in registry.classes(kind))


def test_nothing_close_suggests_nothing() -> None:
    assert registry.suggest("qqqqqq", ["hdmnet"]) == ""


def test_a_wrong_option_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UsageError, match=r"no option 'imags'.*Did you mean 'images'"):
        registry.create("source", "scenes", imags=3)
    assert registry.create("source", "scenes", images=3).images == 3


def test_a_class_of_elsewhere_is_registered_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTERED", {"model": {}, "source": {}})

    class Ours(Prototype):
        name = "ours"

    assert registry.register("model", Ours) is Ours
    assert registry.find("model", "ours") is Ours
    assert "ours" in registry.classes("model")


def test_a_dotted_path_names_a_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fewseg_test_plugin.py").write_text(
        "from fewseg.data.sets.scenes import Scenes\nclass Drawn(Scenes):\n    name = 'drawn'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    source = registry.create("source", "fewseg_test_plugin:Drawn", images=2)
    assert isinstance(source, Scenes)
    assert source.name == "drawn"
    monkeypatch.delitem(sys.modules, "fewseg_test_plugin")


@pytest.mark.parametrize("name", ["no.such.module:X", "fewseg.models.hdmnet:HDMNett", ":", "fewseg:", ":X", "..:X"])
def test_a_dotted_path_that_leads_nowhere(name: str) -> None:
    with pytest.raises(UsageError, match=r"package\.module:Class"):
        registry.find("model", name)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("model", "subprocess:Popen"),
        ("model", "fewseg.data.sets.scenes:Scenes"),
        ("model", "os:getcwd"),
        ("source", "subprocess:Popen"),
        ("source", "fewseg.models.hdmnet:HDMNet"),
    ],
)
def test_a_dotted_path_to_something_else_is_refused(kind: registry.Kind, name: str) -> None:
    # a saved model's JSON may name a class: it must not be able to start a program
    with pytest.raises(UsageError, match=f"is no {kind}"):
        registry.find(kind, name)
