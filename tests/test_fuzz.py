"""Files that chance has changed: every reader either takes them or raises an error that a person can mend."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fewseg.checkpoints import create_model, load_model, save_model
from fewseg.config import load_config
from fewseg.data.coco_json import CocoJson
from fewseg.data.episodes import EpisodeList
from fewseg.data.pascal5i import _read_mat
from fewseg.data.protocols import get_protocol
from fewseg.data.sampling import sample_episodes
from fewseg.data.scenes import Scenes
from fewseg.errors import FewsegError

INPUTS = 100
"""Per test; docs/reliability.md names their number."""
FUZZ = settings(
    max_examples=INPUTS, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SIMPLE = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(2**70)
VALUES = st.recursive(
    SIMPLE, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)


@st.composite
def changes(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Bytes put in, taken out, replaced; the end cut off."""
    share = st.floats(0, 1)
    edits = draw(st.lists(st.tuples(share, st.integers(0, 6), st.binary(max_size=6)), min_size=1, max_size=4))
    cut = draw(st.none() | share)

    def change(content: bytes) -> bytes:
        for where, length, new in edits:
            at = int(where * len(content))
            content = content[:at] + new + content[at + length :]
        return content if cut is None else content[: int(cut * len(content))]

    return change


@st.composite
def swaps(draw: st.DrawFn) -> Callable[[Any], Any]:
    """A value somewhere in a document replaced by any other, or left out."""
    steps, new, absent = draw(st.lists(st.floats(0, 0.999), min_size=1, max_size=5)), draw(VALUES), draw(st.booleans())

    def swap(document: Any) -> Any:
        document = json.loads(json.dumps(document))
        node, place = None, None
        inner = document
        for step in steps:
            keys = (
                list(inner) if isinstance(inner, dict) else list(range(len(inner))) if isinstance(inner, list) else []
            )
            if not keys:
                break
            node, place = inner, keys[int(step * len(keys))]
            inner = node[place]
        if node is None:
            return new
        if absent:
            del node[place]
        else:
            node[place] = new
        return document

    return swap


def taken_or_told(read: Callable[[], Any]) -> None:
    """A FewsegError is the only one that may come out."""
    with suppress(FewsegError):
        read()


@pytest.fixture(scope="module")
def source() -> Scenes:
    return Scenes(subset="test", level="simple", images=80, size=64)


