"""The page itself, in gradio: what is shown, and which button does what."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from fewseg.data import images
from fewseg.data.masks import read_mask
from fewseg.errors import FewsegError
from fewseg.models.base import FewShotSegmenter
from fewseg.server.session import Limits, Session, painted_mask, shrunk

RED, BLUE = "#ff0000", "#0000ff"
LIMITS = Limits()
KEPT_SECONDS = 3600
"""How long a visitor's photos and masks are kept after the last click."""

INTRO = """# fewseg
Mark an object in one or a few photos; get its masks in other photos. Everything stays on the machine that runs it.
"""
WHOLE, STROKES = "the whole object, in red", "strokes: red object, blue background"


def build(model: FewShotSegmenter, *, root: Path | None = None) -> gr.Blocks:
    """The page for a model that is ready for use; visitors' files are kept in `root`."""
    with gr.Blocks(title="fewseg", analytics_enabled=False, delete_cache=(600, KEPT_SECONDS)) as page:
        session = gr.State(None, time_to_live=KEPT_SECONDS, delete_callback=_close)
        photo = gr.State(None)
        gr.Markdown(INTRO)
        with gr.Row(equal_height=False):
            with gr.Column(min_width=320):
                mark = _marking()
            with gr.Column(min_width=320):
                search = _finding(model)

        one: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "network", "api_visibility": "private"}
        quick: dict[str, Any] = {"concurrency_limit": 2, "concurrency_id": "pictures", "api_visibility": "private"}
        choices = [search[name] for name in ("threshold", "presence", "min_area")]
        settings = [session, *choices]
        mark["upload"].change(_told(_opened), [mark["upload"]], [photo, mark["editor"]], **quick)
        marked = [session, mark["name"], photo, mark["editor"], mark["how"], mark["mask_file"]]
        mark["add"].click(_told(partial(_add, root)), marked, [session, mark["supports"]], **one).success(
            lambda: (None, None, None), None, [mark["upload"], mark["mask_file"], photo], api_visibility="private"
        )
        mark["clear"].click(_forget, [session], [session, mark["supports"]], **quick)
        wanted = [session, search["queries"]]
        found = search["find"].click(_told(partial(_find, model)), wanted, [session, search["maps"]], **one)
        latest: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last", **quick}
        for event in (found.success, *(choice.change for choice in choices)):
            shown = event(_told(_shown), settings, [search["masks"]], **latest)
            shown.success(_told(_zip), settings, [search["download"]], **latest)
    return page


def _marking() -> dict[str, Any]:
    """The column in which supports are marked: its components by name."""
    gr.Markdown("## 1. Show what to find")
    made: dict[str, Any] = {
        "name": gr.Textbox("object", label="Name of the object", max_lines=1, elem_id="name"),
        "upload": gr.File(label="A photo with it", file_types=["image"], height=130, elem_id="support"),
        "editor": gr.ImageEditor(
            label="Paint over the object",
            sources=(),
            transforms=(),
            layers=False,
            type="pil",
            brush=gr.Brush(default_size=24, colors=[RED, BLUE], default_color=RED, color_mode="fixed"),
            eraser=gr.Eraser(default_size=24),
            height=420,
            visible=False,
            elem_id="editor",
        ),
        "how": gr.Radio([WHOLE, STROKES], value=WHOLE, label="What is painted", elem_id="how"),
        "mask_file": gr.File(label="… or its mask as a file", file_types=["image"], height=130, elem_id="mask"),
    }
    with gr.Row():
        made["add"] = gr.Button("Add", variant="primary", elem_id="add")
        made["clear"] = gr.Button("Forget all marked photos", elem_id="clear")
    return made | {"supports": _gallery("Marked photos", columns=3, height=240, elem_id="supports")}


