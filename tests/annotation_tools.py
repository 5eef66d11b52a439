"""Label Studio's SDK and datumaro, which reads and writes CVAT's XML, as they read our files and correct them.

They take other versions of numpy and pillow than fewseg may have, so they have an environment of their own
(`make tools`), and this file is run by its Python: `python annotation_tools.py TOOL FILE OUT`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from PIL import Image

PYTHON = (
    Path(__file__).resolve().parents[1]
    / ".venv-tools"
    / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
)


def run_tool(tool: str, file: Path, out: Path) -> None:
    """Let a tool read a file that fewseg wrote; `out` holds the masks that it found, `NAME.png`, and its exports, in
    which each mask is `corrected`. Skips where the tools are not installed.
    """
    import pytest

    if not PYTHON.exists():
        pytest.skip("needs the annotation tools' own packages: make tools")
    out.mkdir()
    done = subprocess.run(
        [PYTHON, "-W", "ignore", __file__, tool, file, out], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def corrected(mask: np.ndarray) -> np.ndarray:
    """What a person makes of a mask (H, W): a piece more, and a piece less."""
    mask = mask.copy()
    mask[2:9, 3:14] = True
    mask[30:36, 40:] = False
    return mask


def picture(mask: np.ndarray) -> Image.Image:
    return Image.fromarray((mask > 0) * np.uint8(255))


def label_studio(file: Path, out: Path) -> None:
    """A project's tasks with predictions are checked, accepted as annotations, corrected and exported: as JSON, and as
    COCO, whose polygons are the SDK's.
    """
    from label_studio_sdk.converter import Converter, brush
    from label_studio_sdk.label_interface import LabelInterface

    told = json.loads(file.read_text())
    interface, converter = LabelInterface(told["config"]), Converter(told["config"], project_dir=None)
    interface.validate()
    names = {}
    for number, task in enumerate(told["tasks"], start=1):
        (prediction,) = task["predictions"]
        if problems := interface.validate_prediction(prediction, return_errors=True):
            raise SystemExit(str(problems))
        by = {"email": "a@b.c"}
        task |= {"id": number, "annotations": [{"id": number, "result": prediction["result"], "completed_by": by}]}
        names[f"task-{number}-"] = Path(unquote(next(iter(task["data"].values())).partition("?d=")[2])).stem
    tasks = out / "tasks.json"
    tasks.write_text(json.dumps(told["tasks"]))
    if any(region["type"] == "polygonlabels" for task in told["tasks"] for region in task["predictions"][0]["result"]):
        converter.convert(str(tasks), str(out), "COCO", is_dir=False)
        return
    converter.convert(str(tasks), str(out), "BRUSH_TO_PNG", is_dir=False)
    for start, name in names.items():
        (found,) = out.glob(f"{start}*.png")
        found.rename(out / f"{name}.png")
    for task in told["tasks"]:
        for region in task["annotations"][0]["result"]:
            shape = region["original_height"], region["original_width"]
            mask = brush.decode_rle(region["value"]["rle"]).reshape(*shape, 4)[..., 3] > 0
            region["value"]["rle"] = brush.mask2rle(np.asarray(picture(corrected(mask))))
    tasks.write_text(json.dumps(told["tasks"]))
    for kind in ("JSON", "JSON_MIN", "BRUSH_TO_COCO"):
        converter.convert(str(tasks), str(out / kind), kind, is_dir=False)


def cvat(file: Path, out: Path) -> None:
    """CVAT's XML, beside the folder `images` of its photos, corrected and exported with masks, and with polygons, which
    lie drawn beside their export.
    """
    import datumaro

    data = datumaro.Dataset.import_from(str(file.parent), "cvat")
    for item in list(data):
        (one,) = item.annotations
        picture(one.image).save(out / f"{item.id}.png")
        data.put(item.wrap(annotations=[one.wrap(image=corrected(one.image > 0).astype(np.uint8))]))
    data.export(str(out / "masks"), "cvat")
    data.transform("masks_to_polygons")
    data.export(str(out / "polygons"), "cvat")
    data.transform("polygons_to_masks")
    for item in data:
        picture(np.max([one.image for one in item.annotations], 0)).save(out / "polygons" / f"{item.id}.png")


if __name__ == "__main__":
    tools: dict[str, Any] = {"label-studio": label_studio, "cvat": cvat}
    tools[sys.argv[1]](*map(Path, sys.argv[2:]))
