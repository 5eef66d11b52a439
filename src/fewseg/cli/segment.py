"""The command `fewseg segment`: a model on one's own photos. It works without torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from fewseg.cli.options import Device, Model, Precision, Refine, finite
from fewseg.cli.printing import say
from fewseg.errors import DataError, UsageError
from fewseg.progress import Bars

if TYPE_CHECKING:
    from fewseg.data.decoding import PictureRule
    from fewseg.data.masks import Label, Marking
    from fewseg.segment import SegmentSummary
    from fewseg.segment.supports import Supports

_ORDER = "fewseg.order"


class OrderedCommand(TyperCommand):
    """Keeps the words of the command line, since `--class`, `--support` and their like mean what their order says."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta[_ORDER] = list(args)
        return super().parse_args(ctx, args)


def segment(
    ctx: typer.Context,
    queries: Annotated[list[Path], typer.Argument(help="Photos, videos, or folders of them.")],
    out: Annotated[Path, typer.Option(help="Folder for masks and overlays.")],
    model: Model = "lite",
    class_: Annotated[
        list[str] | None, typer.Option("--class", help="Name of the class that the options after it describe.")
    ] = None,
    support: Annotated[list[Path] | None, typer.Option(help="An annotated photo; repeat for several.")] = None,
    mask: Annotated[
        list[Path] | None, typer.Option(help="Mask of the class's first photo without one: the object is not 0.")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(help="Value of the class's masks that is the object: 2, a name, any (all but 0), >=128, #ff0000."),
    ] = None,
    scribble: Annotated[
        list[Path] | None,
        typer.Option(help="Instead of a mask of the last --support: red strokes object, blue background."),
    ] = None,
    box: Annotated[list[str] | None, typer.Option(help="Instead of a mask: LEFT,TOP,RIGHT,BOTTOM around it.")] = None,
    point: Annotated[list[str] | None, typer.Option(help="Instead of a mask: X,Y on the object.")] = None,
    background: Annotated[list[str] | None, typer.Option(help="X,Y beside the object, with the three above.")] = None,
    supports: Annotated[
        Path | None, typer.Option(help="Folder of CLASS/NAME.jpg with CLASS/NAME_mask.png (or NAME.png).")
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(help="COCO, LabelMe, Label Studio or CVAT export; --class NAME chooses from it."),
    ] = None,
    photos: Annotated[Path | None, typer.Option(help="Folder of the photos that --annotations names.")] = None,
    shots: Annotated[
        int, typer.Option(callback=finite, min=1, help="Most photos of a class to take from --annotations.")
    ] = 10,
    format_: Annotated[
        list[str] | None, typer.Option("--format", help="png, coco, yolo, geojson; repeat for several [png].")
    ] = None,
    overlay: Annotated[bool, typer.Option(help="Also write the photo with the masks drawn on it.")] = True,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, callback=finite, help="Foreground above this probability.")
    ] = 0.5,
    presence: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            callback=finite,
            help="Leave a class out of photos that hold it with less than this probability [0.5 if the model tells]",
        ),
    ] = None,
    min_area: Annotated[int, typer.Option(callback=finite, min=0, help="Drop connected parts of fewer pixels.")] = 0,
    every: Annotated[int, typer.Option(callback=finite, min=1, help="Of a video, take every n-th frame.")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Leave out photos whose files are all there.")] = False,
    flip: Annotated[
        bool, typer.Option("--flip", help="Average with the mirrored photo: a little better, twice the time.")
    ] = False,
    refine: Refine = "none",
    precision: Precision = "fp32",
    range_: Annotated[
        str | None,
        typer.Option("--range", help="LOW,HIGH of pictures deeper than 8 bit [each one's 0.1 and 99.9 percentiles]."),
    ] = None,
    bands: Annotated[str | None, typer.Option(help="R,G,B: which bands of a TIFF, from 1 [1,2,3].")] = None,
    page: Annotated[int | None, typer.Option(callback=finite, min=1, help="Which page of a TIFF [1].")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write a picture of each support with its marking to --out, and end.")
    ] = False,
    device: Device = "auto",
    runtime: Annotated[
        str | None,
        typer.Option(help="graphs or torch [graphs for shipped and exported models on the CPU, torch otherwise]."),
    ] = None,
    provider: Annotated[
        str | None,
        typer.Option(help="What onnxruntime runs graphs by: cpu, cuda, coreml, directml, openvino [cpu]."),
    ] = None,
) -> None:
    """Find the classes of annotated photos in other photos: masks of each photo's own size, and overlays.

    One class: `fewseg segment --support a.jpg --mask a.png --out masks photos/`.

    Several: `--class cat --support a.jpg --mask a.png --class dog --support b.jpg --box 10,20,200,180 ...`; each
    `--class` begins a group. `docs/own-photos.md` tells the rest. A line says how each support was understood;
    `--check` draws them. Photos that cannot be read are listed at the end, and the exit code is 1; the others are done.
    """
    from fewseg.predictor import FewShotPredictor
    from fewseg.segment import segment_folder
    from fewseg.segment.supports import draw_supports

    rule = _picture_rule(range_, bands, page)
    found, labels, read = _read_supports(ctx.meta[_ORDER], supports, annotations, photos=photos, shots=shots, rule=rule)
    if check:
        for path, told in draw_supports(found, labels, out, rule).items():
            say(f"{told}; drawn in {path}")
        return
    how: dict[str, Any] = {"flip": flip, "refine": refine, "precision": precision}
    predictor = FewShotPredictor(model, device, pictures=rule, runtime=runtime, provider=provider, **how)
    if presence is not None and not predictor.engine.tells_presence:
        raise UsageError(f"--presence {presence}: {model} does not tell whether a class is there at all; leave it out")
    if None in found:
        predictor.set_support(*found[None], label=labels.get(None))
    else:
        predictor.set_support(found, label={str(name): labels.get(name, labels.get(None)) for name in found})
    _tell_supports(found, predictor.markings)
    predictor.support_files |= {path.resolve() for path in read}
    summary = segment_folder(
        predictor,
        queries,
        out,
        formats=format_ or ["png"],
        overlay=overlay,
        threshold=threshold,
        presence=0.5 if presence is None else presence,
        min_area=min_area,
        resume=resume,
        every=every,
        progress=Bars(),
    )
    _tell(summary, out)


