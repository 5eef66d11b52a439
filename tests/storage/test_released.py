"""Released layouts of every network, back-end, number of shots and of classes: every name and shape finds its place."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import layouts
from fewseg.errors import DataError
from fewseg.storage.released import load_released, recognise, rename_released

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*copying from a non-meta parameter"
)  # only names and shapes count here
OURS = {
    "hsnet": {"resnet50": "resnet50", "resnet101": "resnet101", "vgg16": "vgg16"},
    "others": {"resnet50": "resnet50-ds", "resnet101": "resnet101-ds", "vgg16": "vgg16_bn"},
}
CASES = [
    pytest.param(*case, marks=() if case[1:] == ("resnet50", 1, 15) else pytest.mark.slow)
    for case in itertools.product(layouts.LAYOUTS, ("resnet50", "resnet101", "vgg16"), (1, 5), (15, 60))
]


def save(
    method: str,
    path: Path,
    *,
    backbone: str = "resnet50",
    shots: int = 1,
    base_classes: int = 15,
    prefix: str = "module.",
) -> Path:
    """A file of the released layout that weighs next to nothing: every tensor is one number, repeated."""
    state = layouts.LAYOUTS[method](backbone, shots=shots, base_classes=base_classes)
    tensors: dict[str, Tensor] = {prefix + n: torch.zeros(()).expand(t.shape) for n, t in state.items()}
    torch.save(tensors if method == "hsnet" else {"epoch": 1, "state_dict": tensors, "optimizer": {}}, path)
    return path


@pytest.mark.parametrize(("method", "backbone", "shots", "base_classes"), CASES)
@pytest.mark.slow
def test_every_released_file_loads_as_what_it_is(
    method: str, backbone: str, shots: int, base_classes: int, tmp_path: Path
) -> None:
    own: dict[str, Any] = {"backbone": backbone, "shots": shots, "base_classes": base_classes}
    path = save(method, tmp_path / "r.pth", prefix="module." if shots == 1 else "", **own)
    # the files of the two without a base learner are the same for any number of shots and classes
    told = {} if method in ("hdmnet", "bam") else {"shots": shots, "base_classes": base_classes}
    with torch.device("meta"):  # names and shapes only
        model = load_released(method, path, **told)
    arguments = getattr(model, "_hub_mixin_config", {})
    assert arguments["backbone"] == OURS.get(method, OURS["others"])[backbone]
    assert (arguments["base_classes"], arguments["shots"]) == (base_classes, shots)
    sizes = {"hsnet": (400, 400), "hdmnet": (473, 633)}.get(method, (473, 641))
    assert arguments["image_size"] == sizes[base_classes == 60]


def test_what_was_asked_for_wins_and_the_error_says_what_the_file_holds(tmp_path: Path) -> None:
    path = save("bam", tmp_path / "r.pth", backbone="vgg16", shots=5)
    holds = r"bam: vgg16_bn, 15 base classes, 5-shot"
    with torch.device("meta"):
        with pytest.raises(
            DataError, match=rf"{holds}\), taken as vgg16_bn, 15 base classes, 1-shot.*shot_weights\.mix"
        ):
            load_released("bam", path, shots=1)
        with pytest.raises(DataError, match=rf"{holds}\), taken as resnet50-ds.*missing"):
            load_released("bam", path, backbone="resnet50-ds")
        with pytest.raises(DataError, match=r"taken as vgg16_bn, 60 base classes.*base\.classifier\.weight"):
            load_released("bam", path, base_classes=60)


def test_another_methods_file_is_told_by_its_name(tmp_path: Path) -> None:
    path = save("bam", tmp_path / "r.pth")
    with pytest.raises(DataError, match="holds the names of bam, not of hdmnet; load it as bam"):
        load_released("hdmnet", path)


def test_a_plain_stem_and_an_unknown_depth_are_recognised() -> None:
    plain = {f"backbone.layer3.{i}.conv1.weight": layouts.empty(1) for i in range(6)}
    assert recognise(plain).backbone == "resnet50"
    assert recognise({"backbone.layer3.0.conv1.weight": layouts.empty(1)}).backbone is None
    assert recognise({"backbone.layer0.0.bias": layouts.empty(1)}).backbone == "vgg16"


def test_an_unknown_back_end_has_to_be_named(tmp_path: Path) -> None:
    state = {"hpn_learner.decoder1.0.weight": torch.zeros(1), "backbone.layer3.0.conv1.weight": torch.zeros(1)}
    torch.save(state, tmp_path / "r.pth")
    with pytest.raises(DataError, match="not recognised; name it"):
        load_released("hsnet", tmp_path / "r.pth")


def test_only_the_imagenet_classifier_is_dropped() -> None:
    empty = layouts.empty(1)
    state = {"backbone.fc.weight": empty, "backbone.layer2.0.conv1.weight": empty, "hpn_learner.new": empty}
    assert list(rename_released("hsnet", state)) == ["backbone.layer2.0.conv1.weight", "learner.new"]