@pytest.fixture(scope="module")
def listed(source: Scenes, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    protocol = get_protocol("fewseg", dataset="scenes")
    path = tmp_path_factory.mktemp("list") / "list.csv"
    sample_episodes(source, source.fold(0), protocol=protocol, seed=0, shots=1, episodes=5).save(path)
    return path.read_bytes()


@FUZZ
@given(change=changes(), keep_hash=st.booleans())
def test_episode_lists(
    change: Callable[[bytes], bytes], keep_hash: bool, source: Scenes, listed: bytes, tmp_path: Path
) -> None:
    lines = listed.splitlines(keepends=True)
    content = listed if keep_hash else b"".join(line for line in lines if b"sha256" not in line)
    (tmp_path / "list.csv").write_bytes(change(content))
    taken_or_told(lambda: EpisodeList.load(tmp_path / "list.csv", source))


CONFIG = load_config("prototype", "scenes", "data.level=simple").as_dict()


def plain(content: dict[str, Any]) -> dict[str, Any]:
    """A configuration as a recipe writes it: options beside the other keys."""
    return {
        group: {k: v for k, v in keys.items() if k != "options"} | keys.get("options", {})
        for group, keys in content.items()
    }


@FUZZ
@given(change=changes())
def test_bytes_of_configurations(change: Callable[[bytes], bytes], tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(change(yaml.safe_dump(plain(CONFIG)).encode()))
    taken_or_told(lambda: load_config(str(tmp_path / "c.yaml")))


@FUZZ
@given(swap=swaps())
def test_values_of_configurations(swap: Callable[[Any], Any], tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(swap(plain(CONFIG))))
    taken_or_told(lambda: load_config(str(tmp_path / "c.yaml")))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model without the checksum of its metadata, which would catch every change before a reader sees it."""
    torch.manual_seed(0)
    made = create_model("prototype", backbone="timm/test_resnet", image_size=64)
    folder = save_model(made, tmp_path_factory.mktemp("model") / "model")
    record = json.loads((folder / "fewseg.json").read_text())
    del record["checksum"]
    (folder / "fewseg.json").write_text(json.dumps(record))
    return folder


@FUZZ
@given(change=changes(), swap=swaps(), structured=st.booleans(), name=st.sampled_from(["config.json", "fewseg.json"]))
def test_metadata_of_saved_models(
    change: Callable[[bytes], bytes], swap: Callable[[Any], Any], structured: bool, name: str, model: Path
) -> None:
    content = (model / name).read_bytes()
    changed = json.dumps(swap(json.loads(content))).encode() if structured else change(content)
    (model / name).write_bytes(changed)
    try:
        taken_or_told(lambda: load_model(model))
    finally:
        (model / name).write_bytes(content)


@FUZZ
@given(change=changes())
def test_weights(change: Callable[[bytes], bytes], model: Path, tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(change((model / "model.safetensors").read_bytes()))
    taken_or_told(
        lambda: create_model("prototype", backbone="timm/test_resnet", weights=str(tmp_path / "w.safetensors"))
    )


@FUZZ
@given(change=changes())
def test_torch_files(change: Callable[[bytes], bytes], tmp_path: Path) -> None:
    torch.save({"state_dict": {"module.layer0.weight": torch.ones(2, 3)}}, tmp_path / "plain.pth")
    (tmp_path / "w.pth").write_bytes(change((tmp_path / "plain.pth").read_bytes()))
    taken_or_told(lambda: create_model("prototype", backbone="timm/test_resnet", weights=str(tmp_path / "w.pth")))


SQUARE = [4, 4, 20, 4, 20, 20, 4, 20]
COCO = {
    "info": {"year": 2026},
    "images": [{"id": n, "file_name": f"{n}.jpg", "height": 24, "width": 32} for n in range(4)],
    "categories": [{"id": n, "name": f"class{n}"} for n in (1, 3, 4, 7)],
    "annotations": [
        {"id": 1, "image_id": 0, "category_id": 1, "segmentation": [SQUARE], "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 3, "segmentation": {"size": [24, 32], "counts": [100, 168, 500]}},
        {"id": 3, "image_id": 2, "category_id": 7, "segmentation": [SQUARE, SQUARE], "iscrowd": 1},
        {"id": 4, "image_id": 3, "category_id": 4, "segmentation": {"size": [24, 32], "counts": "b1_5_5"}},
    ],
}


@FUZZ
@given(change=changes(), swap=swaps(), structured=st.booleans())
def test_coco_files(
    change: Callable[[bytes], bytes],
    swap: Callable[[Any], Any],
    structured: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    root = tmp_path_factory.mktemp("coco")
    content = json.dumps(swap(COCO)).encode() if structured else change(json.dumps(COCO).encode())
    (root / "a.json").write_bytes(content)

    def read() -> None:
        source = CocoJson(root=str(root), folds=2)
        for i in range(len(source.ids)):
            source.labels(i)
        _ = source.index

    taken_or_told(read)


@FUZZ
@given(change=changes(), packed=st.booleans())
def test_matlab_files(change: Callable[[bytes], bytes], packed: bool, tmp_path: Path) -> None:
    struct = np.zeros((1, 1), dtype=[("Boundaries", object), ("Segmentation", object)])
    struct[0, 0] = (np.zeros(1), np.eye(9, 7, dtype=np.uint8))
    scipy.io.savemat(tmp_path / "plain.mat", {"GTcls": struct}, do_compression=packed)
    (tmp_path / "changed.mat").write_bytes(change((tmp_path / "plain.mat").read_bytes()))
    taken_or_told(lambda: _read_mat(tmp_path / "changed.mat"))
