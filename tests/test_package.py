"""What a user gets from `import fewseg`: public names, the version, types, and no waiting."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

import fewseg
from fewseg import registry
from fewseg.errors import install_line

PACKAGE = Path(fewseg.__file__).parent
ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("name", fewseg.__all__)
def test_every_public_name_is_there(name):
    assert getattr(fewseg, name).__name__ == name


def test_every_method_is_a_public_name():
    methods = {cls.__name__ for cls in registry.classes("model").values() if cls.__module__.startswith("fewseg.")}
    assert methods <= set(fewseg.__all__)


def test_dir_lists_the_public_names_and_the_version_is_there():
    assert {*fewseg.__all__} <= set(dir(fewseg))
    assert fewseg.__version__ == version("fewseg")


def test_an_unknown_name_is_told():
    with pytest.raises(AttributeError, match="HDMNett"):
        fewseg.HDMNett  # noqa: B018


def test_types_come_along():
    assert (PACKAGE / "py.typed").is_file()


@pytest.mark.skipif(not (ROOT / ".git").exists() or not shutil.which("git"), reason="no clone of the repository")
def test_the_source_distribution_holds_the_whole_repository():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    kept = {name.split("/")[0] for name in files.splitlines()}
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["sdist"]
    always = {"pyproject.toml", ".gitignore"}  # hatch adds them itself
    assert {name.removeprefix("/") for name in build["include"]} == kept - always


def test_the_version_stands_once_and_what_repeats_it_agrees():
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\nversion: {wanted}\n" in (ROOT / "CITATION.cff").read_text()
    changes = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert changes[0] == wanted
    assert len(changes) == len({*changes})


def test_workflows_may_only_read_and_pin_what_they_use():
    for file in (ROOT / ".github" / "workflows").glob("*.yml"):
        text = file.read_text()
        assert "\npermissions:\n  contents: read\n" in text
        assert all(re.fullmatch(r"actions/[\w-]+@v\d+", used) for used in re.findall(r"uses: (\S+)", text))


def test_the_image_installs_what_make_light_does_from_all_that_a_wheel_needs():
    lines = [line.split() for line in (ROOT / "Dockerfile").read_text().splitlines() if line]
    installed = [words for word, *words in lines if word == "RUN" and "install" in words]
    assert [words[-1] for words in installed] == ['"/fewseg[serve]"']  # nothing besides
    light = (ROOT / "Makefile").read_text().split("\nlight:")[1].split("\n\n")[0]
    assert "-m pip install --quiet .\n" in light
    assert "-m pip install --quiet '.[serve]'\n" in light
    copied = {name for word, *names in lines if word == "COPY" and "--from=build" not in names for name in names[:-1]}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    needed = {project["project"]["readme"], *project["project"]["license-files"], *(p.split("/")[0] for p in packages)}
    assert copied == {"pyproject.toml", *needed}
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    assert copied == {line[1:] for line in ignored if line.startswith("!")}


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (None, "pip install 'fewseg[serve]'"),
        ({"url": "https://index/fewseg.whl", "archive_info": {}}, "pip install 'fewseg[serve]'"),
        ({"url": "{uri}", "dir_info": {}}, "pip install '{folder}[serve]'"),
        ({"url": "{uri}", "dir_info": {"editable": True}}, "pip install -e '{folder}[serve]'"),
        ({"url": "{uri}/gone", "dir_info": {}}, "pip install 'fewseg[serve]'"),
    ],
)
def test_what_to_install_is_told_from_where_it_came(said, line, tmp_path, monkeypatch):
    folder = tmp_path / "a clone"
    folder.mkdir()

    class Installed:
        def read_text(self, name: str) -> str | None:
            return said and json.dumps(said).replace("{uri}", folder.as_uri())

    monkeypatch.setattr("importlib.metadata.distribution", lambda name: Installed())
    assert install_line("serve") == line.replace("{folder}", str(folder))


def test_the_package_runs_as_a_module_and_tells_its_version_without_waiting_for_torch():
    code = (
        "import runpy, sys, fewseg; fewseg.UsageError; sys.argv[1:] = ['--version']\n"
        "try: runpy.run_module('fewseg', run_name='__main__')\n"
        "except SystemExit as end: print(end.code, sorted({'torch', 'numpy'} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    first, second, last = printed.splitlines()
    assert (first, last) == (f"fewseg {fewseg.__version__}", "0 []")
    assert second.startswith(f"segments with graphs (onnxruntime {version('onnxruntime')}) for shipped and exported")
    assert second.endswith(f"torch {version('torch')} for all others")
