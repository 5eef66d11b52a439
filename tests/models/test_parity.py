"""The four released networks' outputs, from the weights and inputs of tests/parity."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fewseg.episode import Episode
from fewseg.errors import DataError
from fewseg.models.base import FewShotSegmenter
from fewseg.storage.released import load_released, rename_released
from parity import METHODS, check, check_output, outputs, read_vector, released_state
from parity.fill import inputs

BACKBONES = {"hsnet": "resnet50"}
pytestmark = [pytest.mark.parity, pytest.mark.slow]


@dataclass
class Vector:
    """One released network: its state dict's file, its values, our model with those weights, and the episode."""

    method: str
    meta: dict[str, Any]
    expected: dict[str, np.ndarray]
    model: FewShotSegmenter
    episode: Episode


def save_released(method: str, state: dict[str, Tensor], path: Path) -> Path:
    torch.save(state if method == "hsnet" else {"epoch": 1, "state_dict": state, "optimizer": {}}, path)
    return path


def load(method: str, state: dict[str, Tensor], path: Path) -> FewShotSegmenter:
    try:
        save_released(method, state, path)
        return load_released(method, path, backbone=BACKBONES.get(method, "resnet50-ds"), shots=1)
    finally:
        path.unlink()  # 200 MB


def parity_episode(meta: dict[str, Any], model: Any) -> Episode:
    arrays = inputs(meta["image_size"], meta["shot"], meta["batch"], meta["input_seed"])
    query, supports, masks, mask, base = (torch.from_numpy(a) for a in arrays)
    mean, std = model.backbone.pixel_mean, model.backbone.pixel_std  # the vectors' images are normalised already
    batch = meta["batch"]
    return Episode(
        query_image=query * std + mean,
        support_images=supports * std + mean,
        support_masks=masks.to(torch.uint8),
        class_id=torch.ones(batch, dtype=torch.long),
        base_index=torch.full((batch,), -1),
        query_mask=mask.to(torch.uint8),
        query_base_mask=base.to(torch.uint8),
    )


@pytest.fixture(scope="module", params=METHODS)
def vector(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Vector:
    method = request.param
    meta, expected = read_vector(method)
    model = load(method, released_state(meta, prefix="module."), tmp_path_factory.mktemp("parity") / "released.pth")
    return Vector(method, meta, expected, model, parity_episode(meta, model))


def test_outputs_equal_the_released_network(vector: Vector) -> None:
    vector.model.eval()
    with torch.no_grad():
        found = outputs(vector.model(vector.episode))
    names = [n for n in vector.expected if not n.startswith(("loss", "grad"))]
    assert names
    for name in names:
        check_output(found, vector.expected[name], name)


def test_losses_and_gradients_equal_the_released_network(vector: Vector) -> None:
    model, expected = vector.model.train(), vector.expected
    for module in model.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = 0.0
    own = torch.tensor(vector.meta.get("category_index", [-1] * vector.meta["batch"]))
    episode = replace(vector.episode, base_index=own)
    prediction = model(episode)
    terms = model.loss(prediction, episode)
    main = terms["final"] + (terms["meta"] if vector.method == "hdmnet" else 0)
    check(main, expected["loss_main"], "loss_main")
    logged = terms | model.logged(prediction, episode)
    for theirs, ours in {"distill": "distill", "meta": "meta", "base": "base", "aux": "inner"}.items():
        if f"loss_{theirs}" in expected:
            check(logged[ours], expected[f"loss_{theirs}"], f"loss_{theirs}")
    if "grad_norms" not in expected:
        return
    model.zero_grad()
    torch.stack(list(terms.values())).sum().backward()
    theirs_by_ours = rename_released(vector.method, {n: n for n in vector.meta["grad_names"]})  # type: ignore[dict-item]
    norms = {
        theirs_by_ours[n]: p.grad.norm().item()
        for n, p in model.named_parameters()
        if p.requires_grad and p.grad is not None
    }
    assert norms.keys() == set(vector.meta["grad_names"])
    check([norms[n] for n in vector.meta["grad_names"]], expected["grad_norms"], "grad_norms")


@pytest.mark.parametrize("method", METHODS)
def test_names_without_module_load_the_same(method: str, tmp_path: Path) -> None:
    meta, _ = read_vector(method)
    state = released_state(meta)
    model = load(method, state, tmp_path / "released.pth")
    loaded = model.state_dict()
    renamed = rename_released(method, state)
    assert renamed.keys() == loaded.keys()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in renamed.items())


def test_a_wrong_back_end_is_refused_by_name(tmp_path: Path) -> None:
    meta, _ = read_vector("pfenet")
    state = {n: torch.zeros(shape) for n, shape in meta["state_dict"].items()}
    path = save_released("pfenet", state, tmp_path / "released.pth")
    with pytest.raises(DataError, match=r"missing: backbone\.layer3\.6"):
        load_released("pfenet", path, backbone="resnet101-ds")
    path.unlink()
