"""Folders and repositories of the hub mixin: every method comes back the same; what needs network says so."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import hub_mixin

import fewseg
from fewseg import registry
from fewseg.errors import DataError, UsageError
from fewseg.storage.saved import load_model, read_record, save_model
from helpers import answer, tiny_model

FILES = ["README.md", "config.json", "fewseg.json", "model.safetensors"]


@pytest.mark.parametrize("name", sorted(registry.classes("model")))
@pytest.mark.slow
def test_every_method_comes_back_from_its_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model: Any = tiny_model(name)
    folder = fewseg.save_pretrained(model, tmp_path / "deep" / "saved")
    assert sorted(f.name for f in folder.iterdir()) == FILES
    for again in (fewseg.from_pretrained(folder), load_model(folder), type(model).from_pretrained(folder)):
        assert type(again) is type(model)
        assert not again.training
        assert torch.equal(answer(again), answer(model))
    card = (folder / "README.md").read_text()
    assert f"# {name}: few-shot" in card
    assert "backbone=timm/test_resnet" in card
    assert "library_name: fewseg" in card


def test_the_base_learner_s_own_method_writes_a_folder_as_well(tmp_path: Path) -> None:
    model: Any = tiny_model("base")
    model.save_pretrained(tmp_path / "saved")
    assert torch.equal(answer(load_model(tmp_path / "saved")), answer(model))


def test_what_a_model_was_trained_on_goes_with_it(tmp_path: Path) -> None:
    run = save_model(tiny_model("prototype"), tmp_path / "run" / "best", {"data": "scenes"})
    folder = fewseg.save_pretrained(fewseg.from_pretrained(run.parent), tmp_path / "saved")
    assert read_record(folder)["info"] == {"data": "scenes", "image_size": 64}
    assert '{"data": "scenes", "image_size": 64}' in (folder / "README.md").read_text()


def test_a_card_stays_and_a_folder_of_other_things_is_refused(tmp_path: Path) -> None:
    model: Any = tiny_model("prototype")
    folder = fewseg.save_pretrained(model, tmp_path / "saved")
    (folder / "README.md").write_text("mine")
    fewseg.save_pretrained(model, folder)
    assert (folder / "README.md").read_text() == "mine"
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    with pytest.raises(UsageError, match="is no saved model"):
        fewseg.save_pretrained(model, tmp_path / "photos")


def test_a_save_that_fails_leaves_the_model_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = tiny_model("prototype")
    folder = fewseg.save_pretrained(model, tmp_path / "saved")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(save_directory: Path) -> None:
        (save_directory / "config.json").write_text("{")
        raise OSError("no space left")

    monkeypatch.setattr(model, "_save_pretrained", fail)
    with pytest.raises(OSError, match="no space left"):
        fewseg.save_pretrained(model, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


class Hub:
    """Stands for the hub's API: keeps what it is given."""

    def __init__(self, **_: Any) -> None:
        pass

    def create_repo(self, *, repo_id: str, private: bool | None, exist_ok: bool) -> Any:
        assert (private, exist_ok) == (True, True)
        return SimpleNamespace(repo_id=repo_id)

    def upload_folder(self, *, repo_id: str, folder_path: Path, **options: Any) -> str:
        type(self).content = {f.name: f.read_bytes() for f in Path(folder_path).iterdir()}
        return f"https://hub/{repo_id}/{options['commit_message']}"

    content: dict[str, bytes]


@pytest.mark.slow
def test_pushing_hands_the_hub_the_whole_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_mixin, "HfApi", Hub)
    model: Any = tiny_model("pfenet")
    url = fewseg.push_to_hub(model, "me/cats", private=True, commit_message="first")
    assert url == "https://hub/me/cats/first"
    assert sorted(Hub.content) == FILES
    assert 'from_pretrained("me/cats")' in Hub.content["README.md"].decode()
    assert json.loads(Hub.content["fewseg.json"])["method"] == "pfenet"
    for name, content in Hub.content.items():
        (tmp_path / name).write_bytes(content)
    fetched: dict[str, Any] = {}

    def fetch(name: str, **options: Any) -> str:
        fetched.update(options, name=name)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert torch.equal(answer(fewseg.from_pretrained("me/cats", revision="v1")), answer(model))
    assert (fetched["name"], fetched["revision"]) == ("me/cats", "v1")
    assert "README.md" not in fetched["allow_patterns"]


def test_without_network_both_ways_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> Any:
        raise ConnectionError("no route to host\nmore")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(
        DataError, match=r"me/cats is no folder here.*no route to host\); without network give a folder"
    ):
        fewseg.from_pretrained("me/cats")
    with pytest.raises(DataError, match="is no directory"):
        fewseg.from_pretrained("./runs/nowhere")
    monkeypatch.setattr(Hub, "create_repo", unreachable)
    monkeypatch.setattr(hub_mixin, "HfApi", Hub)
    model: Any = tiny_model("prototype")
    with pytest.raises(DataError, match=r"did not take me/cats.*no route to host.*save_pretrained"):
        fewseg.push_to_hub(model, "me/cats", private=True)
