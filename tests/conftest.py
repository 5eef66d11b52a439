"""Fixtures of all tests: one thread, kept memory, and the shared data where it is there.

What takes seconds to import is imported where it is used: the process that only hands out tests need not wait for it.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from fewseg.experiments import Plan
    from helpers import Fewseg, Toy

# here and in the processes that tests start: another number adds in another order, which changes the last bits. Before
# anything that imports torch, as the folders' own fixtures do
os.environ["OMP_NUM_THREADS"] = "1"

TINY_PLAN = """
model: {name: hdmnet, backbone: timm/test_resnet, weights: null, image_size: 64, base_learner: false}
data: {images: 60, size: 64, level: mixed, novel: ignore}
train: {epochs: 1, episodes_per_epoch: 4, batch_size: 2, workers: 0, validation: none}
"""
SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_configure(config: pytest.Config) -> None:
    settings.register_profile("same", derandomize=True, deadline=None)
    settings.load_profile("same")


@pytest.fixture(scope="session", autouse=True)
def kept_memory() -> None:
    """As the command line keeps it."""
    from fewseg.runtime.heap import keep_freed_memory

    keep_freed_memory()


@pytest.fixture(scope="session")
def voc_mini() -> Path:
    """The directory of real VOC photos, given by FEWSEG_VOC_MINI or lying beside the checkout."""
    root = Path(os.environ.get("FEWSEG_VOC_MINI", SHARED / "data" / "voc_mini"))
    if not (root / "VOC2012").is_dir():
        pytest.skip(f"needs the real photos of voc_mini, not found in {root} (set FEWSEG_VOC_MINI)")
    return root


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> type[Toy]:
    """The toy method, registered under its name."""
    from fewseg import registry
    from helpers import Toy

    monkeypatch.setattr(registry, "_REGISTERED", {"model": {"toy": Toy}, "source": {}})
    return Toy


@pytest.fixture(scope="session")
def documented(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The module that docs/add-a-method.md shows."""
    from helpers import page_block

    folder = tmp_path_factory.mktemp("documented")
    (folder / "nearest_mean.py").write_text(page_block("add-a-method.md", "python"))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield importlib.import_module("nearest_mean")


@pytest.fixture
def nearest_mean(documented: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The method of that page, registered."""
    from fewseg import registry

    monkeypatch.setattr(registry, "_REGISTERED", {kind: {**known} for kind, known in registry._REGISTERED.items()})
    registry.register("model", documented.NearestMean)


@pytest.fixture
def fewseg(capsys: pytest.CaptureFixture[str]) -> Fewseg:
    """The command line, its output from here on."""
    from helpers import Fewseg

    capsys.readouterr()
    return Fewseg(capsys)


@pytest.fixture(scope="session")
def base_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe of a base learner that trains in a second."""
    from helpers import BASE_RECIPE

    path = tmp_path_factory.mktemp("recipe") / "base.yaml"
    path.write_text(BASE_RECIPE)
    return path


@pytest.fixture(scope="session")
def tiny_recipe(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(TINY_PLAN)
    return path


@pytest.fixture(scope="session")
def tiny_plan(tiny_recipe):
    """Makes a plan on scenes: HDMNet without a base learner on a tiny back-end, one fold, six test episodes."""
    from fewseg.experiments import Plan

    def make(out: Path, *words: str, **changes) -> Plan:
        settings = {"folds": (0,), "episodes": 6, "workers": 0}
        return Plan("scenes", out=out, words=(str(tiny_recipe), *words), **(settings | changes))

    return make
