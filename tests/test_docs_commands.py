"""Every command that README and docs show runs as it stands there, page by page, on drawn data and with small budgets.

What cannot run here is listed with the reason: a command that neither runs nor is listed fails its page.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from docs_shell import BRIEF, Shell, World, blocks, commands
from fewseg import registry
from fewseg.config import load_config
from fewseg.storage.saved import save_model
from fewseg.training.loop import train
from helpers import BASE_RECIPE, TINY, Fewseg, tiny_model
from stand_ins import write_data_sets, write_far_pictures, write_photos

ROOT = Path(__file__).resolve().parents[1]
PAGES = {str(page.relative_to(ROOT)): page for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]}
NOT_RUN = {
    r"pip install .*": "an installation; .ci/run makes two",
    r"make .*": ".ci/run makes test; the demo takes minutes; tests/test_docs_site.py builds docs",
    r"docker .*": "there is no daemon",
    r"torchrun .*|srun .*|.* train\.devices=2": "several processes; tests/runtime/test_beside.py starts them",
    r".*fewseg serve.*|fewseg web .*": "runs until it is stopped; tests/server and tests/web ask it",
    r"fewseg data download .*": "gigabytes; tests/data/test_download.py fetches from this machine",
    r"fewseg convert .*": "the papers' weights; tests/storage/test_released.py has files of their shapes",
    r".* s3://.*": "a store; tests/segment/test_remote.py has one on this machine",
    r"fewseg teach .* --adapt": "minutes of training; tests/cli/test_teach_command.py has a small recipe",
    r".*\[wandb,mlflow\].*": "not installed; tests/training/test_optimising.py stands in for them",
    r"fewseg experiment relu .*": "needs a ResNet-50 or VGG; tests/experiments/test_sweeps.py",
    r"fewseg export MODEL --onnx exported/?": "seconds of tracing; tests/storage/test_onnx_graphs.py has a small model",
    r".* coco20i data\.root=DIR .* --plan": "gigabytes; tests/evaluation/test_rehearsal.py plans on less",
    r"fewseg train lite-mix .* data\.novel_classes=.*": "the stand-ins lack them; see tests/data/sets/test_mix.py",
    r"fewseg export runs/kept --slim .*|fewseg evaluate kept .*": "on another back-end; tests/storage/test_saved.py",
    r"fewseg train METHOD .*|fewseg data stats NAME .*": "a pattern, not a command",
}
"""Commands that cannot run here, and why."""
FILES = {
    "docs/add-a-dataset.md": {"my_data.py": ("python", 0), "table.yaml": ("yaml", 0)},
    "docs/add-a-method.md": {
        "nearest_mean.py": ("python", 0),
        "named_mean.py": ("python", 1),
        "nearest-mean.yaml": ("yaml", 0),
    },
    "docs/follow-a-training.md": {"logs.py": ("python", 0)},
    "docs/several-data-sets.md": {"mine.yaml": ("yaml", 0)},
}
"""Files that a page shows: their language, and which of its blocks they are."""
ELSEWHERE = {
    ("docs/experiments.md", 0): "trains for minutes; tests/experiments makes such plans",
    ("docs/many-machines.md", 0): "Ray is not installed; tests/segment/test_shards.py",
    ("docs/own-photos.md", 1): "the hub; tests/storage/test_hub.py stands in for it",
    ("docs/server.md", 0): "tests/server/test_api.py has a server to ask",
}
"""Python of a page, by its number there, that is run by another test."""
PYTHON = [("README.md", 0), ("docs/own-photos.md", 0), ("docs/add-a-method.md", 2)]
"""Python of a page that runs here."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    write_photos(folder / "photos")
    write_far_pictures(folder / "photos")
    recipe = folder / "photos" / "base.yaml"
    recipe.write_text(BASE_RECIPE)
    data = write_data_sets(folder / "data")
    words = ("hdmnet", "pascal5i", f"data.root={data['pascal5i']}", *TINY, *BRIEF, f"base.recipe={recipe}")
    run = train(load_config(*words), folder / "run")
    return World(folder / "photos", data, run, save_model(tiny_model("dense"), folder / "model"))


@pytest.fixture
def shell(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fewseg: Fewseg) -> Shell:
    shutil.copytree(world.photos, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_LOADED", {})
    monkeypatch.setattr(registry, "_REGISTERED", {"model": {}, "source": {}})
    monkeypatch.setenv(registry.PLUGINS, "")
    # the page writes a module that other tests have imported from elsewhere
    monkeypatch.setitem(sys.modules, "nearest_mean", ModuleType("nearest_mean"))
    monkeypatch.delitem(sys.modules, "nearest_mean")
    monkeypatch.setattr(sys, "path", [p for p in sys.path if not Path(p, "nearest_mean.py").is_file()])
    return Shell(fewseg, world)


def runs_here(command: str) -> bool:
    return not any(re.fullmatch(pattern, command) for pattern in NOT_RUN)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if any(map(runs_here, commands(page)))])
def test_the_commands_of_a_page_run(name: str, shell: Shell) -> None:
    for file, (language, n) in FILES.get(name, {}).items():
        Path(file).write_text(blocks(PAGES[name], language)[n])
    for command in filter(runs_here, commands(PAGES[name])):
        shell.run(command)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "n"), PYTHON)
def test_the_python_of_a_page_runs(name: str, n: int, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "show", lambda image: None)
    found: dict[str, Any] = {}
    code = blocks(PAGES[name], "python")[n]
    if "runs/mine" in code:
        shutil.copytree(shell.world.run, "runs/mine")
    exec(code.replace('"DIR"', repr(str(shell.world.data["pascal5i"]))), found)
    assert found["mask" if "mask" in found else "found"] is not None


def test_whatever_a_page_shows_is_run_or_listed() -> None:
    shown = {command for page in PAGES.values() for command in commands(page)}
    unused = [pattern for pattern in NOT_RUN if not any(re.fullmatch(pattern, command) for command in shown)]
    assert not unused, "listed as not run, and on no page"
    python = {(name, n) for name, page in PAGES.items() for n, _ in enumerate(blocks(page, "python"))}
    files = {(name, n) for name, shown in FILES.items() for kind, n in shown.values() if kind == "python"}
    assert python == {*PYTHON, *files, *ELSEWHERE}
