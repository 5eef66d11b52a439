"""Files, names and numbers made to do harm, each with its words: what a closing review of them found."""

from __future__ import annotations

import json
import os
import struct
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fewseg.config import load_config
from fewseg.data.annotations.read import load_supports
from fewseg.data.annotations.runs import OddShape, checked_runs, paint
from fewseg.data.decoding import picture_size
from fewseg.data.images import read_image
from fewseg.data.sets.coco_json import CocoJson
from fewseg.data.sets.scenes import Scenes
from fewseg.data.transforms import Augment, AugmentConfig
from fewseg.errors import DataError, DataWarning, UsageError
from fewseg.predictor import FewShotPredictor
from fewseg.segment import segment_folder
from fewseg.storage.saved import load_model, save_model
from fuzzing import taken_or_told
from helpers import SCENES, Fewseg, tiny_model

SIDE = 13_000
"""Pixels: below Pillow's limit, and 169 MB a mask."""


def tiff(path: Path, *pages: tuple[int, int, int, int], loop: bool = False) -> Path:
    """A TIFF of pages (width, height, bits, bands) that say what they like; `loop`: the last leads to the first."""
    length = 2 + 12 * 9 + 4
    content = b"II*\0" + struct.pack("<I", 8)
    for number, (width, height, bits, bands) in enumerate(pages, start=1):
        tags = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 8 + len(pages) * length, 277: bands}
        tags |= {278: height, 279: 1024}
        following = 8 + number * length if number < len(pages) else 8 if loop else 0
        content += struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", k, 4, 1, v) for k, v in tags.items())
        content += struct.pack("<I", following)
    path.write_bytes(content + bytes(1024))
    return path


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::fewseg.errors.DataWarning")
def test_a_tiff_whose_pages_come_back_to_the_first_is_read(tmp_path: Path) -> None:
    looped = tiff(tmp_path / "a.tif", (32, 32, 8, 1), (32, 32, 8, 1), loop=True)
    taken_or_told(lambda: read_image(looped))  # Pillow counts its pages for ever
    assert read_image(tiff(tmp_path / "b.tif", *[(32, 32, 8, 1)] * 3)).size == (32, 32)


@pytest.mark.parametrize("page", [(0, 2**32 - 1, 16, 1), (SIDE, SIDE, 32, 1), (5000, 5000, 16, 60000)])
def test_a_tiff_that_says_more_than_its_file_can_hold_is_refused(page: Any, tmp_path: Path) -> None:
    file = tiff(tmp_path / "a.tif", page)
    taken_or_told(lambda: read_image(file))
    with pytest.raises(DataError, match=r"a\.tif: it is said to hold .* in a file of 0\.0 MB"):
        read_image(file)


def test_no_other_reader_is_asked_for_a_picture_s_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    Image.init()
    accept = Image.OPEN["EPS"][1]
    asked = []
    monkeypatch.setitem(Image.OPEN, "EPS", (lambda *_: asked.append(1), accept))
    with pytest.raises(DataError, match="is not a picture"):
        picture_size(tmp_path / "a.jpg")
    assert not asked


@pytest.mark.slow
def test_painting_takes_a_byte_a_pixel() -> None:
    flat = np.full(300_000_000, 0, np.uint8)  # touched, so that it is not counted below
    taken_or_told(lambda: paint(flat, np.array([5, len(flat) - 5]), 7))
    assert (flat[4], flat[5], flat[-1]) == (0, 7, 7)


def test_what_lies_between_runs_stays() -> None:
    flat = np.full(12, 9, np.uint8)
    for runs in ([2, 3, 1, 2, 4], [0, 1, 10, 1], [12], [11, 0, 1]):
        expected = flat.copy()
        expected[np.repeat(np.arange(len(runs)) % 2 == 1, runs)] = len(runs)
        paint(flat, np.array(runs), len(runs))
        np.testing.assert_array_equal(flat, expected)


def test_compressed_run_lengths_are_no_longer_than_an_image_needs() -> None:
    def check() -> None:
        for text, pixels in (("0" * 20_000_000, SIDE**2), ("0" * 200, 16)):
            with pytest.raises(OddShape, match="longer than an image needs"):
                checked_runs(text, pixels)

    taken_or_told(check)


