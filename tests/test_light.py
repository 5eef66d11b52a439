"""Photos are segmented where nothing of the extra `train` is installed, with the masks that torch gives."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewseg.data.images import read_image
from fewseg.data.marks import Marks, mask_from_marks
from fewseg.data.sets.scenes import Scenes
from fewseg.errors import TRAIN, UsageError, install_line
from fewseg.predictor import FewShotPredictor
from fewseg.storage.engines import GRAPHS, UNTRAINED, graphs_of, open_engine
from fewseg.storage.saved import read_record
from fewseg.storage.shipped import shipped_folder, shipped_models
from helpers import iou, scene

ROOT = Path(__file__).resolve().parents[1]
PRESENCE = 0.01
"""Most that a shipped model's graphs may be from torch in the probability that a class is there."""
WITHOUT = """
import sys

class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refused())
from fewseg.cli.main import main
main()
"""


def without_torch(*words: object) -> subprocess.CompletedProcess[str]:
    """The command line in a process to which the extra `train` and scikit-image are not installed."""
    code = WITHOUT.format(names={*TRAIN, "skimage"})
    environment = os.environ | {"PYTHONPATH": f"{ROOT}/src", "COLUMNS": "200"}
    process = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.run(process, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number, box in enumerate([(30, 20, 120, 90), (90, 30, 190, 140)]):
        pixels, mask = scene(size=(200, 150), box=box)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        Image.fromarray(mask).save(folder.parent / f"mask{number}.png")
    return folder


@pytest.mark.slow
def test_photos_are_segmented_without_torch_as_with_it(photos, tmp_path):
    words = ["--class", "box", "--support", photos / "0.png", "--mask", photos.parent / "mask0.png"]
    words += ["--class", "ground", "--support", photos / "0.png", "--point", "5,5", "--background", "60,50"]
    formats = [word for name in ("png", "coco", "yolo", "geojson") for word in ("--format", name)]
    done = without_torch("segment", photos, *words, *formats, "--flip", "--min-area", 9, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "2 masks in" in done.stdout
    assert "graphs (onnxruntime" in done.stdout
    assert "graphs" in json.loads((tmp_path / "out/annotations.json").read_text())["info"]["runtime"]
    predictor = FewShotPredictor("lite", runtime="torch", flip=True)
    first = photos / "0.png"
    ground = mask_from_marks(read_image(first), Marks(points=[(5, 5)], background=[(60, 50)]))
    predictor.set_support({"box": (first, photos.parent / "mask0.png"), "ground": (first, ground)})
    found = np.asarray(Image.open(tmp_path / "out/1.png"))
    assert (found == predictor.predict_labels(photos / "1.png")).mean() > 0.995


@pytest.mark.slow
@pytest.mark.parametrize("words", [("train", "lite", "scenes"), ("segment", "--model", "hdmnet"), ("evaluate", "lite")])
def test_what_needs_torch_says_what_to_install(words, photos, tmp_path):
    if words[0] == "segment":
        words += (photos, "--support", photos / "0.png", "--point", "60,50", "--out", tmp_path / "out")
    done = without_torch(*words)
    assert done.returncode == 2
    assert f"which is not installed; install it with: {install_line('train')}" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_a_model_that_is_not_there_is_told_without_torch_too():
    done = without_torch("serve", "--model", "light", "--no-browser")
    assert done.stderr.startswith("error: no model 'light' comes along (")
    assert done.stderr.endswith(" do), nor is there such a folder. Did you mean 'lite'?\n")
    told = without_torch("serve", "--model", ROOT / "docs", "--no-browser").stderr
    assert told.startswith(f"error: {ROOT / 'docs'} holds neither a saved model nor a run with one")


def test_the_public_names_say_so_too():
    code = "import sys; sys.modules['torch'] = None\nimport fewseg\nfewseg.FewShotPredictor\nfewseg.load_model"
    environment = os.environ | {"PYTHONPATH": f"{ROOT}/src"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "ModuleNotFoundError: fewseg.load_model: this needs torch, which is not installed" in done.stderr


WITH_GRAPHS = [name for name in shipped_models() if graphs_of(name)]
"""A former model is shipped without: it needs torch."""


@pytest.mark.parametrize("name", WITH_GRAPHS)
def test_shipped_graphs_are_made_of_the_shipped_weights_and_small(name):
    folder = shipped_folder(name)
    graphs = folder / GRAPHS
    told = json.loads((graphs / "fewseg-onnx.json").read_text())["source_sha256"]
    assert told == read_record(folder)["sha256"], f"make them anew, as {folder / 'README.md'} says"
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 19e6


@pytest.mark.slow
@pytest.mark.parametrize(("runtime", "flip"), [("graphs", True), ("torch", False)])
def test_one_encoding_serves_lite_and_the_methods_without_training(runtime, flip):
    (image, mask), (query, _) = scene(), scene(size=(120, 90), box=(20, 10, 70, 60))
    engine = open_engine("lite", runtime=runtime, flip=flip, refine="fast")
    assert engine.methods == ("lite", *UNTRAINED)
    predictor = FewShotPredictor(engine)
    predictor.set_support([image, image], [mask, mask])
    (support,), encoded = predictor._supports, engine.encode_query(query)
    for method in UNTRAINED:
        found = engine.match(encoded, support, size=(90, 120), method=method)
        alone = FewShotPredictor(method, runtime=runtime, flip=flip)
        alone.set_support([image, image], [mask, mask])
        np.testing.assert_allclose(found.proba, alone.predict_proba(query), atol=1e-5)
        tells = method == "lite+linear"
        assert (found.presence is not None, alone.engine.tells_presence) == (tells, tells)
    with pytest.raises(UsageError, match="unknown method 'hsnet'; choose lite, dense, prototype"):
        engine.match(encoded, support, size=(90, 120), method="hsnet")


@pytest.mark.parametrize("runtime", ["graphs", "torch"])
@pytest.mark.parametrize("name", UNTRAINED)
def test_methods_without_training_look_once(name, runtime):
    with pytest.raises(UsageError, match=f"{re.escape(name)} cannot look twice"):
        FewShotPredictor(name, runtime=runtime, refine="fast")


Pair = tuple[np.ndarray, np.ndarray]


def differences(name: str, cases: Iterable[tuple[Pair, np.ndarray]]) -> tuple[list[float], float]:
    """IoUs of the masks that graphs and torch give, and the largest difference in presence; a case is a support (photo,
    mask) and a query.
    """
    one, other = (FewShotPredictor(name, runtime=runtime) for runtime in ("graphs", "torch"))
    ious, furthest = [], 0.0
    for support, query in cases:
        for predictor in (one, other):
            predictor.set_support(*support)
        a, b = one.predict_full(query), other.predict_full(query)
        ious.append(float(iou(a.mask, b.mask)) if (a.mask | b.mask).any() else 1.0)
        if a.presence is not None and b.presence is not None:
            furthest = max(furthest, abs(a.presence - b.presence))
    return ious, furthest


def in_turn(pairs: Mapping[int, list[Pair]], count: int) -> Iterator[tuple[Pair, np.ndarray]]:
    """Of every class its first photo as support and the others as queries, `count` in all."""
    cases = [(first, photo) for first, *others in pairs.values() for photo, _ in others]
    assert len(cases) >= count
    step = len(cases) / count
    return (cases[int(step * i)] for i in range(count))


@pytest.fixture(scope="module")
def drawn() -> list[tuple[Pair, np.ndarray]]:
    """Supports and queries of all classes, drawn once for all methods."""
    count = int(os.environ.get("FEWSEG_AGREEMENT", "12"))  # 200 before a release: a minute
    source = Scenes(subset="test", level="mixed", images=max(60, 2 * count), size=320)
    pairs = defaultdict(list)
    for c in range(1, 1 + len(source.class_names)):
        for i in source.index.images_of(c, min_pixels=source.min_pixels)[: 2 + count // 10]:
            image, labels = source.load(int(i))
            pairs[c].append((np.asarray(image), labels == c))
    return list(in_turn({c: found for c, found in pairs.items() if found}, count))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*WITH_GRAPHS, *UNTRAINED])
def test_shipped_graphs_give_torch_s_masks_of_drawn_scenes(name, drawn):
    # the others see what lite's encoder saw: only their own match is new
    ious, presence = differences(name, drawn if name in WITH_GRAPHS else drawn[::3])
    assert np.mean(ious) > 0.999
    assert presence < PRESENCE


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_GRAPHS)
def test_shipped_graphs_give_torch_s_masks_of_photos(name, voc_mini):
    pairs = defaultdict(list)
    for file in sorted((voc_mini / "VOC2012/SegmentationClass").glob("*.png"))[::40]:
        labels = np.asarray(Image.open(file))
        largest = int(np.bincount(labels[labels < 255])[1:].argmax()) + 1
        photo = read_image(voc_mini / "VOC2012/JPEGImages" / f"{file.stem}.jpg")
        pairs[largest].append((np.asarray(photo), labels == largest))
    ious, presence = differences(name, in_turn(pairs, 12))
    assert np.mean(ious) > 0.999
    assert presence < PRESENCE


@pytest.mark.slow
def test_a_class_is_taught_and_found_without_torch(photos, tmp_path):
    words = ["--class", "box", "--support", photos / "0.png", "--mask", photos.parent / "mask0.png"]
    done = without_torch("teach", *words, "--out", tmp_path / "box.concept")
    assert done.returncode == 0, done.stderr
    assert "1 support, expect" in done.stdout
    done = without_torch("segment", "--concept", tmp_path / "box.concept", photos, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/results.csv").read_text().count("\n") == 3
