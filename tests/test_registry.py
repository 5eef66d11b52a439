"""Models and data sets by name: those of the package, registered ones, dotted paths."""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fewseg import registry
from fewseg.config import load_config
from fewseg.data.sets.scenes import Scenes
from fewseg.errors import UsageError, suggest
from fewseg.models.base import FewShotSegmenter
from fewseg.models.prototype import Prototype
from fewseg.storage.hub import from_pretrained
from fewseg.storage.saved import save_model
from helpers import Fewseg, tiny_model


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


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module in the working directory that leaves a file where its code is run."""
    (tmp_path / "fewseg_stranger").mkdir()
    (tmp_path / "fewseg_stranger" / "__init__.py").touch()
    (tmp_path / "fewseg_stranger" / "extra.py").write_text(
        "from pathlib import Path\nfrom fewseg.data.sets.scenes import Scenes\n"
        "from fewseg.models.prototype import Prototype\nPath('ran').touch()\n"
        "class Data(Scenes):\n    name = 'strange'\nclass Method(Prototype):\n    name = 'strange'\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(registry.PLUGINS, "")  # so that what is loaded now is forgotten after the test
    monkeypatch.setattr(registry, "_LOADED", {})
    monkeypatch.setattr(registry, "_REGISTERED", {"model": {}, "source": {}})
    yield "fewseg_stranger.extra"
    for name in [name for name in sys.modules if name.startswith("fewseg_stranger")]:
        del sys.modules[name]


def shared_model(folder: Path, **said: str) -> Path:
    """A folder as others share it, which names a class of theirs."""
    save_model(tiny_model("prototype"), folder)
    record = json.loads((folder / "fewseg.json").read_text())
    del record["checksum"]  # whoever forges the record forges its checksum too
    (folder / "fewseg.json").write_text(json.dumps(record | said))
    return folder


def test_a_saved_model_runs_no_code_of_its_own(stranger: str, tmp_path: Path, fewseg: Fewseg) -> None:
    folder = shared_model(tmp_path / "shared", method="strange", **{"class": f"{stranger}:Method"})
    with pytest.raises(UsageError, match=f"fewseg.json names the class {stranger}:Method.*--plugin {stranger}"):
        from_pretrained(folder)
    shared_model(tmp_path / "other", method=f"{stranger}:Method", **{"class": f"{stranger}:Method"})
    result = fewseg("evaluate", tmp_path / "other", "scenes")
    assert (result.code, f"names the class {stranger}:Method" in result.err) == (2, True)
    assert not (tmp_path / "ran").exists()
    importlib.import_module(stranger)  # in Python, this says that the code is wanted
    assert from_pretrained(folder).name == "strange"


@pytest.mark.parametrize(
    "text",
    [
        "data: {name: 'MODULE:Data'}",
        "model: {name: 'MODULE:Method'}",
        "data: {name: scenes}\nwhen: {scenes: {model: {name: 'MODULE:Method'}}}",
    ],
)
def test_a_recipe_runs_no_code(text: str, stranger: str, tmp_path: Path, fewseg: Fewseg) -> None:
    (tmp_path / "recipe.yaml").write_text(text.replace("MODULE", stranger))
    result = fewseg("train", "recipe.yaml", "--show")
    assert (result.code, "recipe.yaml names the class" in result.err) == (2, True)
    assert not (tmp_path / "ran").exists()


def test_a_recipe_s_class_is_taken_where_its_module_is_a_plugin(stranger: str, tmp_path: Path, fewseg: Fewseg) -> None:
    (tmp_path / "recipe.yaml").write_text(f"model: {{name: '{stranger}:Method'}}")
    assert fewseg("train", "recipe.yaml", "--show", "--plugin", stranger).code == 0
    assert (tmp_path / "ran").exists()


def test_a_class_that_the_user_names_needs_no_more_words(stranger: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(f"model: {{name: '{stranger}:Method'}}")
    assert load_config("recipe.yaml", "scenes", f"model.name={stranger}:Method").model.name == f"{stranger}:Method"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("", "", "--plugin needs a Python file"),
        ("a:B", "", "'a:B' is no plugin"),
        ("no.such.module", "", "cannot import the plugin no.such.module: ModuleNotFoundError"),
        ("absent.py", "", "there is no file"),
        ("my-method.py", "", "'.*my-method.py' is no plugin"),
        ("a.py,b.py", "", f"of several, --plugin once for each, or FEWSEG_PLUGINS with '{os.pathsep}' between"),
        ("json.py", "", "has the name of another module"),
        ("bare.py", "x = 1", "holds neither a method, a data set"),
        ("ends.py", "raise SystemExit(0)", "cannot import the plugin .*ends.py: SystemExit"),
        (
            "twin.py",
            "from fewseg.models.prototype import Prototype\nclass T(Prototype):\n    name = 'lite'",
            "a model 'lite'",
        ),
        ("nothing.py", "from fewseg.models.prototype import Prototype", "holds neither"),
    ],
)
def test_what_is_no_plugin_is_refused(
    name: str, text: str, said: str, stranger: str, tmp_path: Path, fewseg: Fewseg
) -> None:
    if name.endswith(".py") and name != "absent.py":
        (tmp_path / name).write_text(text)
    result = fewseg("models", "--plugin", *filter(None, [name]))
    assert (result.code, bool(re.search(said, result.err.replace("\n", " ")))) == (2, True), result.err
    assert os.environ[registry.PLUGINS] == ""


def test_a_fault_in_a_plugin_is_told_as_the_plugin_s(
    stranger: str, tmp_path: Path, fewseg: Fewseg, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sources.py").write_text(
        "from fewseg.data.sets.scenes import Scenes\n"
        "class Mine(Scenes):\n"
        "    name = 'mine'\n"
        "    def fold(self, index): raise KeyError('surprise')\n"
    )
    result = fewseg("data", "stats", "mine", "--plugin", "sources.py")
    assert (result.code, "fault of fewseg" in result.err) == (1, False), result.err
    assert re.search(r"'surprise' \(in the plugin .*sources\.py, line 4,", result.err), result.err

    def broken(*_: object, **__: object) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr("fewseg.config.recipes", broken)
    assert "fault of fewseg, or of the plugin" in fewseg("models", "--plugin", "sources.py").err


def test_a_module_that_ends_the_process_is_told() -> None:
    with pytest.raises(UsageError, match="cannot import model"):
        registry.find("model", "unittest.__main__:x")


@pytest.mark.parametrize(
    ("given", "told"), [("cta", "'cat'"), ("voc", "'voc2012'"), ("automobile", ""), ("tiolet", "'toilet'")]
)
def test_a_suggestion_is_a_slip_or_a_beginning_away(given: str, told: str) -> None:
    assert told in suggest(given, ["toilet", "cat", "voc2012", "bottle"])
    assert bool(told) == bool(suggest(given, ["toilet", "cat", "voc2012", "bottle"]))
