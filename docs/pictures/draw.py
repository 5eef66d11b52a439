"""The pictures of the README, from a finished demo: `python docs/pictures/draw.py runs/demo` writes them here.

episodes.png: for the best, the middle and the worst class, the episode in the middle of its class (by lite's IoU).
folder.gif: one marked support, then the masks that it finds in a folder of pictures, in the order of their names.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fewseg.data.images import read_mask
from fewseg.evaluation.benchmark import Benchmark
from fewseg.evaluation.results import Results, results_name
from fewseg.experiments.demo import MEASURED_ON
from fewseg.features.cache import FeatureCache
from fewseg.report.chosen_episodes import middle_panels
from fewseg.report.overlays import LEGEND, overlay_array, panel_pictures, resize_image, resize_mask
from fewseg.storage.opening import open_target

SIDE, GAP, CAPTION = 220, 10, 28
HERE = Path(__file__).parent
FONT = ImageFont.load_default(size=17)


def labelled(picture: np.ndarray, caption: str) -> Image.Image:
    """A picture in the middle of a white square tile, its caption above."""
    tile = Image.new("RGB", (SIDE, SIDE + CAPTION), "white")
    image = Image.fromarray(picture)
    tile.paste(image, ((SIDE - image.width) // 2, CAPTION + (SIDE - image.height) // 2))
    ImageDraw.Draw(tile).text((SIDE / 2, CAPTION / 2), caption, fill="#1d2127", font=FONT, anchor="mm")
    return tile


def side_by_side(rows: list[list[Image.Image]]) -> Image.Image:
    """Tiles in rows on white."""
    width, height = SIDE + GAP, SIDE + CAPTION + GAP
    sheet = Image.new("RGB", (width * len(rows[0]) + GAP, height * len(rows) + GAP), "white")
    for y, row in enumerate(rows):
        for x, tile in enumerate(row):
            sheet.paste(tile, (GAP + x * width, GAP + y * height))
    return sheet


def episodes(demo: Path) -> Image.Image:
    """Support, query, truth and lite's prediction of three episodes."""
    opened = open_target(str(demo / "lite"), MEASURED_ON, device="cpu")
    benchmark = Benchmark.of(opened, file=demo / "episodes.csv")
    table = Results.load(demo / "lite" / results_name(benchmark)).tables[0]
    rows = []
    for panel in middle_panels({"lite": FeatureCache(opened.model)}, benchmark, table):
        support, query, truth, found = panel_pictures(panel, side=SIDE)
        captions = ("given: one marked picture", "another picture", "found", "truth")
        pictures = (support, query, found, truth)
        rows.append([labelled(picture[-1], caption) for picture, caption in zip(pictures, captions, strict=True)])
    return with_legend(side_by_side(rows))


def with_legend(sheet: Image.Image) -> Image.Image:
    """The sheet with a line below that tells the colours of what was found."""
    whole = Image.new("RGB", (sheet.width, sheet.height + CAPTION), "white")
    whole.paste(sheet, (0, 0))
    draw, x = ImageDraw.Draw(whole), sheet.width - 480
    for name, color in LEGEND.items():
        draw.rectangle((x, sheet.height + 4, x + 14, sheet.height + 18), fill=color)
        draw.text((x + 20, sheet.height + 11), name, fill="#1d2127", font=FONT, anchor="lm")
        x += 34 + round(draw.textlength(name, FONT))
    return whole


def folder(demo: Path) -> list[Image.Image]:
    """Frames: the support with its mask at the left; at the right a picture, then its mask, then the next picture."""

    def tile(photo: Path, mask: Path | None, caption: str) -> Image.Image:
        image = np.asarray(Image.open(photo).convert("RGB"))
        scale = SIDE / max(image.shape[:2])
        size = (round(image.shape[0] * scale), round(image.shape[1] * scale))
        shown = resize_image(image, size)
        return labelled(shown if mask is None else overlay_array(shown, resize_mask(read_mask(mask), size)), caption)

    support = tile(demo / "support.png", demo / "support_mask.png", "given: one marked picture")
    frames = []
    photos = sorted((demo / "photos").iterdir())
    for number, photo in enumerate(photos, start=1):
        frames.append(side_by_side([[support, tile(photo, None, f"picture {number} of {len(photos)}")]]))
        frames.append(side_by_side([[support, tile(photo, demo / "masks" / photo.name, "found")]]))
    return frames


def main(demo: Path) -> None:
    """Write both pictures."""
    episodes(demo).quantize(256).save(HERE / "episodes.png", optimize=True)
    first, *others = (frame.quantize(96, dither=Image.Dither.NONE) for frame in folder(demo))
    first.save(HERE / "folder.gif", save_all=True, append_images=others, duration=900, loop=0, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
