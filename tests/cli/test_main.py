"""The command line, end to end on drawn scenes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image

from fewseg.build import create_model
from fewseg.cli import main as cli
from fewseg.config import load_config
from fewseg.data.sets.scenes import Scenes
from fewseg.data.source import Fold
from fewseg.models.hdmnet import HDMNet
from fewseg.storage.saved import load_model, save_model
from helpers import SCENES, SHORT, TINY, Fewseg


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, base_recipe: Path) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    words = ("hdmnet", *SCENES, *TINY, *SHORT, f"base.recipe={base_recipe}")
    assert Fewseg()("train", *words, "--out", folder / "run").code == 0
    return folder / "run"


def test_a_run_goes_on_by_its_folder_alone(run: Path, fewseg: Fewseg) -> None:
    again = fewseg("train", "--resume", "--out", run)
    assert (again.code, again.out.startswith("trained to the end before, left as it is: ")) == (0, True)
    told = fewseg("train", "data.fold=1", "--resume", "--out", run)
    assert (told.code, "leave out data.fold=1. With other keys train anew" in " ".join(told.err.split())) == (2, True)


def test_a_base_learner_is_not_said_to_be_evaluated(fewseg: Fewseg, base_recipe: Path, tmp_path: Path) -> None:
    told = fewseg("train", base_recipe, *SCENES, "--out", tmp_path / "base")
    assert told.code == 0
    *words, base = re.sub(r".*fewseg train (hdmnet .*)\)", r"\1", told.out.splitlines()[-1]).split()
    assert base == f"base.run={tmp_path / 'base'}"
    assert load_config(*words).data == load_config("hdmnet", *SCENES).data


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photos of a novel class and the mask of the first."""
    folder = tmp_path_factory.mktemp("photos")
    source = Scenes(subset="test", level="simple", images=60, size=96)
    images = source.index.images_of(1, min_pixels=source.min_pixels)
    (folder / "queries").mkdir()
    for n, i in enumerate(images[:3]):
        image, labels = source.load(int(i))
        image.save(folder / (f"queries/{n}.jpg" if n else "support.jpg"))
        if not n:
            Image.fromarray((labels == 1).astype(np.uint8) * 255).save(folder / "mask.png")
    return folder


def commands() -> dict[str, Any]:
    group: Any = typer.main.get_command(cli.app)
    found = {}
    for name, command in group.commands.items():
        inner = getattr(command, "commands", None)
        found |= {(name, n): c for n, c in inner.items()} if inner else {(name,): command}
    return found


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_help_tells_every_option(words: tuple[str, ...], fewseg: Fewseg) -> None:
    result = fewseg(*words, "--help")
    assert result.code == 0
    for parameter in (p for p in commands()[words].params if not getattr(p, "hidden", False)):
        names = [o for o in parameter.opts if o.startswith("--")] or [parameter.name.upper()]
        assert all(name in result.out or name.lower() in result.out for name in names)


def test_without_a_command_the_help_is_shown(fewseg: Fewseg) -> None:
    result = fewseg()
    assert all(name in result.out + result.err for name in ("train", "evaluate", "segment", "convert", "models"))