ZIGZAG = [float(n) for i in range(149) for n in (20 * i, 0, 20 * i + 10, SIDE)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("segmentation", "counted"),
    [({"size": [SIDE, SIDE], "counts": [0, SIDE**2]}, False), ([ZIGZAG], True)],
    ids=["whole", "long outlines"],
)
def test_annotations_that_would_paint_without_end_are_refused(segmentation: Any, counted: bool, tmp_path: Path) -> None:
    Image.new("RGB", (32, 24)).save(tmp_path / "0.jpg")
    (tmp_path / "a.json").write_text(
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "0.jpg", "height": SIDE, "width": SIDE}],
                "categories": [{"id": 1, "name": "cat"}],
                "annotations": [
                    {"id": i, "image_id": 1, "category_id": 1, "segmentation": segmentation} for i in range(60)
                ],
            }
        )
    )

    def count() -> None:
        says = r"a\.json: the 60 annotations of an image of 13000 x 13000 pixels"
        with nullcontext() if counted else pytest.raises(DataError, match=says):
            _ = CocoJson(root=str(tmp_path), folds=1).index

    taken_or_told(count)


def test_a_cache_that_is_no_file_is_passed_over(tmp_path: Path) -> None:
    from fewseg.data.index import cached_index

    (tmp_path / ".fewseg").mkdir()
    (tmp_path / ".fewseg" / "key.npz").symlink_to("/dev/zero")
    taken_or_told(lambda: cached_index(("a",), lambda: np.ones((1, 2), np.int64), root=tmp_path, key="key", mark="m"))


@pytest.mark.parametrize(
    "word",
    [
        f"train.seed={'9' * 30}",
        f"train.batch_size={2**32}",
        "augment.rotate=nan",
        "augment.scale=[0.9,1e400]",
        "train.lr=1e300",
    ],
)
def test_numbers_that_no_option_means_are_refused(word: str) -> None:
    with pytest.raises(UsageError, match=f"^{word.partition('=')[0]} is .*; give "):
        load_config("prototype", "scenes", word)
    assert load_config("prototype", "scenes", f"train.seed={2**32 - 1}").train.seed == 2**32 - 1


@pytest.mark.parametrize("option", ["--episodes", "--batch-size", "--shots"])
def test_whole_numbers_on_the_command_line_have_an_end(option: str, fewseg: Fewseg) -> None:
    result = fewseg("evaluate", "prototype", *SCENES, option, "9" * 30)
    assert (result.code, f"{option} 999" in result.err) == (2, True)


def test_a_configuration_of_megabytes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("# " + "x" * 1_000_000)
    with pytest.raises(DataError, match="more than 500000 bytes"):
        load_config(str(tmp_path / "c.yaml"))


@pytest.mark.parametrize("number", [float("nan"), -5, 0, "1", [1]])
def test_a_saved_model_s_format_is_a_whole_number(number: object, tmp_path: Path) -> None:
    folder = save_model(tiny_model("prototype"), tmp_path / "m")
    record = json.loads((folder / "fewseg.json").read_text())
    (folder / "fewseg.json").write_text(json.dumps(record | {"format": number}))
    with pytest.raises(DataError, match="damaged"):
        load_model(folder)


def test_an_input_that_would_fill_the_memory_is_no_model_s(tmp_path: Path) -> None:
    folder = save_model(tiny_model("prototype"), tmp_path / "m")
    arguments = json.loads((folder / "config.json").read_text())
    record = json.loads((folder / "fewseg.json").read_text())
    del record["checksum"]
    (folder / "config.json").write_text(json.dumps(arguments | {"image_size": 8192}))
    (folder / "fewseg.json").write_text(json.dumps(record))
    with pytest.raises(UsageError, match="image_size is 8192; give a whole number, 8 to 2048"):
        load_model(folder)


@pytest.fixture
def predictor(tmp_path: Path) -> FewShotPredictor:
    rng = np.random.default_rng(0)
    for name in "ab":
        Image.fromarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    mask = np.zeros((48, 64), np.uint8)
    mask[10:30, 10:40] = 1
    made = FewShotPredictor(tiny_model("prototype"))
    made.set_support([tmp_path / "a.png"], [mask])
    return made


