"""Writes tiny data sets that papers report since 2023, in their real directory formats."""

from __future__ import annotations

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
