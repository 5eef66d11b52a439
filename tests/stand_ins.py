"""What stands in for the photos, data sets and runs that README and docs speak of: all drawn, all small."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import rasterio
from PIL import Image
from rasterio.transform import from_origin

import target_trees
import trees
from helpers import BLUE, RED, scene

CLASSES = {
    "folder": "road sky hedge wall",
    "mix/street": "plant kerb automobile lamp",
    "lite-mix/variety/coco_mini": "person sofa zebra fork",
    "lite-mix/clothing": "shirt trousers hat shoe",
    "lite-mix/variety/caltech25": "ant crab lotus anchor",
    "lite-mix/variety/campus_a": "floor stairs pillar sign",
    "lite-mix/variety/campus_b": "road sky hedge wall",
}
"""Of folders with label maps."""


def photo(path: Path, color: tuple[int, int, int] = RED, *, left: int = 40, mask: Path | None = None) -> Path:
    """A drawn photo of 352 x 320 pixels, and its mask where one is asked for: boxes of the pages lie on it."""
    pixels, inside = scene(color, size=(352, 320), box=(left, 60, left + 130, 240))
    Image.fromarray(pixels).save(trees.made(path))
    if mask:
        Image.fromarray(inside.astype(np.uint8) * 255).save(trees.made(mask))
    return path


def write_photos(root: Path) -> None:
    """Photos and masks by the names that the pages give them."""
    for n, name in enumerate("abcd"):
        photo(root / f"{name}.jpg", left=20 + 40 * n, mask=root / f"{name}.png")
        photo(root / f"{n + 1}.png", left=20 + 40 * n, mask=root / f"{n + 1}_mask.png")
        photo(root / f"rust/images/{n + 1}.jpg", left=20 + 40 * n, mask=root / f"rust/masks/{n + 1}.png")
        photo(root / f"originals/{n}.jpg", left=20 + 40 * n)
    for name in ("clean.jpg", "without/1.jpg", "photos/none.jpg"):
        photo(root / name, (90, 90, 90))
    photo(root / "photos/one.jpg", left=70)
    photo(root / "photos/two.jpg", BLUE, left=90)
    photo(root / "tile.png", mask=root / "tile_mask.png")
    photo(root / "frame_photo.png", mask=root / "frame.png")
    strokes = np.full((320, 352, 3), 255, np.uint8)
    strokes[140:150, 120:180], strokes[20:30, 20:200] = (255, 0, 0), (0, 0, 255)
    Image.fromarray(strokes).save(root / "c_strokes.png")
    box = [[40, 60, 170, 60, 170, 240, 40, 240]]
    images = [{"id": n, "file_name": f"{n}.jpg", "height": 320, "width": 352} for n in range(4)]
    marks = [{"id": n, "image_id": n, "category_id": 1, "segmentation": box, "iscrowd": 0} for n in range(4)]
    export = {"images": images, "annotations": marks, "categories": [{"id": 1, "name": "cat"}]}
    (root / "export.json").write_text(json.dumps(export))


def write_far_pictures(root: Path) -> None:
    """A map and a clip."""
    pixels = np.moveaxis(scene(size=(352, 320), box=(40, 60, 170, 240))[0], 2, 0)
    place = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_200_000, 0.5, 0.5)}
    with rasterio.open(
        root / "ortho.tif", "w", driver="GTiff", width=352, height=320, count=3, dtype="uint8", **place
    ) as file:
        file.write(pixels)
    with av.open(str(root / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=1)
        stream.width, stream.height = 352, 320
        for _ in range(15):
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.moveaxis(pixels, 0, 2).copy(), format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def write_data_sets(root: Path) -> dict[str, Path]:
    """Data sets by their name on the command line."""
    train, val = trees.many(range(1, 21), 2), trees.many(range(1, 21), 6, prefix="v")
    for voc in (root / "VOC", root / "mix/voc", root / "lite-mix/voc_mini"):
        trees.write_voc(voc, train, val)
    trees.write_sbd(root / "VOC/SBD", train, trees.many([1], 1, prefix="s"))
    kinds = trees.many(range(1, 5), 6)
    for name, classes in CLASSES.items():
        few = {image: labels for image, labels in kinds.items() if name == "folder" or image.endswith(("_0", "_1"))}
        trees.write_labels(root / name, few, classes=classes.split())
    trees.write_masks(root / "mix/parts", {f"wheel/{n}": m for n, m in enumerate(kinds.values())})
    square = [(1, trees.square(4, 4, 30)), (2, trees.square(36, 36, 25))]
    trees.write_coco(
        root / "coco_json/all.json",
        {f"{n}.jpg": square for n in range(8)},
        categories={1: "nut", 2: "bolt"},
        photos=root / "coco_json",
    )
    target_trees.write_deepglobe(root / "deepglobe")
    rows = ["image,labels,subset"]
    for subset in ("train", "test"):
        images = trees.many(range(1, 9), 4, prefix=subset)
        trees.write_labels(root / "table", images, classes=[f"kind{n}" for n in range(1, 9)])
        rows += [f"images/{name}.jpg,labels/{name}.png,{subset}" for name in images]
    (root / "table/table.csv").write_text("\n".join(rows))
    return {path.name: path for path in root.iterdir()} | {"pascal5i": root / "VOC"}
