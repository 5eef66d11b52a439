"""Writes tiny data sets that papers report since 2023, in their real directory formats."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import trees
from trees import label_map, made, write_jpg, write_png

SUIM = ("FV", "HD", "PF", "RI", "RO", "SR", "WR")
SUIM_COLOURS = {"FV": "110", "HD": "001", "PF": "010", "RI": "101", "RO": "100", "SR": "111", "WR": "011"}


def binary(inside: NDArray[np.bool_], path: Path) -> None:
    """A mask of 0 and 255."""
    write_png(np.where(inside, np.uint8(255), np.uint8(0)), path, palette=False)


def write_deepglobe(root: Path) -> None:
    """Three tiles of each neighbouring pair of classes, in the folders of both."""
    for c in range(1, 7):
        for n in range(3):
            labels = label_map({c: 500 + n, c % 6 + 1: 700})
            for class_id in np.unique(labels[labels > 0]).tolist():
                folder = root / "Deepglobe" / str(class_id) / "test"
                photo = folder / "origin" / f"{c}{n}_sat_05.jpg"
                trees.photo(labels, seed=10 * c + n).save(made(photo))
                binary(labels == class_id, folder / "groundtruth" / f"{photo.stem}.png")


def write_isic(root: Path, *, folders: bool, squeezed: bool = False) -> None:
    """Three photos of each diagnosis, sorted into folders or listed in class_id.csv."""
    rows = ["ID,Class"]
    for c, name in enumerate(("seborrheic_keratosis", "nevus", "melanoma"), 1):
        for n in range(3):
            labels, image_id = label_map({1: 300 + 100 * c + n}), f"ISIC_000{c}{n}"
            photos = root / "ISIC2018_Task1-2_Training_Input"
            path = made((photos / str(c) if folders else photos) / f"{image_id}.jpg")
            photo = trees.photo(labels, seed=10 * c + n)
            (photo.resize((512, 512)) if squeezed else photo).save(path)
            binary(labels == 1, root / "ISIC2018_Task1_Training_GroundTruth" / f"{image_id}_segmentation.png")
            rows.append(f"{image_id},{name}")
    if not folders:
        (root / "class_id.csv").write_text("\n".join(rows))


def write_chest_xray(root: Path) -> None:
    """Four X-rays of one hospital, two of another whose masks have no ending, one without a mask."""
    for n in range(6):
        labels = label_map({1: 900 + n})
        name = f"CHNCXR_000{n}_0" if n < 4 else f"MCUCXR_000{n}_0"
        trees.photo(labels, seed=n).convert("L").save(made(root / "CXR_png" / f"{name}.png"))
        binary(labels == 1, root / "masks" / f"{name}{'_mask' if n < 4 else ''}.png")
    trees.photo(label_map({}), seed=9).save(root / "CXR_png" / "CHNCXR_0009_1.png")


def suim_labels() -> dict[str, NDArray[np.uint8]]:
    """Three images of each class, with some of the next one."""
    return {
        f"{SUIM[c - 1].lower()}_r_{n}_": label_map({c: 600 + n, c % 7 + 1: 300}) for c in range(1, 8) for n in range(3)
    }


def write_suim(root: Path, *, merged: bool) -> None:
    for number, (name, labels) in enumerate(suim_labels().items()):
        base = root if merged else root / ("TEST" if number % 3 == 2 else "train_val")
        write_jpg(labels, base / "images" / f"{name}.jpg")
        if merged:
            for c, folder in enumerate(SUIM, 1):  # most of them mark nothing
                path = made(base / "masks" / folder / f"{name}.bmp")
                Image.fromarray(np.where(labels == c, np.uint8(255), np.uint8(0))).save(path)
        else:
            colours = np.array([[0, 0, 0], *([250 * int(bit) + 3 for bit in SUIM_COLOURS[c]] for c in SUIM)], np.uint8)
            Image.fromarray(colours[labels]).save(made(base / "masks" / f"{name}.bmp"))


def write_isaid(root: Path, *, by_kind: bool = False) -> None:
    """Two patches of each class for training and three for testing, each with some void."""
    for part, each in (("train", 2), ("val", 3)):
        photos, maps = (
            ((f"{kind}_dir/{part}" for kind in ("img", "ann")))
            if by_kind
            else (
                f"{part}/images",
                f"{part}/semantic_png",
            )
        )
        for c in range(1, 16):
            for n in range(each):
                labels = label_map({c: 2048 + n}, void=50)
                name = f"P{c:04d}_{n}_256_0_256"
                trees.photo(labels, seed=10 * c + n).save(made(root / photos / f"{name}.png"))
                write_png(labels, root / maps / f"{name}_instance_color_RGB.png", palette=False)


def _listed(root: Path, name: str, images: list[dict], annotations: list[dict], categories: list[dict]) -> None:
    content = {"images": images, "annotations": annotations, "categories": categories}
    made(root / name).write_text(json.dumps(content))


def write_lvis(root: Path) -> None:
    """300 categories, of which 21 (those of ids 3, 13, 23, ...) have two images in train and in val, and 255 two in val
    alone; two squares of each class a photo. Val's photos lie in train2017 and val2017 by turns.
    """
    categories = [{"id": c, "name": f"thing_{c:04d}", "frequency": "c"} for c in range(1, 301)]
    often = range(3, 204, 10)
    for part, extra in (("train", []), ("val", [255, 255])):
        images, annotations = [], []
        for c in [*often, *often, *extra]:
            number = len(images) + (1000 if part == "val" else 1)
            folder = "train2017" if part == "train" or number % 2 else "val2017"
            name = f"{number:012d}.jpg"
            trees.photo(label_map({c % 80 + 1: 100}), seed=number).save(made(root / folder / name))
            url = f"http://images.cocodataset.org/{folder}/{name}"
            images.append({"id": number, "height": 64, "width": 64, "coco_url": url, "neg_category_ids": [1]})
            for x in (4, 30):
                entry = {"image_id": number, "category_id": c, "segmentation": trees.square(x, 8, 20), "area": 400}
                annotations.append(entry | {"id": len(annotations) + 1, "bbox": [x, 8, 20, 20]})
        _listed(root, f"lvis_v1_{part}.json", images, annotations, categories)


def write_paco(root: Path) -> None:
    """Five parts of a mug and one of a lamp; every photo has two mugs, the second without its first part, but for its
    first photo, which has one. The lamp's part is in train alone.
    """
    categories = [
        {"id": 1, "name": "mug", "supercategory": "OBJECT"},
        {"id": 2, "name": "lamp", "supercategory": "OBJECT"},
    ]
    categories += [{"id": 230 + p, "name": f"mug:part{p}", "supercategory": "PART"} for p in range(1, 6)]
    categories.append({"id": 400, "name": "lamp:shade", "supercategory": "PART"})
    for part in ("train", "val"):
        images, annotations = [], []
        for number in range(1, 5):
            name = f"{part}2017/{number + (100 if part == 'val' else 0):012d}.jpg"
            trees.photo(label_map({number: 100}), seed=number).save(made(root / "coco" / name))
            images.append({"id": number, "height": 64, "width": 64, "file_name": name})

            for mug, (x, first) in enumerate(((2, 1), (30, 2))[: 2 if number > 1 else 1]):
                thing = _paco_entry(annotations, number, 1, (x, 2, 30))
                for p in range(first, 6):
                    _paco_entry(annotations, number, 230 + p, (x + 5 * p, 4 + 4 * mug, 4), thing)
            if part == "train":
                _paco_entry(annotations, number, 400, (40, 40, 9), _paco_entry(annotations, number, 2, (38, 38, 20)))
        _listed(root / "paco", f"paco_lvis_v1_{part}.json", images, annotations, categories)


def _paco_entry(annotations: list[dict], photo: int, category: int, box: tuple[int, ...], thing: int = 0) -> int:
    """The id of a square's new annotation: of an object, or of a part of object `thing`."""
    own, (x, y, side) = len(annotations) + 1, box
    entry = {"id": own, "image_id": photo, "category_id": category, "obj_ann_id": thing or own}
    annotations.append(entry | {"segmentation": trees.square(x, y, side), "bbox": [x, y, side, side], "area": side**2})
    return own


