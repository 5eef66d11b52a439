"""Every network against the plain functions of `reference.py`, where the parity vectors do not reach."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference
import torch
from torch import Tensor

import layouts
import parity
from fewseg.build import create_model
from fewseg.episode import Episode
from fewseg.models.parts.backbone_weights import load_strict
from fewseg.models.parts.backbones import create_backbone
from fewseg.models.parts.ensemble import ShotWeights
from fewseg.storage.released import rename_released

OURS = {"resnet50": "resnet50-ds", "resnet101": "resnet101-ds", "vgg16": "vgg16_bn"}
METHODS = ("hdmnet", "bam", "pfenet", "hsnet")
slow = pytest.mark.slow


def filled(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Numbers of the size that the parity vectors' recipe gives, for every name."""
    g = torch.Generator().manual_seed(0)
    out = {}
    for name, tensor in state.items():
        shape, last = tuple(tensor.shape), name.rsplit(".", 1)[-1]
        if last == "num_batches_tracked":
            out[name] = torch.zeros((), dtype=torch.long)
            continue
        z = torch.randn(shape, generator=g)
        if last in ("running_mean", "bias"):
            out[name] = 0.1 * z
        elif last == "running_var" or len(shape) == 1:
            out[name] = 1 + 0.1 * (z.abs() if last == "running_var" else z)
        else:
            out[name] = z / float(np.prod(shape[1:])) ** 0.5
    return out


def inputs(size: int, shots: int) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised query and supports, and masks whose foreground differs from shot to shot."""
    g = torch.Generator().manual_seed(1)
    masks = torch.zeros(1, shots, size, size, dtype=torch.uint8)
    for k in range(shots):
        masks[:, k, size // 5 + 3 * k : size // 2 + 6 * k, size // 4 : size // 2 + 5 * k] = 1
    masks[..., :3, :] = 255
    return torch.randn(1, 3, size, size, generator=g), torch.randn(1, shots, 3, size, size, generator=g), masks


def ours(model: Any, query: Tensor, supports: Tensor, masks: Tensor) -> dict[str, Tensor]:
    mean, std = model.backbone.pixel_mean, model.backbone.pixel_std
    novel = torch.full((len(query),), -1)
    episode = Episode(query * std + mean, supports * std + mean, masks, class_id=novel, base_index=novel)
    with torch.no_grad():
        return parity.outputs(model.eval()(episode))


def agree(found: dict[str, Tensor], expected: dict[str, Any]) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4, msg=lambda m, name=name: f"{name}: {m}")


@slow
@pytest.mark.parametrize(
    ("method", "backbone", "shots", "base_classes", "size"),
    [
        ("hdmnet", "vgg16", 5, 15, 129),
        ("hdmnet", "resnet101", 5, 60, 97),
        ("bam", "vgg16", 5, 60, 129),
        ("bam", "resnet101", 5, 15, 97),
        ("pfenet", "vgg16", 5, 60, 129),
        ("pfenet", "resnet101", 5, 15, 97),
        ("hsnet", "vgg16", 5, 15, 129),
        ("hsnet", "resnet101", 5, 15, 129),
    ],
)
def test_shots_and_back_ends_beyond_the_vectors(
    method: str, backbone: str, shots: int, base_classes: int, size: int
) -> None:
    state = filled(layouts.LAYOUTS[method](backbone, shots=shots, base_classes=base_classes))
    name = backbone if method == "hsnet" else OURS[backbone]
    model = create_model(method, backbone=name, shots=shots, base_classes=base_classes)
    load_strict(model, rename_released(method, state), what="the filled state")
    arrays = inputs(size, shots)
    more = {"coco": base_classes == 60} if method == "pfenet" else {}
    with torch.no_grad():
        expected = getattr(reference, method)(state, backbone, *arrays, **more)
    agree(ours(model, *arrays), expected)


@slow
@pytest.mark.parity
@pytest.mark.parametrize("method", METHODS)
def test_the_plain_functions_are_the_released_networks(method: str) -> None:
    meta, expected = parity.read_vector(method)
    arrays = parity.fill.inputs(meta["image_size"], meta["shot"], meta["batch"], meta["input_seed"])
    query, supports, masks = (torch.from_numpy(a) for a in arrays[:3])
    more = {"coco": False} if method == "pfenet" else {}
    with torch.no_grad():
        state = parity.released_state(meta)
        found = getattr(reference, method)(state, "resnet50", query, supports, masks, **more)
    for name, value in expected.items():
        if name.removesuffix("[..., ::4, ::4]") in found:
            parity.check_output(found, value, name)


@pytest.mark.parametrize("undo_sort", [True, False])
def test_weights_of_five_shots_and_the_order_they_are_in(undo_sort: bool) -> None:
    torch.manual_seed(0)
    weights = ShotWeights(5)
    psi = torch.rand(4, 5)
    state = {f"kshot_rw.{n.removeprefix('mix.')}": 3 * p.detach() for n, p in weights.named_parameters()}
    weights.load_state_dict({n.replace("kshot_rw", "mix"): p for n, p in state.items()})
    with torch.no_grad():
        found = weights(psi, restore_order=undo_sort)
    torch.testing.assert_close(found, reference.shot_weights(state, psi, undo_sort=undo_sort))
    assert not torch.allclose(found, reference.shot_weights(state, psi, undo_sort=not undo_sort), atol=1e-2)


@pytest.mark.parametrize(("size", "sides"), [(129, (17, 9, 9)), (473, (60, 30, 30))])
def test_sides_of_the_papers_vgg(size: int, sides: tuple[int, ...]) -> None:
    with torch.device("meta"):
        levels = create_backbone("vgg16_bn")(torch.empty(1, 3, size, size))
    assert tuple(f.shape[-1] for f in levels.values()) == sides


@pytest.mark.parametrize(("size", "sides"), [(129, (16, 8, 4)), (400, (50, 25, 12)), (473, (59, 29, 14))])
def test_hsnet_takes_torchvisions_vgg_whose_pools_round_down(size: int, sides: tuple[int, ...]) -> None:
    with torch.device("meta"):
        query = create_model("hsnet", backbone="vgg16").extract_query(torch.empty(1, 3, size, size))
    names = [*(f"layer2.{i}" for i in range(3)), *(f"layer3.{i}" for i in range(3)), "layer4.0"]
    assert list(query) == names
    assert [query[n].shape[-1] for n in names] == [sides[0]] * 3 + [sides[1]] * 3 + [sides[2]]


@pytest.mark.parametrize(("side", "bins"), [(60, (60, 30, 15, 7)), (81, (81, 40, 20, 10)), (9, (9, 4, 2, 1))])
def test_pfenets_sizes_on_coco(side: int, bins: tuple[int, ...]) -> None:
    with torch.device("meta"):
        enrichment = create_model("pfenet", base_classes=60, backbone="timm/test_resnet").enrichment
        _, inner = enrichment(torch.empty(1, 256, side, side), torch.empty(1, 256), torch.empty(1, 1, side, side))
    assert tuple(i.shape[-1] for i in inner) == bins
