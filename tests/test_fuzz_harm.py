"""Files made to do harm, by chance but in form: run lengths, polygons, YAML, caches and videos that lie."""

from __future__ import annotations

import gc
import io
import itertools
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given
from hypothesis import strategies as st

import fewseg
from fewseg.concept.file import hash_of
from fewseg.config import load_config
from fewseg.data.annotations.read import load_supports
from fewseg.data.dataset import ImageLabels
from fewseg.data.index import VERSION, cached_index
from fewseg.data.sets.coco_json import CocoJson
from fewseg.data.sets.scenes import Scenes
from fewseg.data.transforms import AugmentConfig
from fewseg.data.video import frames, to_image
from fewseg.features.store import FeatureStore
from fewseg.runtime.torch_engine import TorchEngine
from fuzzing import EXTREMES, FUZZ, VALUES, changes, swaps, taken_or_told, within
from helpers import BLUE, ColorSegmenter, scene, take_memory, tiny_model
from segment.test_video import clip

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::fewseg.errors.DataWarning")]

NUMBERS = EXTREMES | st.integers(-2, 40) | st.floats(allow_nan=True)
WHOLE = EXTREMES.map(int) | st.integers(-2, 800)
SIDES = st.sampled_from([0, 1, 24, 32, 60_000, 2**31, -5, 10**9]) | st.just("24")
COMPRESSED = st.text("0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmno~", max_size=60)


def coco(segmentation: Any, height: Any = 24, width: Any = 32) -> dict[str, Any]:
    return {
        "images": [{"id": 1, "file_name": "0.jpg", "height": height, "width": width}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": segmentation, "iscrowd": 0}],
    }


def drawn(root: Path, document: dict[str, Any]) -> None:
    """Both readers of COCO: the data set, and the supports of `segment`."""
    (root / "a.json").write_text(json.dumps(document))

    def labels() -> None:
        source = CocoJson(root=str(root), folds=2)
        source.labels(0)
        _ = source.index

    taken_or_told(labels)
    taken_or_told(lambda: load_supports(root / "a.json"))


def test_the_limits_are_watched() -> None:
    gc.collect()  # what earlier tests left must not go meanwhile, and make up for it
    with pytest.raises(AssertionError, match=r"\d+ MB for one file"):
        taken_or_told(lambda: take_memory(600_000_000))
    with pytest.raises(pytest.fail.Exception, match="not read"), within(0.01):
        for _ in itertools.count():  # at work, not waiting: the guard counts processor time
            pass


@pytest.fixture
def root(tmp_path: Path) -> Path:
    from PIL import Image

    Image.new("RGB", (32, 24)).save(tmp_path / "0.jpg")
    return tmp_path


@FUZZ
@given(counts=st.lists(WHOLE, max_size=12) | COMPRESSED, height=SIDES, width=SIDES, image=st.booleans())
def test_coco_run_lengths(counts: Any, height: Any, width: Any, image: bool, root: Path) -> None:
    sides = (height, width) if image else (24, 32)
    drawn(root, coco({"size": [height, width], "counts": counts}, *sides))


@FUZZ
@given(
    polygons=st.lists(st.lists(NUMBERS, max_size=12) | st.lists(NUMBERS, min_size=2000, max_size=2000), max_size=3),
    height=SIDES,
)
def test_coco_polygons(polygons: Any, height: Any, root: Path) -> None:
    drawn(root, coco(polygons, height))


@FUZZ
@given(levels=st.integers(1, 12), fan=st.integers(1, 40), leaf=VALUES, itself=st.booleans())
def test_yaml_of_aliases(levels: int, fan: int, leaf: Any, itself: bool, tmp_path: Path) -> None:
    lines = [f"a0: &a0 {json.dumps(leaf)}"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * fan)}]")
    lines += [f"data: &d {{root: *a{levels - 1}, fold: {'*d' if itself else '0'}}}"]
    (tmp_path / "c.yaml").write_text("\n".join(lines))
    taken_or_told(lambda: load_config(str(tmp_path / "c.yaml")))


HEADERS = st.fixed_dictionaries(
    {
        "descr": st.sampled_from(["<i4", "<i8", "<f8", "|O", "<U9", "|V8", "<M8[s]", "<i4,<i4", "no", ""]),
        "fortran_order": st.booleans(),
        "shape": st.lists(WHOLE.map(abs), max_size=3).map(tuple) | st.just((2, 3)),
    }
)


def npy(header: dict[str, Any], content: bytes) -> bytes:
    text = repr(header).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content


