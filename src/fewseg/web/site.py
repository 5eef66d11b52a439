"""Writes the page into a folder: its own files, a model's graphs, an example to try, and the browser's runtime.

index.html, *.js, page.css   as they are in the package (`page/`)
sw.js, files.js              the service worker, and what it keeps: written last but for index.html
config.json                  what page.js needs to know of the rest
graphs/                      the model's graphs and weights
ort/                         onnxruntime-web, its modules as .js: many hosts know no type for .mjs
example/                     drawn scenes, and what the graphs say of one of them: the browser must say the same
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewseg import __version__
from fewseg.data.images import write_image
from fewseg.data.sets.scenes import Scenes
from fewseg.errors import DataError, UsageError, suggest
from fewseg.files import file_sha256, replacing
from fewseg.runtime.graphs import DRAW, GRAPHS, MATCH, QUERY, SUPPORT, WEIGHTS, OnnxSegmenter, read_record
from fewseg.storage.engines import graphs_of
from fewseg.storage.shipped import shipped_models
from fewseg.web.ort_web import VERSION, WASM, WEBGPU, ort_files

PAGE = Path(str(resources.files("fewseg") / "web" / "page"))
LISTED = "files.js"
"""Of the page, what it consists of; by it a folder is known as one that holds a page."""
SERVED = {"api.html", "api.js", "enter.js"}
"""Of the page, what only a server has."""
_MARK = "self.FEWSEG = "
_CHECKED = 32
"""Side of the map by which browser and Python are compared."""


def page_files() -> list[Path]:
    """The page's own files."""
    return [file for file in PAGE.iterdir() if file.suffix in (".html", ".css", ".js", ".svg")]


@dataclass(frozen=True)
class Example:
    """Scenes of `Scenes` by number, all with one object of the same class."""

    class_id: int = 5
    supports: tuple[int, ...] = (17, 25)
    queries: tuple[int, ...] = (43, 66, 86)
    size: int = 480

    @property
    def scenes(self) -> Scenes:
        return Scenes(subset="test", level="simple", images=100, size=self.size)

    @property
    def name(self) -> str:
        return Scenes.class_names[self.class_id - 1]

    def told(self) -> dict[str, Any]:
        """What the page is told of it: its class, and where its pictures are."""
        queries = [self._path(number) for number in self.queries]
        supports = [{"photo": self._path(n), "mask": self._path(n, "-mask")} for n in self.supports]
        return {"name": self.name, "supports": supports, "queries": queries}

    def pictures(self) -> dict[str, Callable[[], Image.Image]]:
        """What draws each of its pictures, by its path."""
        photos = {self._path(n): partial(self._photo, n) for n in (*self.supports, *self.queries)}
        return photos | {self._path(n, "-mask"): partial(self._drawn_mask, n) for n in self.supports}

    def mask(self, number: int) -> NDArray[np.uint8]:
        """(H, W) {0, 1}: where a scene has the object."""
        return (self.scenes.load(number)[1] == self.class_id).astype(np.uint8)

    def _path(self, number: int, what: str = "") -> str:
        return f"example/{self.name}-{number}{what}.png"

    def _photo(self, number: int) -> Image.Image:
        return self.scenes.load(number)[0]

    def _drawn_mask(self, number: int) -> Image.Image:
        return Image.fromarray(255 * self.mask(number))


