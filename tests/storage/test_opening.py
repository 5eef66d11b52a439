"""Opening what a user names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fewseg.build import pick_device
from fewseg.errors import DataError, DataWarning, UsageError
from fewseg.models.parts.base_learner import PSPNet
from fewseg.storage.opening import open_target, open_test_data, trained_of
from fewseg.storage.saved import save_model
from fewseg.training.loop import train
from helpers import Toy, tiny_model, toy_config

UNTRAINED = ("scenes", "data.images=60", "data.size=64", "model.backbone=timm/test_resnet", "model.weights=null")


def test_a_run_knows_its_data_and_fold(toy: type[Toy], tmp_path: Path) -> None:
    run = train(toy_config("train.validation=base", "train.held_out=2", "data.fold=2"), tmp_path / "lr=0.1")
    opened = open_target(str(run), [])
    assert opened.model.name == "toy"
    assert not opened.model.training
    assert opened.config.data.fold == 2
    source, fold = open_test_data(opened)
    assert (source.name, source.subset) == ("scenes", "test")
    assert fold == trained_of(opened.model).fold
    assert len(fold.held_out) == 2
    assert opened.weights["path"] == str(run / "best")
    last = open_target(str(run / "last"), ["data.shots=2"])
    assert last.config.data.shots == 2
    assert open_test_data(last)[1] == fold


def test_a_run_that_has_not_ended_says_so_wherever_it_is_opened(toy: type[Toy], tmp_path: Path) -> None:
    run = train(toy_config("train.epochs=2"), tmp_path / "run")
    assert "unfinished" not in open_target(str(run), []).weights
    record = run / "last" / "fewseg.json"
    content = json.loads(record.read_text())
    content["info"]["epoch"] = 1  # as it was after the first
    del content["checksum"]
    record.write_text(json.dumps(content))
    with pytest.warns(DataWarning, match="its training has not ended: 1 of 2 epochs; fewseg train --resume --out"):
        opened = open_target(str(run), [])
    assert opened.weights["unfinished"] == "its training has not ended: 1 of 2 epochs"


def test_options_of_a_trained_model_are_changed_where_its_weights_fit(toy: type[Toy], tmp_path: Path) -> None:
    from fewseg.build import create_model

    model = create_model("lite", backbone="timm/test_resnet", image_size=64)
    folder, data = save_model(model, tmp_path / "saved"), ["scenes", "data.images=60"]
    assert open_target(str(folder), data).model.margin == 0
    assert open_target(str(folder), [*data, "model.margin=0.5"]).model.margin == 0.5
    with pytest.raises(DataError, match="does not fit the model"):
        open_target(str(folder), [*data, "model.heads=5"])
    with pytest.raises(UsageError, match=r"model\.backbone: .* is a trained model"):
        open_target(str(folder), [*data, "model.backbone=lite2"])
    run = train(toy_config(), tmp_path / "run")
    assert open_target(str(run), ["model.name=toy"]).model.name == "toy"  # as it is
    with pytest.raises(UsageError, match=r"model\.weights: .* is a trained model"):
        open_target(str(run), ["model.weights=imagenet"])


def test_a_model_is_not_evaluated_on_classes_that_it_was_trained_on(toy: type[Toy], tmp_path: Path) -> None:
    run = train(toy_config(), tmp_path / "run")
    with pytest.raises(UsageError, match=r"trained on classes that are novel in fold 1 .*evaluate with data\.fold=0"):
        open_test_data(open_target(str(run), ["data.fold=1"]))


def test_class_ids_of_another_list_of_classes_are_not_compared(toy: type[Toy], tmp_path: Path) -> None:
    opened = open_target(str(train(toy_config(), tmp_path / "run")), ["data.fold=1"])
    info = opened.model.info
    assert info["classes"] is not None
    del info["base_names"]
    info["classes"] = "of others"
    with pytest.warns(DataWarning, match="other classes than those of this scenes"):
        assert open_test_data(opened)[1].index == 1


def test_a_saved_model_without_a_run_takes_its_data_from_the_words(tmp_path: Path) -> None:
    torch.manual_seed(0)
    from fewseg.build import create_model

    model = create_model("hsnet", backbone="timm/test_resnet", image_size=64)
    folder = save_model(model, tmp_path / "converted")
    opened = open_target(str(folder), ["scenes", "data.images=60", "data.fold=3"])
    source, fold = open_test_data(opened)
    assert (source.name, fold.index, trained_of(opened.model).fold) == ("scenes", 3, None)


@pytest.mark.parametrize("place", ["inside", "beside"])
def test_an_unrelated_configuration_is_none_of_a_run(place: str, tmp_path: Path) -> None:
    folder = save_model(tiny_model("prototype"), tmp_path / "best")
    ((folder if place == "inside" else tmp_path) / "config.yaml").write_text("server: {port: 8080}")
    assert open_target(str(folder), ["scenes"]).model.name == "prototype"


def test_a_method_without_training_is_opened_by_its_recipe() -> None:
    opened = open_target("prototype", [*UNTRAINED, "data.shots=3"])
    assert (opened.model.name, opened.model.shots, opened.weights) == ("prototype", 3, {})
    assert open_test_data(opened)[1].index == 0


def test_what_cannot_be_opened(toy: type[Toy], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"hdmnet must be trained first .*run directory"):
        open_target("hdmnet", ["scenes"])
    with pytest.raises(UsageError, match="runs/nowhere is no directory"):
        open_target("runs/nowhere", [])
    with pytest.raises(DataError, match="neither a saved model nor a run"):
        open_target(str(tmp_path), [])
    base = save_model(PSPNet(backbone="timm/test_resnet", image_size=64), tmp_path / "base")
    with pytest.raises(UsageError, match="holds a base learner"):
        open_target(str(base), [])


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "", "cpu:x"])
def test_a_device_that_is_not_there(name: str) -> None:
    with pytest.raises(UsageError, match="choose cpu, cuda"):
        pick_device(name)


def test_devices() -> None:
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type in ("cpu", "cuda")