def test_the_shell_completes_words() -> None:
    start = "import sys; sys.argv[0] = 'fewseg'; from fewseg.cli.main import main; main()"
    asked = {"_FEWSEG_COMPLETE": "complete_bash", "COMP_WORDS": "fewseg segment --inst", "COMP_CWORD": "2"}
    done = subprocess.run(
        [sys.executable, "-c", start], env=os.environ | asked, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["--instances"]


@pytest.mark.slow
def test_a_run_is_evaluated_by_its_directory_alone(run: Path, fewseg: Fewseg) -> None:
    result = fewseg("evaluate", run, "--episodes", 5, "--repeats", 2, "--workers", 0)
    assert result.code == 0
    (file,) = run.glob("results-scenes-fewseg-fold*-1shot-2x5-*.json")
    report = json.loads(file.read_text())
    assert f"mIoU {100 * report['miou']:.2f}, 95 % interval" in result.out
    for repeat in report["repeats"]:
        assert repeat["episode_sha256"][:16] in result.out
    assert report["checkpoint"]["sha256"][:16] in result.out
    for text in ("FB-IoU", "meta learner alone", "base learner", "protocol fewseg", *report["class_iou"]):
        assert text in result.out
    assert "\x1b" not in result.out + result.err
    again = fewseg("evaluate", run, "--episodes", 5, "--repeats", 2, "--workers", 2, "--cache-gb", 0)
    assert [line for line in again.out.splitlines() if "mIoU" in line] == [
        line for line in result.out.splitlines() if "mIoU" in line
    ]
    changed = fewseg("evaluate", run, "model.temperature=2", "train.seed=3", "--episodes", 5, "--repeats", 2)
    assert "of a training, and without effect here: train.seed=3" in changed.err
    (other,) = run.glob("results-*-temperature2.json")
    assert json.loads(other.read_text())["options"] != report["options"] == json.loads(file.read_text())["options"]


@pytest.mark.slow
def test_the_support_mask_can_be_left_out_and_the_report_put_elsewhere(
    run: Path, fewseg: Fewseg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    plain = HDMNet.extract_support

    def spy(self: HDMNet, *args: Any) -> Any:
        seen.append(self.support_mask)
        return plain(self, *args)

    monkeypatch.setattr(HDMNet, "extract_support", spy)
    words = ("evaluate", run, "--episodes", 2, "--repeats", 1, "--workers", 0, "--out", tmp_path / "a" / "b.json")
    assert fewseg(*words, "--no-support-mask").code == 0
    assert set(seen) == {False}
    assert json.loads((tmp_path / "a" / "b.json").read_text())["repeats"][0]["episodes"] == 2
    assert fewseg(*words).code == 0
    assert set(seen) == {False, True}


def test_photos_are_segmented(run: Path, photos: Path, fewseg: Fewseg, tmp_path: Path) -> None:
    words = (
        "--model",
        run,
        "--support",
        photos / "support.jpg",
        "--mask",
        photos / "mask.png",
        "--format",
        "png",
        "--format",
        "coco",
    )
    result = fewseg("segment", *words, "--out", tmp_path / "out", photos / "queries")
    assert result.code == 0, result.err
    assert "2 masks in" in result.out
    written = {f.name for f in (tmp_path / "out").rglob("*") if f.is_file()}
    assert "annotations.json" in written
    for n in (1, 2):
        (mask,) = (f for f in (tmp_path / "out").rglob(f"{n}*.png") if "overlay" not in str(f))
        with Image.open(mask) as found, Image.open(photos / f"queries/{n}.jpg") as photo:
            assert found.size == photo.size
    uneven = fewseg("segment", *words, "--support", photos / "support.jpg", "--out", tmp_path / "x", photos)
    assert uneven.code == 2
    assert "2 --support but 1 --mask" in uneven.err


@pytest.mark.slow
def test_released_weights_are_converted_and_evaluated(fewseg: Fewseg, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create_model("pfenet", backbone="timm/test_resnet", image_size=473)
    torch.save({"state_dict": {f"module.{n}": t for n, t in model.state_dict().items()}}, tmp_path / "weights.pth")
    out = tmp_path / "converted"
    result = fewseg("convert", "pfenet", tmp_path / "weights.pth", out, "--backbone", "timm/test_resnet")
    assert result.code == 0, result.err
    assert torch.equal(next(load_model(out).parameters()), next(model.parameters()))
    result = fewseg("evaluate", out, *SCENES, "--episodes", 1, "--repeats", 1, "--workers", 0)
    assert result.code == 0, result.err
    assert "pfenet on timm/test_resnet, scenes fold 0" in " ".join(result.out.split())


def test_methods_are_compared_on_a_data_set_by_its_name(fewseg: Fewseg, tmp_path: Path) -> None:
    table, few = tmp_path / "table.csv", ("--episodes", 2, "--repeats", 1, "--workers", 0)
    result = fewseg("compare", "prototype", "dense", *SCENES, *TINY, *few, "--out", table)
    assert result.code == 0, result.err
    assert [line.split(",")[0] for line in table.read_text().splitlines()] == ["method", "prototype", "dense"]


@pytest.mark.slow
def test_what_a_released_file_holds_need_not_be_told(fewseg: Fewseg, tmp_path: Path) -> None:
    state = create_model("pfenet", backbone="vgg16_bn").state_dict()
    torch.save({"state_dict": {f"module.{n}": t for n, t in state.items()}}, tmp_path / "weights.pth")
    result = fewseg("convert", "pfenet", tmp_path / "weights.pth", tmp_path / "converted")
    assert result.code == 0, result.err
    assert "(pfenet on vgg16_bn, 15 base classes, 1-shot, 473 px)" in " ".join(result.out.split())


@pytest.mark.slow
def test_base_and_novel_classes_are_measured_together(fewseg: Fewseg, tmp_path: Path) -> None:
    torch.manual_seed(0)
    classes = len(Scenes(subset="test", level="simple", images=60, size=64).fold(0).base)
    bam = tmp_path / "bam"
    save_model(create_model("bam", backbone="timm/test_resnet", base_classes=classes, image_size=64), bam)
    few = ("--episodes", 2, "--repeats", 2, "--workers", 0)
    result = fewseg("evaluate", bam, *SCENES, "--protocol", "fewseg-generalised", "--merge", "base", *few)
    assert result.code == 0, result.err
    assert all(f"mIoU, {which} classes" in result.out for which in ("novel", "base", "all"))
    assert "try a smaller --tau" in " ".join(result.out.split())  # the ensemble is untrained
    (file,) = bam.glob("results-scenes-fewseg-generalised-*-base.json")
    saved = json.loads(file.read_text())
    assert (saved["merge"], saved["tau"], len(saved["repeats"])) == ("base", 0.9, 2)


def test_a_method_without_training_is_evaluated_on_saved_episodes(fewseg: Fewseg, tmp_path: Path) -> None:
    from fewseg.data.episodes.protocols import get_protocol
    from fewseg.data.episodes.sampling import sample_episodes

    source = Scenes(subset="test", level="simple", images=60, size=64)
    fold: Fold = source.fold(1)
    protocol = get_protocol("fewseg", dataset="scenes")
    listed = sample_episodes(source, fold, protocol=protocol, seed=9, shots=1, episodes=4)
    listed.save(tmp_path / "list.csv")
    words = ("evaluate", "prototype", *SCENES, *TINY, "data.fold=1", "--workers", 0)
    result = fewseg(*words, "--episodes-file", tmp_path / "list.csv", "--out", tmp_path / "report.json")
    assert result.code == 0, result.err
    assert f"episodes {listed.sha256[:16]} (4, seed 9)" in result.out


@pytest.mark.slow
def test_a_lite_model_is_measured_by_another_method_on_its_features(fewseg: Fewseg, tmp_path: Path) -> None:
    from fewseg.models.lite import Lite
    from fewseg.storage.saved import save_model

    save_model(Lite(backbone="timm/test_resnet", image_size=64, base_classes=3), tmp_path / "model")
    words = ("evaluate", tmp_path / "model", *SCENES, "data.fold=1", "--shots", 2, "--workers", 0)
    words = (*words, "--episodes", 3, "--repeats", 1)
    for how in ("linear", "lite+linear"):
        result = fewseg(*words, "--method", how)
        assert result.code == 0, result.err
        assert len(list((tmp_path / "model").glob(f"results-*-{how}.json"))) == 1
    assert (
        "linear cannot look twice (refine fast); lite can"
        in fewseg(*words, "--method", "linear", "--refine", "fast").err
    )
    refused = fewseg("evaluate", "prototype", *SCENES, *TINY, "--method", "linear")
    assert refused.code == 2
    assert "unknown method 'linear'; choose prototype" in refused.err


@pytest.mark.slow
def test_the_configuration_is_shown_and_can_be_read_back(fewseg: Fewseg, tmp_path: Path) -> None:
    result = fewseg("train", "hdmnet", *SCENES, "train.epochs=7", "--show")
    (tmp_path / "shown.yaml").write_text(result.out)
    assert load_config(str(tmp_path / "shown.yaml")) == load_config("hdmnet", *SCENES, "train.epochs=7")
    assert "  # Batches per optimiser step. [1 or more; default 1]\n  accumulate: 1\n" in result.out
    assert "default adamw]\n  optimizer: adamw\n" in result.out
    assert "another here]\n  epochs: 7\n" in result.out


def test_models_lists_methods_data_sets_and_recipes(fewseg: Fewseg) -> None:
    out = fewseg("models").out
    for name in ("hdmnet", "bam", "pfenet", "hsnet", "prototype", "scenes", "pascal5i", "lite0", "hdmnet-paper"):
        assert name in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("train",), "say what to train"),
        (("train", "data.fold=1"), "say what to train"),
        (("train", "hdmnett", "scenes"), "Did you mean 'hdmnet'"),
        (("train", "hdmnet", "scenes", "train.epoch=1"), r"Did you mean 'train\.epochs'"),
        (("train", "hdmnet", "scenes", "train.epochs=many"), r"train\.epochs.*many"),
        (("train", "prototype", "scenes", *TINY), "nothing to train"),
        (("evaluate", "hdmnet", "scenes"), "must be trained first"),
        (("evaluate", "prototpe", "scenes"), "Did you mean 'prototype'"),
        (("evaluate", "prototype", *SCENES, *TINY, "--protocol", "hdment"), "unknown protocol"),
        (("evaluate", "prototype", *SCENES, *TINY, "--device", "gpu"), "choose cpu, cuda"),
        (("evaluate", "prototype", *SCENES, *TINY, "--tau", "0.5"), "belong to the generalised protocols"),
        (("evaluate", "prototype", *SCENES, *TINY, "--protocol", "bam-generalised"), "labels no base classes"),
        (("evaluate", "prototype", *SCENES, *TINY, "--shots", "0"), "Invalid value for"),
        (("evaluate",), "Missing argument"),
        (("convert", "hdment", "x.pth", "out"), "choose bam"),
        (("no-such-command",), "No such command"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_wrong_word_is_told_in_one_message(
    words: tuple[str, ...], says: str, fewseg: Fewseg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = fewseg(*words)
    assert result.code == 2
    assert re.search(says, " ".join(result.err.split()))
    assert "Traceback" not in result.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("evaluate", "prototype", "pascal5i", "data.root=nowhere", *TINY), "nowhere"),
        (("evaluate", "empty"), "neither a saved model nor a run"),
        (("train", "broken.yaml"), r"broken\.yaml"),
        (("convert", "hdmnet", "nowhere.pth", "out"), "does not exist"),
        (("evaluate", "prototype", *SCENES, *TINY, "--episodes-file", "nowhere.csv"), r"nowhere\.csv"),
        (("train", "hdmnet", "scenes", "data.images=3", *TINY), "image to train on|has [01] images?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
@pytest.mark.slow
def test_wrong_data_is_told_in_one_message(
    words: tuple[str, ...], says: str, fewseg: Fewseg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.yaml").write_text("train: {")
    result = fewseg(*words)
    assert result.code == 1
    assert re.search(says, result.err)
    assert result.err.splitlines()[-1].startswith("error: ")  # notes of what was left out may come before
    assert "Traceback" not in result.err


def test_debug_shows_the_traceback(fewseg: Fewseg) -> None:
    result = fewseg("train", "hdmnett", "--debug")
    assert result.code == 2
    assert "Traceback" in result.err


def test_a_fault_is_told_as_one(fewseg: Fewseg, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr("fewseg.config.recipes", broken)
    result = fewseg("models")
    assert result.code == 1
    assert "surprise" in result.err
    assert "fault of fewseg" in result.err
    assert "Traceback" not in result.err


@pytest.mark.slow
def test_as_a_module_in_a_pipe_it_writes_plain_text() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "fewseg.cli", "models"], capture_output=True, text=True, check=False, timeout=300
    )
    assert result.returncode == 0
    assert "hdmnet" in result.stdout
    assert "\x1b" not in result.stdout + result.stderr
    assert not result.stderr


def test_threads_sleep_while_they_wait_unless_the_user_says_otherwise() -> None:
    code = 'import os, sys, fewseg; print("torch" in sys.modules, os.environ["OMP_WAIT_POLICY"])'  # torch reads it once
    for given, wanted in (({}, "False PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "False ACTIVE")):
        environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | given
        command = [sys.executable, "-c", code]
        result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300, env=environment)
        assert result.stdout.splitlines()[-1] == wanted


def test_onnxruntime_tells_nobody_of_the_machine(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ORT_", "XDG_"))}
    command = [sys.executable, "-c", "import fewseg, onnxruntime"]
    subprocess.run(command, check=True, timeout=300, env=environment | {"HOME": str(tmp_path)})
    assert not list(tmp_path.rglob("*"))  # it keeps a number for the machine there, and what is to be sent
