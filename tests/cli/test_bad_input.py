"""Every command, given what it cannot use: a short message that names it, the right exit code, nothing half-written."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fewseg.build import create_model
from fewseg.data import images
from fewseg.data.folder_layout import TREES
from fewseg.errors import UsageError
from fewseg.storage.saved import load_model, save_model
from helpers import SCENES, TINY, Fewseg, full_disk

SIZE = (40, 30)


def photo(mode: str = "RGB", size: tuple[int, int] = SIZE) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(values).convert(mode)


def mask_of(size: tuple[int, int] = SIZE, *, inside: int = 255, outside: int = 0) -> Image.Image:
    mask = Image.new("L", size, outside)
    mask.paste(inside, (5, 5, size[0] - 5, size[1] - 5))
    return mask


def jpeg(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, options.pop("format", "JPEG"), **options)
    return buffer.getvalue()


def png(image: Image.Image, **options: Any) -> bytes:
    return jpeg(image, format="PNG", **options)


def deep() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 65536, SIZE[::-1], np.uint16))


def huge() -> bytes:
    """A PNG that says it is 20,000 x 20,000: what a bomb looks like before it is unpacked."""
    content = bytearray(png(photo()))
    content[16:24] = struct.pack(">II", 20_000, 20_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


GOOD = {
    "1x1.png": lambda: png(photo(size=(1, 1))),
    "20000px.png": lambda: png(photo(size=(20_000, 4))),
    "cmyk.jpg": lambda: jpeg(photo("CMYK")),
    "grey.png": lambda: png(photo("L")),
    "palette-alpha.png": lambda: png(photo("P"), transparency=3),
    "16-bit.png": lambda: png(deep()),
    "animated.gif": lambda: jpeg(photo("P"), format="GIF", save_all=True, append_images=[photo("P").rotate(90)]),
    "one-bit.png": lambda: png(photo("1")),
    "alpha.png": lambda: png(photo("RGBA")),
}
BAD = {
    "empty.jpg": lambda: b"",
    "truncated.jpg": lambda: jpeg(photo())[:200],
    "truncated.png": lambda: png(photo())[:-400],
    "text.png": lambda: b"not a picture at all\n" * 40,
    "html.jpg": lambda: b"<!DOCTYPE html><title>404</title>",
    "zip.png": lambda: b"PK\x03\x04" + bytes(100),
    "zeros.png": lambda: bytes(5000),
    "bomb.png": huge,
    "header.jpg": lambda: b"\xff\xd8\xff",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model, a good photo with its mask, and every bad file."""
    folder = tmp_path_factory.mktemp("bad")
    torch.manual_seed(0)
    save_model(create_model("prototype", backbone="timm/test_resnet", image_size=64), folder / "model")
    (folder / "photo.jpg").write_bytes(jpeg(photo()))
    mask_of().save(folder / "mask.png")
    for name, content in (GOOD | BAD).items():
        (folder / name).write_bytes(content())
    (folder / "folder.png").mkdir()
    (folder / "loop.png").symlink_to(folder / "loop.png")
    return folder


def told(result: Any, code: int, *, lines: int = 3) -> None:
    """One message of a few lines, the code, and no trace of the program's inside."""
    assert result.code == code, result.err
    assert "Traceback" not in result.err
    assert "fault of fewseg" not in result.err
    said = result.err.replace(TREES, "the layouts")
    assert code == 0 or 1 <= len(said.strip().splitlines()) <= lines, result.err
    assert len(result.err) < 500 * lines


def no_leftovers(folder: Path) -> None:
    assert not [p for p in folder.rglob(".*") if p.suffix in (".tmp", ".new")]


def segment(fewseg: Fewseg, place: Path, out: Path, **changed: Any) -> Any:
    given = {"model": place / "model", "support": place / "photo.jpg", "mask": place / "mask.png"} | changed
    query = given.pop("query", place / "photo.jpg")
    words = [word for key, value in given.items() for word in (f"--{key}", value)]
    return fewseg("segment", *words, "--out", out, query)