PASCAL_PARTS = {
    "animals": {"bird": ("FACE", "WING"), "cat": ("FACE",)},
    "indoor": {"bottle": ("BODY",)},
    "person": {"person": ("ARM",)},
    "vehicles": {"aeroplane": ("BODY", "TAIL")},
}


def write_pascal_part(root: Path) -> None:
    """Three photos of every object for each subset, with two such objects; the first photo's second has no part."""
    voc, listed = root / "VOCdevkit" / "VOC2010", {}
    for group, things in PASCAL_PARTS.items():
        listed[group] = {"object": {thing: {"part": {p: {} for p in parts}} for thing, parts in things.items()}}
        for thing, parts in things.items():
            for subset in ("train", "val"):
                photos = [f"2008_{subset}_{thing}_{n}" for n in range(3)]
                for part in parts:
                    listed[group]["object"][thing]["part"][part][subset] = photos
                for n, photo in enumerate(photos):
                    trees.photo(label_map({1: 100}), seed=n).save(made(voc / "JPEGImages" / f"{photo}.jpg"))
                    found = [_pascal_object(thing, parts, 2), _pascal_object(thing, parts if n else (), 30)]
                    path = voc / "Annotations_Part_json_merged_part_classes" / f"{photo}.json"
                    made(path).write_text(json.dumps({"object": found}))
    (voc / "all_obj_part_to_image.json").write_text(json.dumps(listed))


def _pascal_object(thing: str, parts: tuple[str, ...], x: int) -> dict:
    """Of 30 x 40 pixels; every part has two shapes of 5 x 6 pixels."""
    found = []
    for p, part in enumerate(parts):
        shapes = []
        for y in (10, 30):
            mask = np.zeros((64, 64), np.uint8)
            mask[y : y + 6, x + 6 * p : x + 6 * p + 5] = 1
            shapes.append(trees.compressed(mask))
        found.append({"name": part, "mask": shapes})
    box = {"xmin": str(x), "ymin": "5", "xmax": str(x + 30), "ymax": "45"}
    return {"name": thing, "bndbox": box, "parts": found}
