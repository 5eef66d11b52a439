"""The pictures of large-pictures.md, video.md, annotation-tools.md and many-machines.md, all of drawn scenes:
`python docs/pictures/everywhere.py work/` runs what the pages say in `work/`, and writes its pictures here.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
from benchmarks.steady import clip
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fewseg.data.annotations.label_studio import decode_rle, encode_rle
from fewseg.data.captions import sheet, words
from fewseg.data.images import overlay, read_image, read_mask
from fewseg.data.sets.scenes import Scenes
from fewseg.segment.windows import windows

HERE = Path(__file__).parent
CLASS, SIDE, PORT = "mushroom", 320, 8047
CONFIG = f"""<View><Image name="image" value="$image"/>
<BrushLabels name="tag" toName="image"><Label value="{CLASS}"/></BrushLabels></View>"""


def fewseg(folder: Path, *command: object) -> None:
    """A command of fewseg, in the folder; what it says is shown."""
    subprocess.run([sys.executable, "-m", "fewseg", *map(str, command)], cwd=folder, check=True, env=os.environ)


def keep(image: Image.Image, name: str) -> None:
    """A picture of the docs."""
    image.convert("RGB").quantize(160).save(HERE / name, optimize=True)


def scenes(folder: Path, count: int) -> list[tuple[Path, NDArray[np.bool_]]]:
    """Photos with the class, their masks beside them, and where it is."""
    source = Scenes(subset="test", level="complex", images=200, size=480)
    value = source.class_names.index(CLASS) + 1
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    found = []
    for i in source.index.images_of(value, min_pixels=9000).tolist():
        image, labels = source.load(i)
        top, left = (image.height - SIDE) // 2, (image.width - SIDE) // 2
        mask = labels[top : top + SIDE, left : left + SIDE] == value
        if min(mask.shape) < SIDE or mask.sum() < 9000 or len(found) == count:
            continue
        path = folder / f"photos/{len(found)}.png"
        image.crop((left, top, left + SIDE, top + SIDE)).save(path)
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"{len(found)}_mask.png")
        found.append((path, mask))
    return found


def large(folder: Path, photos: list[tuple[Path, NDArray[np.bool_]]]) -> None:
    """A mosaic that lies somewhere, searched in windows as large as one of its scenes."""
    import rasterio
    from rasterio.transform import from_origin

    rows = [np.concatenate([np.asarray(Image.open(path)) for path, _ in photos[i : i + 4]], 1) for i in (0, 4)]
    mosaic = np.concatenate(rows)
    how: dict[str, Any] = {
        "crs": "EPSG:32632",
        "transform": from_origin(500_000, 5_300_000, 0.1, 0.1),
        "driver": "GTiff",
    }
    height, width = mosaic.shape[:2]
    with rasterio.open(folder / "ortho.tif", "w", height=height, width=width, count=3, dtype="uint8", **how) as file:
        file.write(mosaic.transpose(2, 0, 1))
    supports = [w for n in range(4) for w in ("--support", f"photos/{n}.png", "--mask", f"{n}_mask.png")]
    fewseg(folder, "teach", "--class", CLASS, *supports, "--out", f"{CLASS}.concept")
    fewseg(
        folder,
        "segment",
        "ortho.tif",
        "--concept",
        f"{CLASS}.concept",
        "--min-area",
        150,
        "--format",
        "gpkg",
        "--out",
        "large",
    )
    shown = overlay(Image.fromarray(mosaic), read_mask(folder / "large/ortho.tif"))
    pen = ImageDraw.Draw(shown)
    for window in windows(height, width, SIDE):
        pen.rectangle((window.left, window.top, window.right - 1, window.bottom - 1), outline="white")
    keep(shown.resize((width * 2 // 3, height * 2 // 3), Image.Resampling.LANCZOS), "large.png")


def video(folder: Path, number: int = 2) -> None:
    """Frames of a clip, each by itself and steady."""
    import av

    drawn = clip(number)
    with av.open(str(folder / "clip.mp4"), "w") as container:
        stream: Any = container.add_stream("libx264", rate=12, options={"crf": "12"})
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
        for frame in drawn.frames[:8]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    Image.fromarray((drawn.truths[0] == 1).astype(np.uint8) * 255).save(folder / "first.png")
    given = ("segment", "clip.mp4", "--support", "clip.mp4@0s", "--mask", "first.png")
    fewseg(folder, *given, "--no-steady", "--out", "alone")
    fewseg(folder, *given, "--out", "steady")
    shown = []
    for how, told in (("alone", "by itself"), ("steady", "steady")):
        for n in range(2, 7):
            shown.append((read_image(folder / how / f"clip/frame_{n:06d}_overlay.jpg"), [words(f"frame {n}, {told}")]))
    keep(sheet(shown, columns=5, cell=200, text=13), "video.png")


def tool(folder: Path, photos: list[tuple[Path, NDArray[np.bool_]]]) -> None:
    """What Label Studio gets from the ML backend: before anything was annotated, after one photo, after three."""
    command = [sys.executable, "-m", "fewseg", "serve", "--no-browser", "--port", str(PORT)]
    given = ["--label-studio", "concepts", "--photos", "photos"]
    with subprocess.Popen([*command, *given], cwd=folder, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        while "ML backend" not in server.stdout.readline():
            pass
        (shown, _), *others = photos[4:8]
        found = [(Image.open(shown), [words("nothing annotated yet")])]
        for count, (path, mask) in enumerate(others, start=1):
            size = {"original_width": SIDE, "original_height": SIDE}
            value = {"format": "rle", "rle": encode_rle(mask), "brushlabels": [CLASS]}
            region = {"type": "brushlabels", "from_name": "tag", "to_name": "image", "value": value, **size}
            event = {"action": "ANNOTATION_CREATED", "project": {"label_config": CONFIG}, "task": _task(path)}
            _ask("webhook", event | {"annotation": {"result": [region]}})
            while "learnt" not in server.stdout.readline():
                pass
            if count in (1, 3):
                answer = _ask("predict", {"tasks": [_task(shown)], "label_config": CONFIG})["results"][0]
                marked = np.zeros((SIDE, SIDE), bool)
                for one in answer["result"]:
                    marked |= decode_rle(one["value"]["rle"]).reshape(SIDE, SIDE, 4)[..., 3] > 0
                told = f"after {count} photo{'s' * (count > 1)}, score {answer['score']:.2f}"
                found.append((overlay(Image.open(shown), marked), [words(told)]))
        server.terminate()
    keep(sheet(found, columns=3, cell=300, text=14), "annotation.png")


def _task(photo: Path) -> dict[str, Any]:
    return {"id": 1, "data": {"image": f"/data/local-files/?d={photo.name}"}}


def _ask(path: str, body: dict[str, Any]) -> Any:
    head = {"Content-Type": "application/json"}
    with urlopen(Request(f"http://127.0.0.1:{PORT}/{path}", json.dumps(body).encode(), head)) as answer:
        return json.load(answer)


def machines(folder: Path) -> None:
    """Which part did which photo."""
    for part in (1, 2, 3):
        fewseg(folder, "segment", "photos", "--concept", f"{CLASS}.concept", "--out", "shared", "--shard", f"{part}/3")
    shown = {}
    for part in (1, 2, 3):
        with open(folder / f"shared/results-{part}of3.csv", newline="") as file:
            for row in csv.DictReader(file):
                drawn = read_image(folder / "shared" / row["mask"].replace(".png", "_overlay.jpg"))
                shown[row["mask"]] = (drawn, [words(f"{Path(row['photo']).name}: --shard {part}/3")])
    fewseg(folder, "segment", "photos", "--concept", f"{CLASS}.concept", "--out", "shared", "--resume")
    keep(sheet([shown[name] for name in sorted(shown)], columns=4, cell=220, text=13), "machines.png")


def main(folder: Path) -> None:
    """All pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    photos = scenes(folder, 8)
    large(folder, photos)
    video(folder)
    tool(folder, photos)
    machines(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