@pytest.mark.parametrize("name", [*BAD, "missing.png", "folder.png", "loop.png"])
@pytest.mark.parametrize("role", ["query", "support", "mask"])
def test_a_picture_that_cannot_be_read(role: str, name: str, place: Path, tmp_path: Path, fewseg: Fewseg) -> None:
    result = segment(fewseg, place, tmp_path / "out", **{role: place / name})
    usage = role == "query" and name in ("missing.png", "folder.png", "loop.png")
    told(result, 2 if usage else 1)
    assert name in result.err
    assert name != "bomb.png" or "could be decompression bomb" in result.err
    assert not list((tmp_path / "out").rglob("*.png")) if (tmp_path / "out").exists() else True


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("role", ["query", "support"])
def test_an_unusual_picture_is_used(role: str, name: str, place: Path, tmp_path: Path, fewseg: Fewseg) -> None:
    with Image.open(place / name) as image:
        size = image.size
    Image.new("L", size, 255).save(tmp_path / "mask.png")
    changed = {role: place / name} | ({"mask": tmp_path / "mask.png"} if role == "support" else {})
    told(segment(fewseg, place, tmp_path / "out", **changed), 0)
    no_leftovers(tmp_path)


MASKS = {
    "all background": (lambda: png(Image.new("L", SIZE, 0)), 1),
    "of another size": (lambda: png(mask_of((30, 40))), 1),
    "1x1": (lambda: png(Image.new("L", (1, 1), 255)), 1),
    "several classes": (lambda: png(Image.fromarray(np.arange(1200, dtype=np.uint8).reshape(30, 40) // 32)), 2),
    "a photo": (lambda: png(photo()), 2),
    "all ignore": (lambda: png(mask_of(inside=255, outside=255)), 0),  # 0/255 masks: all of it is the object
    "only ignore and background": (lambda: png(voc([0, 255])), 0),
    "palette with transparent background": (lambda: png(voc([0, 1]), transparency=0), 0),
    "16-bit": (lambda: png(Image.fromarray(np.asarray(mask_of()).astype(np.uint16) * 257)), 0),
}


def voc(values: list[int]) -> Image.Image:
    image = mask_of(inside=values[1], outside=values[0])
    image.putpalette([c for n in range(256) for c in (n, 5 * n % 256, 7 * n % 256)])
    return image


@pytest.mark.parametrize("kind", MASKS)
def test_masks_of_every_kind(kind: str, place: Path, tmp_path: Path, fewseg: Fewseg) -> None:
    make, code = MASKS[kind]
    (tmp_path / "kind.png").write_bytes(make())
    told(segment(fewseg, place, tmp_path / "out", mask=tmp_path / "kind.png"), code)


def test_a_folder_with_bad_files_is_done_but_for_them(place: Path, tmp_path: Path, fewseg: Fewseg) -> None:
    (tmp_path / "in").mkdir()
    for name in (*GOOD, *BAD):
        (tmp_path / "in" / name).write_bytes((place / name).read_bytes())
    result = segment(fewseg, place, tmp_path / "out", query=tmp_path / "in")
    told(result, 1, lines=4 + len(BAD))  # a line of the progress, one of the number, two notes
    assert f"{len(GOOD)} masks in" in result.out
    assert all(name in result.err for name in BAD)
    no_leftovers(tmp_path)


FILES = {
    "empty.yaml": b"",
    "list.yaml": b"- 1\n- 2\n",
    "open.yaml": b"train: {epochs: [1",
    "tab.yaml": b"train:\n\tepochs: 1\n",
    "python.yaml": b"train: !!python/object/apply:os.system ['touch ran']\n",
    "number.yaml": b"train: 7\n",
    "type.yaml": b"train: {epochs: many}\n",
    "unknown.yaml": b"train: {epochz: 1}\n",
    "group.yaml": b"trian: {epochs: 1}\n",
    "binary.yaml": bytes(range(256)),
    "interpolation.yaml": b"train: {epochs: '${nowhere}'}\n",
    "alias.yaml": b"a: &a [x, x]\nb: &b [*a, *a]\ntrain: {epochs: *b}\n",
    "empty.csv": b"",
    "binary.csv": bytes(range(256)),
    "header.csv": b"# source: scenes\n",
    "quotes.csv": b'# source: scenes\n"',
    "empty.pth": b"",
    "text.pth": b"hello",
    "empty.safetensors": b"",
    "header.safetensors": struct.pack("<Q", 2**60) + b"{}",
    "empty.json": b"",
    "list.json": b"[]",
    "open.json": b'{"images": [',
    "deep.json": b'{"images": ' + b"[" * 100_000,
}
QUICK = ("train.epochs=1", "train.episodes_per_epoch=2", "train.workers=0")
EVALUATE = ("evaluate", "prototype", *SCENES, *TINY, "--workers", "0", "--repeats", "1", "--episodes", "1")
SEGMENT = ("segment", "--model", "dense", "--out", "none")
WORDS: list[tuple[tuple[str, ...], int]] = [
    *[
        (("train", name), 2 if name[:4] in ("numb", "type", "unkn", "grou", "inte", "alia") else 1)
        for name in FILES
        if name.endswith(".yaml") and name != "empty.yaml"
    ],
    *[((*EVALUATE, "--episodes-file", name), 1) for name in (*(n for n in FILES if n.endswith(".csv")), "no.csv", ".")],
    *[
        ((*EVALUATE, f"model.weights={name}"), 1)
        for name in ("empty.pth", "text.pth", "empty.safetensors", "header.safetensors", "no.pth", ".")
    ],
    *[(("convert", "hdmnet", name, "out"), 1) for name in ("empty.pth", "text.pth", "no.pth", ".")],
    (("data", "stats", "coco_json", "data.root=."), 1),
    (("convert", "hdmnet", "text.pth", "out", "--shots", "0"), 2),
    (("convert", "nonet", "text.pth", "out"), 2),
    *[
        (("data", "stats", "coco_json", f"data.annotations={name}", "data.root=."), 1)
        for name in ("empty.json", "list.json", "open.json", "deep.json", "no.json")
    ],
    *[
        (("data", command, "pascal5i", f"data.root={root}"), 1)
        for command in ("stats", "check")
        for root in ("none", ".")
    ],
    *[
        (("data", command, "folder", f"data.root={root}"), 1)
        for command in ("stats", "check")
        for root in ("none", ".")
    ],
    *[
        (("data", command, "fss1000", f"data.root={root}"), 1)
        for command in ("stats", "check")
        for root in ("none", ".")
    ],
    (("data", "stats", "nothing"), 2),
    (("data", "stats", "os:path"), 2),
    (("data", "stats", "scenes", "data.level=hard"), 2),
    (("data", "stats", "scenes", "data.images=many"), 2),
    (("data", "stats", "scenes", "colour=1"), 2),
    (("data", "show", "scenes", "data.images=20", "data.size=64", "--out", "x.txt"), 2),
    (("data", "show", "scenes", "data.images=20", "data.size=64", "--count", "0", "--out", "x.png"), 2),
    (("data", "episodes", "scenes", "data.fold=9", "--out", "x.csv"), 2),
    (("data", "episodes", "scenes", "--protocol", "none", "--out", "x.csv"), 2),
    (("data", "episodes", "scenes", "data.shots=0", "--out", "x.csv"), 2),
    (("data", "episodes", "scenes", "data.images=20", "data.size=64", "data.shots=99", "--out", "x.csv"), 1),
    (("data", "download", "nothing", "--root", "."), 2),
    (("data", "download", "fss1000", "--root", "."), 2),
    (("train",), 2),
    (("train", "nothing"), 2),
    (("train", "hdmnet", "scenes", "train.epochs"), 2),
    (("train", "hdmnet", "scenes", "train.epochs=0"), 2),
    (("train", "hdmnet", "scenes", "train.epochs=-1"), 2),
    (("train", "hdmnet", "scenes", "train.epochs=1.5"), 2),
    (("train", "hdmnet", "scenes", "train.lr=nan"), 2),
    (("train", "hdmnet", "scenes", "train.lr=fast"), 2),
    (("train", "hdmnet", "scenes", "train.optimizer=lion"), 2),
    (("train", "hdmnet", "scenes", "train=1"), 2),
    (("train", "hdmnet", "scenes", "model.backbone=none", *QUICK, "model.weights=null"), 2),
    (("train", "hdmnet", "scenes", "data.fold=7", *TINY), 2),
    (("train", "hdmnet", "scenes", *TINY, "train.batch_size=0"), 2),
    (("train", "hdmnet", *SCENES, *TINY, *QUICK, "base.run=none"), 1),
    (("train", "hdmnet", *SCENES, *TINY, "--resume", "--out", "none"), 1),
    (("train", "--resume", "--out", "none"), 1),
    (("train", "hdmnet", *SCENES, *TINY, *QUICK, "--out", "empty.json"), 1),
    (("train", "hdmnet", "pascal5i", "data.root=none", *TINY), 1),
    (("train", "hdmnet", "coco20i", "data.root=.", *TINY), 1),
    (("evaluate", "none/there"), 2),
    (("evaluate", "."), 1),
    ((*EVALUATE, "--protocol", "none"), 2),
    ((*EVALUATE, "--shots", "x"), 2),
    ((*EVALUATE, "--shots", "99"), 1),
    ((*EVALUATE, "--cache-gb", "-1"), 2),
    ((*EVALUATE, "--device", "tpu"), 2),
    ((*EVALUATE, "--repeats", "0"), 2),
    ((*EVALUATE, "--out", "empty.json/x.json"), 1),
    (("compare",), 2),
    (("compare", "."), 1),
    (("compare", "prototype", *SCENES, *TINY, "--repeats", "1", "--episodes", "1", "--released", "hdmnet"), 2),
    (("compare", "prototype", *SCENES, *TINY, "--repeats", "1", "--episodes", "1", "--released", "hdmnet=no.pth"), 1),
    (("rerun", "none"), 1),
    (("rerun", "."), 1),
    (("replay", "none"), 1),
    (("replay", "."), 1),
    (("segment",), 2),
    ((*SEGMENT, "."), 2),
    *[
        ((*SEGMENT, "--annotations", name, "."), 1)
        for name in ("empty.json", "list.json", "open.json", "deep.json", "no.json")
    ],
    ((*SEGMENT, "--annotations", "empty.csv", "."), 2),
    ((*SEGMENT, "--supports", "none", "."), 2),
    ((*SEGMENT, "--supports", ".", "."), 1),
    ((*SEGMENT, "--support", "text.pth", "--box", "1,2", "."), 2),
    ((*SEGMENT, "--class", "cat", "."), 2),
    (("app",), 2),
    (("serve", "--model", "none/there"), 2),
    (("serve", "--model", "."), 1),
    (("serve", "--model", "dense", "--port", "0"), 2),
    (("report",), 2),
    (("report", "none/there"), 2),
    (("report", "."), 1),
    (("report", "dense", "--out", "x.txt"), 2),
    (("export", "dense"), 2),
    (("export", "none/there", "--onnx", "none"), 2),
    (("export", ".", "--onnx", "none"), 1),
    (("experiment", "nothing"), 2),
    (("experiment", "statistics", "nothing", "--out", "none"), 2),
    (("experiment", "statistics", "scenes", "--folds", "9", "--out", "none"), 2),
    (("experiment", "statistics", "pascal5i", "data.root=nowhere", "--out", "none"), 1),
    (("demo", "--out", "empty.json"), 2),
    (("nothing",), 2),
    (("models", "--all"), 2),
]


@pytest.mark.slow
@pytest.mark.parametrize(("words", "code"), WORDS, ids=[" ".join(words) for words, _ in WORDS])
def test_words_and_files_that_cannot_be_used(
    words: tuple[str, ...], code: int, fewseg: Fewseg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    result = fewseg(*words)
    told(result, code, lines=8 if "Usage:" in result.err else 3)
    no_leftovers(tmp_path)
    assert not (tmp_path / "ran").exists()
    assert {p.name for p in tmp_path.iterdir()} - FILES.keys() <= {".fewseg", "none"}


def test_the_documented_figures_are_these() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text()
    for figure in (f"{len(BAD) + 3} x 3", f"{len(GOOD)} x 2", f"{len(MASKS)}", f"{len(WORDS)} command lines"):
        assert f"| {figure} |" in page


def test_a_folder_without_permission_is_told(
    place: Path, tmp_path: Path, fewseg: Fewseg, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes((place / "photo.jpg").read_bytes())
    (tmp_path / "in").chmod(0)
    if os.geteuid() == 0:  # who may read everything
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path / "in")
    result = segment(fewseg, place, tmp_path / "out", query=tmp_path / "in")
    (tmp_path / "in").chmod(0o700)
    told(result, 2, lines=8)
    assert "is not readable" in result.err
    assert not (tmp_path / "out").exists()


def test_a_full_disk_ends_segment_with_a_message(
    place: Path, tmp_path: Path, fewseg: Fewseg, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "big.jpg").write_bytes(jpeg(photo(size=(400, 300))))
    with full_disk(2000):
        result = segment(fewseg, place, tmp_path / "out", query=tmp_path / "big.jpg", format="coco")
    told(result, 1)
    assert "File too large" in result.err
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_ctrl_c_ends_segment_without_a_half_written_file(
    place: Path, tmp_path: Path, fewseg: Fewseg, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, calls = images.write_image, []

    def write(*args: Any, **options: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt  # what the signal leads to; a test's own process may ignore it
        plain(*args, **options)

    monkeypatch.setattr(images, "write_image", write)
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes((place / "photo.jpg").read_bytes())
    result = segment(fewseg, place, tmp_path / "out", query=tmp_path / "in", format="coco")
    assert (result.code, "with --resume goes on" in result.err) == (130, True)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a_overlay.jpg"]


def test_a_saved_model_replaces_nothing_but_a_saved_model(place: Path, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes((place / "photo.jpg").read_bytes())
    model = load_model(place / "model")
    with pytest.raises(UsageError, match="is there already and is no saved model"):
        save_model(model, tmp_path)
    assert (tmp_path / "photo.jpg").is_file()
    save_model(model, save_model(model, tmp_path / "model"))