def test_a_photo_that_takes_more_memory_than_there_is_stops_no_other(
    predictor: FewShotPredictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict, seen = predictor.predict_each, []

    def scarce(image: Image.Image) -> Any:
        seen.append(image)
        if len(seen) == 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 2028000000 bytes")
        return predict(image)

    monkeypatch.setattr(predictor, "predict_each", scarce)
    with pytest.warns(DataWarning, match=r"among the photos are supports or their masks \(a\.png\)"):
        done = segment_folder(predictor, [tmp_path / "a.png", tmp_path / "b.png"], tmp_path / "out")
    assert [Path(path).name for path, _ in done.written] == ["b.png"]
    assert done.failed == ((tmp_path / "a.png", "its 64 x 48 pixels take more memory than there is"),)


def test_an_output_that_is_no_folder_is_told_first(predictor: FewShotPredictor, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("file", "dangling", "loop"):
        with pytest.raises(UsageError, match=f"{name} is no folder; give one"):
            segment_folder(predictor, tmp_path / "b.png", tmp_path / name)
    (tmp_path / "out" / "b.png").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"b\.png is a folder, where a file is to be written"):
        segment_folder(predictor, tmp_path / "b.png", tmp_path / "out")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_loop_of_links_is_the_user_s(fewseg: Fewseg, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    result = fewseg("convert", "hdmnet", tmp_path / "x.pth", tmp_path / "loop" / "m")
    assert (result.code, "fault of fewseg" in result.err) in ((1, False), (2, False))


@pytest.mark.slow
def test_no_name_in_a_sentence_steers_the_terminal(
    fewseg: Fewseg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Scenes.__init__

    def init(self: Scenes, **options: Any) -> None:
        plain(self, **options)
        self.class_names = tuple(f"a\x1b[31m{i}" for i in range(len(self.class_names)))

    init.__signature__ = __import__("inspect").signature(plain)  # type: ignore[attr-defined]
    monkeypatch.setattr(Scenes, "__init__", init)
    result = fewseg("evaluate", "prototype", *SCENES, "model.weights=null", "--episodes", 2, "--repeats", 1)
    assert result.code == 0, result.err
    assert "left out of the mean: a\\x1b[31m" in result.out
    assert "\x1b" not in result.out


def test_a_long_value_is_cut_in_an_error_and_a_long_list_is_not(fewseg: Fewseg) -> None:
    result = fewseg("models", "--plugin", "x" * 5000 + "!")
    assert result.code == 2
    result = fewseg("segment", "no.jpg", "--support", "no.jpg", "--box", "9" * 50_000, "--out", "o")
    assert result.code == 2
    assert len(result.err) < 5000
    assert "give LEFT,TOP" in result.err or result.err.rstrip().endswith("...")


def test_pictures_of_a_check_have_names_that_every_system_takes(predictor: FewShotPredictor, tmp_path: Path) -> None:
    from fewseg.segment.supports import draw_supports

    mask = np.zeros((48, 64), np.uint8)
    mask[5:20, 5:20] = 1
    names = ["x" * 300, "../../up", "a\ud800", "c:d*"]
    drawn = draw_supports({name: ([tmp_path / "a.png"], [mask]) for name in names}, {}, tmp_path / "out")
    assert {path.parent for path in drawn} == {tmp_path / "out"}
    assert len(os.listdir(tmp_path / "out")) == 4


@pytest.mark.parametrize("wrong", [{"flip_p": -5.0}, {"blur_p": 1.5}, {"rotate": -1.0}, {"keep_foreground": 2.0}])
def test_shares_of_the_augmentation_are_shares(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=f"augment.{next(iter(wrong))}.* (give 0 to 1|are 0 or more)"):
        Augment(AugmentConfig(**wrong), 64)  # type: ignore[arg-type]


@pytest.mark.parametrize("command", ["show", "episodes"])
def test_a_seed_is_not_below_zero(command: str, fewseg: Fewseg, tmp_path: Path) -> None:
    result = fewseg("data", command, *SCENES, "--seed", -1, "--out", tmp_path / "o.png")
    assert (result.code, "fault" in result.err) == (2, False)


@pytest.mark.parametrize("kind", ["ICO", "ICNS", "PDF"])
def test_a_picture_of_a_format_that_is_not_listed_is_refused_under_any_name(kind: str, tmp_path: Path) -> None:
    Image.new("RGB", (32, 32), "red").save(tmp_path / "a.jpg", kind)
    with pytest.raises(DataError, match="is not a picture that can be read"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["point", "polygon"])
def test_many_shapes_on_a_large_photo_take_one_mask_s_memory(kind: str, tmp_path: Path) -> None:
    Image.new("RGB", (4000, 3000)).save(tmp_path / "a.jpg")
    places = [[[10.0 * i, 9.0 * i]] if kind == "point" else [[i, i], [3999, i], [3999, 2999]] for i in range(300)]
    shapes = [{"label": "cat", "shape_type": kind, "points": points} for points in places]
    content = {"version": "5", "imagePath": "a.jpg", "imageData": None, "imageHeight": 3000, "imageWidth": 4000}
    (tmp_path / "a.json").write_text(json.dumps(content | {"shapes": shapes}))
    found: dict[str, Any] = {}
    taken_or_told(lambda: found.update(load_supports(tmp_path / "a.json")))
    assert found["cat"][1][0].any()