def write_page(folder: Path, *, model: str = "lite", runtime: Path | None = None, webgpu: bool = False) -> int:
    """Write the page for a shipped or exported model; the number of bytes written.

    `runtime` as `ort_files` takes it; `webgpu` adds what only graphics processors need. UsageError where
    the model has no graphs, or the folder holds something else than such a page.
    """
    graphs = graphs_of(model)
    if graphs is None:
        known = [name for name in shipped_models() if graphs_of(name)]
        raise UsageError(
            f"{model} has no graphs, which are all that a browser can run; choose {', '.join(known)}, or the folder "
            f"that fewseg export MODEL --onnx writes.{suggest(model, known)}"
        )
    before = _check_folder(folder)
    ort = ort_files(runtime)
    record = read_record(graphs)
    parts = {f"ort/{name.replace('.mjs', '.js')}": ort / name for name in (*WASM, *(WEBGPU if webgpu else ()))}
    parts |= {f"graphs/{name}": graphs / name for name in (*GRAPHS, WEIGHTS)}
    parts |= {f"ort/{name}": file for name, file in _licences().items()}
    parts |= {file.name: file for file in page_files() if file.name not in SERVED}
    for name, source in parts.items():
        if name not in ("index.html", "sw.js"):
            _copy(source, folder / name)
    example = _write_example(graphs, folder, shots=record["shots"])
    names = {"query": QUERY, "support": SUPPORT, "match": MATCH, "draw": DRAW}
    large = [name for name in parts if name.endswith((".wasm", ".onnx", ".bin"))]
    config = {
        "fewseg": __version__,
        "model": model if model in shipped_models() else Path(model).name,
        "record": record,
        "graphs": {key: f"graphs/{name}" for key, name in names.items()},
        "weights": {"path": WEIGHTS, "file": f"graphs/{WEIGHTS}"},
        "ort": {"version": VERSION, "webgpu": webgpu},
        "hashes": {name: file_sha256(folder / name)[:16] for name in large},
        "example": example,
    }
    _write(folder / "config.json", json.dumps(config, indent=1) + "\n")
    small = sorted({*parts, "config.json", *example["files"]} - {*large, "index.html", "sw.js"})
    hashed = [f"{name}?{config['hashes'][name]}" for name in large]
    whole = hashlib.sha256("".join([*hashed, *(file_sha256(folder / name) for name in small)]).encode())
    listed = {"version": whole.hexdigest()[:16], "page": ["./", *small], "large": hashed}
    _write(folder / LISTED, f"{_MARK}{json.dumps(listed, indent=1)};\n")
    for name in ("sw.js", "index.html"):
        _copy(parts[name], folder / name)
    for name in before - {*small, *large}:
        (folder / name).unlink(missing_ok=True)
    return sum((folder / name).stat().st_size for name in (*small, *large, LISTED, "index.html", "sw.js"))


def _check_folder(folder: Path) -> set[str]:
    """Files of the page that is there already; UsageError where something would be overwritten that is not one."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; give a folder for the page")
    if not folder.is_dir() or not any(folder.iterdir()):
        return set()
    listed = folder / LISTED
    text = listed.read_text(encoding="utf-8", errors="replace") if listed.is_file() else ""
    if not text.startswith(_MARK):
        raise UsageError(f"{folder} holds other files, and none of this page's; give a new or an empty folder")
    return set(re.findall(r'"((?:\w+/)?\w[\w-]*(?:\.[\w-]+)+)[?"]', text))  # no way out of the folder


def _copy(source: Path, target: Path) -> None:
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)


def _write(target: Path, text: str) -> None:
    with replacing(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _licences() -> dict[str, Path]:
    """The licence of onnxruntime, which its Python package has in it and its browser's does not."""
    package = metadata.distribution("onnxruntime").locate_file("onnxruntime")
    file = Path(str(package)) / "LICENSE"
    return {"LICENSE.txt": file} if file.is_file() else {}


def _write_example(graphs: Path, folder: Path, *, shots: int | None) -> dict[str, Any]:
    """Write the example's pictures; what the page is told of it: files, class, and what the graphs find."""
    example = Example()
    engine = OnnxSegmenter(graphs)
    pictures = example.pictures()
    for path, draw in pictures.items():
        write_image(draw(), folder / path)
    taught = [(np.asarray(example.scenes.load(number)[0]), example.mask(number)) for number in example.supports]
    first = np.asarray(example.scenes.load(example.queries[0])[0])
    several = [taught[number % len(taught)] for number in range(shots or 1)]
    found = engine.match(engine.encode_query(first), engine.encode_support(several), size=(_CHECKED, _CHECKED))
    if not np.isfinite(found.proba).all():
        raise DataError(f"{graphs}: its answer to a drawn scene holds values that are no numbers")
    expected = [round(float(value), 4) for value in found.proba.ravel()]
    check = {"supports": len(several), "side": _CHECKED, "proba": expected}
    return example.told() | {"files": list(pictures), "check": check}