@FUZZ
@given(header=HEADERS, content=st.binary(max_size=64), zeros=st.sampled_from([0, 24, 10**6]), name=st.booleans())
def test_indexes_in_cache(header: dict[str, Any], content: bytes, zeros: int, name: bool, tmp_path: Path) -> None:
    counts = np.array([[5, 1, 0], [0, 2, 9]], np.int64)
    (tmp_path / ".fewseg").mkdir(exist_ok=True)
    with zipfile.ZipFile(tmp_path / ".fewseg" / "key.npz", "w", zipfile.ZIP_DEFLATED) as file:
        for member, value in {"version": np.array(VERSION), "mark": np.array("mark")}.items():
            buffer = io.BytesIO()
            np.save(buffer, value)
            file.writestr(f"{member}.npy", buffer.getvalue())
        file.writestr("counts.npy" if name else "other.npy", npy(header, content + bytes(zeros)))

    def read() -> None:
        index = cached_index(("a", "b"), lambda: counts, root=tmp_path, key="key", mark="mark")
        assert index.counts.shape[0] == 2
        assert index.counts.dtype == np.int64

    taken_or_told(read)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    source = Scenes(level="simple", images=20, size=64)
    return FeatureStore(tmp_path_factory.mktemp("cache"), tiny_model("prototype"), source, AugmentConfig())


@FUZZ
@given(change=changes())
def test_features_in_cache(change: Callable[[bytes], bytes], store: FeatureStore) -> None:
    """A changed file gives nothing, never other features."""
    features = {"f": torch.arange(24.0).view(1, 2, 3, 4)}
    labels = ImageLabels(torch.zeros(8, 8, dtype=torch.uint8), (3,), torch.zeros(0, 8, 8, dtype=torch.uint8))
    store.put(("query", 0, 0), features, labels)
    (file,) = store.folder.glob("query*")
    content = file.read_bytes()
    file.write_bytes(change(content))

    def read() -> None:
        found = store.get(("query", 0, 0))
        assert (found is None) == (file.read_bytes() != content)

    taken_or_told(read)


@FUZZ
@given(change=changes(), swap=swaps(), structured=st.booleans())
def test_what_features_in_cache_depend_on(
    change: Callable[[bytes], bytes], swap: Callable[[Any], Any], structured: bool, store: FeatureStore, tmp_path: Path
) -> None:
    content = (store.folder / "depends.json").read_bytes()
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    (tmp_path / "cache" / "other").mkdir(parents=True)
    new = json.dumps(swap(json.loads(content))).encode() if structured else change(content)
    (tmp_path / "cache" / "other" / "depends.json").write_bytes(new)
    source = Scenes(level="simple", images=21, size=64)
    taken_or_told(lambda: FeatureStore(tmp_path / "cache", tiny_model("prototype"), source, AugmentConfig()))


@pytest.fixture(scope="module")
def concept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("concept") / "c.concept"
    pairs = [scene(size=(48, 36), box=(10, 5, right, 20)) for right in (30, 40)]
    absent = [scene(BLUE, size=(48, 36))[0]]
    fewseg.teach(*zip(*pairs, strict=True), name="box", absent=absent, model=TorchEngine(ColorSegmenter())).save(path)
    return path


@FUZZ
@given(change=changes())
def test_bytes_of_concepts(change: Callable[[bytes], bytes], concept: Path, tmp_path: Path) -> None:
    (tmp_path / "c.concept").write_bytes(change(concept.read_bytes()))
    taken_or_told(lambda: fewseg.Concept.load(tmp_path / "c.concept"))


PICTURES = st.binary(max_size=64) | st.sampled_from(
    [b"\xff\xd8\xff\xc0\x00\x11\x08\xff\xff\xff\xff\x03", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\1\0\0\0\1\0\0\x08\0\0\0\0"]
)


@FUZZ
@given(swap=swaps(), name=st.integers(0, 99), content=st.none() | PICTURES, wide=st.booleans())
def test_concepts_whose_hash_fits(
    swap: Callable[[Any], Any], name: int, content: bytes | None, wide: bool, concept: Path, tmp_path: Path
) -> None:
    """Whatever the JSON and the tensors say is checked: their hash may be anybody's."""
    with safetensors.safe_open(concept, framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    if content is not None:
        value = np.frombuffer(content, np.uint8)
        tensors[sorted(tensors)[name % len(tensors)]] = value.astype(np.float16) if wide else value
    text = json.dumps(swap(json.loads(metadata["concept"])))
    metadata |= {"concept": text, "sha256": hash_of(text, tensors)}
    safetensors.numpy.save_file(tensors, tmp_path / "c.concept", metadata)
    taken_or_told(lambda: fewseg.Concept.load(tmp_path / "c.concept"))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    clip(path)
    return path.read_bytes()


@st.composite
def fields(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Numbers of an MP4 file's boxes (sizes, counts, offsets, durations, sides) replaced by others."""
    edits = draw(st.lists(st.tuples(st.floats(0, 0.999), WHOLE, st.sampled_from([1, 2, 4, 8])), min_size=1, max_size=3))

    def change(content: bytes) -> bytes:
        start = content.index(b"moov")
        for where, number, length in edits:
            at = start + int(where * (len(content) - start - length))
            content = content[:at] + (number % 256**length).to_bytes(length, "big") + content[at + length :]
        return content

    return change


@FUZZ
@given(change=changes() | fields())
def test_videos(change: Callable[[bytes], bytes], video: bytes, tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(change(video))

    def read() -> None:
        for _, frame in frames(tmp_path / "clip.mp4"):
            to_image(frame)

    taken_or_told(read)
