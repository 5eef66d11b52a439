"""Nothing that is given to a command is ever written to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from fewseg.models.prototype import Prototype
from fewseg.storage.saved import save_model
from helpers import SCENES, TINY, Fewseg

FEW = ("--workers", 0)


@pytest.fixture
def listed(fewseg: Fewseg, tmp_path: Path) -> Path:
    file = tmp_path / "list.csv"
    assert fewseg("data", "episodes", *SCENES, "--episodes", 4, "--out", file).code == 0
    return file


@pytest.mark.parametrize(
    "words",
    [
        ("evaluate", "prototype", "--out", "list.json"),
        ("evaluate", "prototype", "--protocol", "fewseg-generalised", "--out", "list.csv"),
        ("compare", "prototype", "dense", "--out", "new.html", "--out", "list.csv"),
    ],
)
def test_the_list_that_is_read_is_kept(words: tuple[str, ...], listed: Path, fewseg: Fewseg) -> None:
    text = listed.read_bytes()
    command, *others = words
    names = [str(listed.parent / word) if "." in word else word for word in others]
    result = fewseg(command, *names[:1], *SCENES, *TINY, *names[1:], "--episodes-file", listed, *FEW)
    assert result.code == 2
    assert "list.csv" in result.err
    assert "another name" in result.err
    assert listed.read_bytes() == text


@pytest.mark.slow
def test_every_evaluation_of_a_run_stays(fewseg: Fewseg, tmp_path: Path) -> None:
    torch.manual_seed(0)
    run = save_model(Prototype(backbone="timm/test_resnet", image_size=64), tmp_path / "run")
    for words in ((), ("--protocol", "hdmnet"), ("--shots", 2), ("--flip",), ("data.fold=1",)):
        result = fewseg("evaluate", run, *SCENES, "--episodes", 2, "--repeats", 1, *words, *FEW)
        assert result.code == 0, result.err
    assert len(list(run.glob("results-*.json"))) == 5


def test_a_list_of_another_number_of_shots_is_told(listed: Path, fewseg: Fewseg) -> None:
    words = ("evaluate", "prototype", *SCENES, *TINY, "--episodes-file", listed, *FEW)
    result = fewseg(*words, "--shots", 5)
    assert result.code == 2
    assert "lists 1-shot episodes, but 5 shots" in result.err
    assert fewseg(*words, "--shots", 1).code == 0


@pytest.mark.slow
def test_other_files_are_kept_too(fewseg: Fewseg, listed: Path, tmp_path: Path) -> None:
    photo = tmp_path / "data" / "images" / "a.png"
    photo.parent.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(photo)
    before = photo.read_bytes()
    assert fewseg("data", "show", "folder", f"data.root={tmp_path / 'data'}", "--out", photo).code == 2
    assert photo.read_bytes() == before
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    assert fewseg("data", "episodes", *SCENES, "--episodes", 4, "--out", tmp_path / "table.csv").code == 2
    assert fewseg("data", "episodes", *SCENES, "--episodes", 5, "--out", listed).code == 0
    listed.rename(tmp_path / "statistics.csv")
    assert fewseg("experiment", "statistics", *SCENES, "--out", tmp_path).code == 2
    assert (tmp_path / "statistics.csv").read_text().startswith("# source: ")
    assert fewseg("experiment", "statistics", *SCENES, "--out", tmp_path / "new").code == 0
    assert fewseg("experiment", "statistics", *SCENES, "--out", tmp_path / "new").code == 0


def test_a_slim_copy_does_not_replace_the_model(fewseg: Fewseg, tmp_path: Path) -> None:
    run = save_model(Prototype(backbone="timm/test_resnet", image_size=64), tmp_path / "run")
    weights = (run / "model.safetensors").read_bytes()
    result = fewseg("export", run, "--slim", run)
    assert result.code == 2
    assert "would be lost" in result.err
    assert (run / "model.safetensors").read_bytes() == weights
