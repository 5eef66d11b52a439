"""Writes tiny data sets in their real directory formats, with label maps counted by hand."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import scipy.io
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as rle

SIDE = 64
"""Of a tree's pictures: 64 * 64 = 4096 pixels, twice the 2048 that the benchmarks ask for."""


def label_map(pixels: Mapping[int, int], *, void: int = 0, side: int = SIDE) -> NDArray[np.uint8]:
    """A (side, side) label map with that many pixels of every class, then void, then background, in reading order."""
    flat = np.concatenate(
        [np.full(n, c, np.uint8) for c, n in [*pixels.items(), (255, void)]] or [np.zeros(0, np.uint8)]
    )
    return np.pad(flat, (0, side * side - len(flat))).reshape(side, side)


def photo(labels: NDArray[np.uint8], *, seed: int = 0) -> Image.Image:
    """A noisy picture whose colours show the labels."""
    noise = np.random.default_rng(seed).integers(0, 40, (*labels.shape, 3))
    return Image.fromarray((noise + labels[..., None] * np.array([37, 91, 53]) % 200).astype(np.uint8))


def made(path: Path) -> Path:
    """The path, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write_png(labels: NDArray[np.uint8], path: Path, *, palette: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels)
    if palette:
        image.putpalette(bytes(3) + np.random.default_rng(0).integers(0, 256, 765).astype(np.uint8).tobytes())
    image.save(path)


def write_jpg(labels: NDArray[np.uint8], path: Path) -> None:
    """The photo of a label map; no two paths get the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    photo(labels, seed=zlib.crc32(f"{path.parent.name}/{path.name}".encode())).save(path, quality=95)


def write_voc(
    root: Path, train: Mapping[str, NDArray[np.uint8]], val: Mapping[str, NDArray[np.uint8]], *, photos: bool = True
) -> Path:
    """`root`/VOC2012 with palette label maps."""
    voc = root / "VOC2012"
    for name, images in (("train", train), ("val", val)):
        write_list(voc / "ImageSets" / "Segmentation" / f"{name}.txt", list(images))
        for image_id, labels in images.items():
            write_png(labels, voc / "SegmentationClass" / f"{image_id}.png")
            if photos:
                write_jpg(labels, voc / "JPEGImages" / f"{image_id}.jpg")
    return voc


def write_sbd(
    directory: Path, train: Mapping[str, NDArray[np.uint8]], val: Mapping[str, NDArray[np.uint8]], *, mats: bool = True
) -> None:
    """SBD's lists, and its .mat files as SBD's own: a GTcls struct with a field Segmentation."""
    for name, images in (("train", train), ("val", val)):
        write_list(directory / f"{name}.txt", list(images))
        for image_id, labels in images.items():
            if mats:
                write_mat(labels, directory / "cls" / f"{image_id}.mat")
                write_jpg(labels, directory / "img" / f"{image_id}.jpg")


def write_mat(labels: NDArray[np.uint8], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    struct = np.zeros((1, 1), dtype=[("Boundaries", object), ("Segmentation", object), ("CategoriesPresent", object)])
    struct[0, 0] = (np.zeros(1), labels, np.unique(labels))
    scipy.io.savemat(path, {"GTcls": struct})


def write_list(path: Path, names: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names))


def write_masks(root: Path, images: Mapping[str, NDArray[np.uint8]]) -> None:
    """`folder` by class: images/CLASS/NAME.jpg and masks/CLASS/NAME.png, names given as "CLASS/NAME"."""
    for name, mask in images.items():
        write_jpg(mask, root / "images" / f"{name}.jpg")
        write_png((mask > 0).astype(np.uint8) * 255, root / "masks" / f"{name}.png", palette=False)


def write_labels(root: Path, images: Mapping[str, NDArray[np.uint8]], *, classes: Sequence[str] = ()) -> None:
    """`folder` by label maps: images/NAME.jpg and labels/NAME.png, and classes.txt where names are given."""
    for name, labels in images.items():
        write_jpg(labels, root / "images" / f"{name}.jpg")
        write_png(labels, root / "labels" / f"{name}.png")
    if classes:
        write_list(root / "classes.txt", classes)


def many(classes: Sequence[int], each: int, *, pixels: int = 2500, prefix: str = "") -> dict[str, NDArray[np.uint8]]:
    """`each` images of every class alone, named by class and number."""
    return {f"{prefix}{c:02d}_{n}": label_map({c: pixels + 10 * n}) for c in classes for n in range(each)}


def square(x: int, y: int, side: int) -> list[list[float]]:
    """A polygon that COCO's rasteriser fills with side * side pixels."""
    return [[x, y, x + side, y, x + side, y + side, x, y + side]]


def compressed(mask: NDArray[np.uint8]) -> dict[str, object]:
    """A mask as COCO's compressed run lengths."""
    encoded = rle.encode(np.asfortranarray(mask))
    return {"size": list(mask.shape), "counts": bytes(encoded["counts"]).decode()}  # type: ignore[arg-type]


def uncompressed(mask: NDArray[np.uint8]) -> dict[str, object]:
    """A mask as COCO's plain run lengths, as crowds have them."""
    flat = np.concatenate([[0], mask.ravel(order="F"), [2]])
    edges = np.flatnonzero(np.diff(flat))
    return {"size": list(mask.shape), "counts": np.diff(np.concatenate([[0], edges])).tolist()}


def write_coco(
    path: Path,
    images: Mapping[str, Sequence[tuple[int, object]]],
    *,
    categories: Mapping[int, str],
    photos: Path,
    side: int = SIDE,
    extra: Mapping[str, object] | None = None,
) -> None:
    """A COCO file: per image its (category id, segmentation) in order; one of plain run lengths is a crowd."""
    annotations = []
    for number, (name, instances) in enumerate(images.items()):
        write_jpg(label_map({1 + number % 80: 100}, side=side), photos / name)
        for category, segmentation in instances:
            crowd = isinstance(segmentation, dict) and isinstance(segmentation["counts"], list)
            entry = {"image_id": 7 * number + 3, "category_id": category, "segmentation": segmentation}
            annotations.append(entry | {"id": len(annotations), "iscrowd": int(crowd), "area": 1, "bbox": [0, 0, 1, 1]})
    listed = [
        {"id": 7 * n + 3, "file_name": name, "height": side, "width": side, "license": 1}
        for n, name in enumerate(images)
    ]
    content = {
        "info": {"description": "tiny"},
        "annotations": annotations,
        "images": listed,
        "categories": [{"id": c, "name": name, "supercategory": "thing"} for c, name in categories.items()],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content | dict(extra or {}), ensure_ascii=False), encoding="utf-8")


def write_fss(root: Path, parts: Mapping[str, Sequence[str]], *, images: int = 10) -> None:
    """FSS-1000: CLASS/N.jpg, CLASS/N.png (RGB, 0 or 255) and the three lists."""
    for part, names in parts.items():
        write_list(root / f"{part}.txt", names)
        for name in names:
            for n in range(1, images + 1):
                mask = label_map({1: 300 + n})
                write_jpg(mask, root / name / f"{n}.jpg")
                Image.fromarray(np.repeat(mask[..., None] * 255, 3, 2)).save(root / name / f"{n}.png")