def _finding(model: FewShotSegmenter) -> dict[str, Any]:
    """The column in which photos are searched: its components by name."""
    gr.Markdown("## 2. Find it in other photos")
    label = f"Photos (up to {LIMITS.photos})"
    made: dict[str, Any] = {
        "queries": gr.File(label=label, file_count="multiple", file_types=["image"], height=150, elem_id="queries"),
        "find": gr.Button("Find", variant="primary", elem_id="find"),
    }
    with gr.Tabs():
        with gr.Tab("Masks"):
            made["masks"] = _gallery("Masks", elem_id="masks")
        with gr.Tab("Correlation maps"):
            made["maps"] = _gallery("Where the network sees a likeness", elem_id="maps")
    return made | {
        "threshold": gr.Slider(0, 1, 0.5, step=0.01, label="Threshold", elem_id="threshold"),
        "presence": gr.Slider(
            0,
            1,
            0.5,
            step=0.01,
            label="Leave out what is there with less than this probability",
            visible=model.tells_presence,
            elem_id="presence",
        ),
        "min_area": gr.Slider(0, 5000, 0, step=10, label="Drop parts smaller than … pixels", elem_id="min-area"),
        "download": gr.DownloadButton("Download masks (zip)", interactive=False, elem_id="download"),
    }


def _gallery(label: str, *, columns: int = 2, height: int = 420, **more: Any) -> gr.Gallery:
    fixed: dict[str, Any] = {"fit_columns": False, "object_fit": "contain", "interactive": False}
    return gr.Gallery(label=label, columns=columns, height=height, **fixed, **more)


def _close(session: Session | None) -> None:
    if session is not None:
        session.close()


def _told(work: Callable[..., Any]) -> Callable[..., Any]:
    """The same, with the package's errors shown on the page."""

    @wraps(work)
    def told(*values: Any) -> Any:
        try:
            return work(*values)
        except FewsegError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return told


def _opened(path: str | None) -> tuple[Image.Image | None, Any]:
    if path is None:
        return None, gr.update(value=None, visible=False)
    photo = LIMITS.read(path)
    small = shrunk(photo)
    return photo, gr.update(value=small, visible=True, canvas_size=small.size)


def _add(
    root: Path | None,
    session: Session | None,
    name: str,
    photo: Image.Image | None,
    drawn: dict[str, Any] | None,
    how: str,
    mask_file: str | None,
) -> tuple[Session, list[Any]]:
    session = session or Session(LIMITS, root=root)
    if photo is None:
        raise gr.Error("Choose a photo with the object first.", print_exception=False)
    if mask_file is not None:
        LIMITS.read(mask_file)
        given = images.align_mask(read_mask(mask_file), photo.size, name=Path(mask_file).name)
        mask = (given == 1).astype("uint8")
    else:
        layers = (drawn or {}).get("layers") or [None]
        mask = painted_mask(photo, layers[0], strokes=how == STROKES)
    session.add_support(name, photo, mask)
    return session, [support.shown() for support in session.supports]


def _forget(session: Session | None) -> tuple[None, list[Any]]:
    _close(session)
    return None, []


def _find(
    model: FewShotSegmenter,
    session: Session | None,
    paths: list[str] | None,
    progress: gr.Progress = gr.Progress(),  # noqa: B008  (gradio's own form)
) -> tuple[Session, list[Any]]:
    session = session or Session()  # without marked photos it tells what to do first
    photos = [(Path(path).name, path) for path in paths or [] if Path(path).suffix.lower() in images.SUFFIXES]
    for done, problem in session.answer(model, photos):
        if problem:
            gr.Warning(problem)
        progress(done / len(photos), desc=f"{done} of {len(photos)} photos")
    return session, [picture for answer in session.answers for picture in answer.correlations]


def _shown(session: Session | None, threshold: float, presence: float, min_area: float) -> list[Any]:
    if not session:
        return []
    return list(session.shown(threshold=threshold, presence=presence, min_area=int(min_area)))


def _zip(session: Session | None, threshold: float, presence: float, min_area: float) -> Any:
    path = session.zip_masks(threshold=threshold, presence=presence, min_area=int(min_area)) if session else None
    return gr.update(value=None if path is None else str(path), interactive=path is not None)