def _picture_rule(limits: str | None, bands: str | None, page: int | None) -> PictureRule:
    from fewseg.data.decoding import PictureRule
    from fewseg.segment.supports import numbers

    low_high = numbers("range", limits, "LOW,HIGH") if limits is not None else ()
    chosen = numbers("bands", bands, "R,G,B") if bands is not None else ()
    if chosen and any(band % 1 for band in chosen):
        raise UsageError(f"--bands {bands}: bands are whole numbers, from 1")
    return PictureRule(
        range=(low_high[0], low_high[1]) if low_high else None,
        bands=(int(chosen[0]), int(chosen[1]), int(chosen[2])) if chosen else None,
        page=page,
    )


def _read_supports(
    words: list[str],
    folder: Path | None,
    annotations: Path | None,
    *,
    photos: Path | None,
    shots: int,
    rule: PictureRule,
) -> tuple[Supports, dict[str | None, Label], list[Path]]:
    """Supports of all three sources, their labels, and the files that must not be overwritten besides them."""
    from fewseg.data.masks import Marking
    from fewseg.segment.supports import folder_supports, grouped, merged, ordered, supports_of

    groups, names, labels = grouped(ordered(words))
    if names and annotations is None:
        raise UsageError(f"--class {names[0]} has no --support; give its photos after it, or --annotations FILE")
    listed: Supports = {}
    if annotations:
        from fewseg.data.annotations.read import load_supports  # its readers take a tenth of a photo's time to import

        for name, (images, masks) in load_supports(
            annotations, classes=names or None, photos=photos, shots=shots
        ).items():
            listed[name] = images, [Marking(mask, f"from {annotations.name}") for mask in masks]
    found = merged(supports_of(groups, rule), folder_supports(folder, rule) if folder else {}, listed)
    if not found:
        raise UsageError(
            "nothing says what to find: give --support PHOTO --mask FILE (or --box, --point, --scribble), --supports "
            "FOLDER, or --annotations FILE"
        )
    for name in labels:
        masks = [mask for n in found for mask in found[n][1] if name in (n, None)]
        if not any(isinstance(mask, Path) for mask in masks):
            raise UsageError(f"--label {labels[name]} says which value of a --mask is the object, but there is no mask")
    scribbles = [photo.scribble for group in groups.values() for photo in group]
    return found, labels, [path for path in (*scribbles, annotations) if path]


def _tell_supports(supports: Supports, markings: dict[str, tuple[Marking, ...]]) -> None:
    """One line a support: how its mask was understood, and how much of the picture is marked."""
    from fewseg.segment.supports import understood

    for name, (images, masks) in supports.items():
        told = markings["support" if name is None else name]
        for image, mask, marking in zip(images, masks, told, strict=True):
            say(understood(name, image, mask, marking))


def _tell(summary: SegmentSummary, out: Path) -> None:
    empty = f", {len(summary.empty)} of them empty" if summary.empty else ""
    skipped = f", {summary.skipped} were there already" if summary.skipped else ""
    say(f"{len(summary.written)} masks in {out}{empty}{skipped}, by {summary.runtime}")
    if summary.failed:
        listed = "\n".join(f"  {path}: {reason}" for path, reason in summary.failed)
        raise DataError(f"{len(summary.failed)} photos could not be segmented:\n{listed}")
