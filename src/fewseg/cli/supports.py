"""The options of `segment` and `teach` that say what to find, and how they are read."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand

from fewseg.cli.options import finite
from fewseg.cli.printing import say
from fewseg.errors import UsageError, check_choice

if TYPE_CHECKING:
    from fewseg.concept import Concept
    from fewseg.data.decoding import PictureRule
    from fewseg.data.masks import Label, Marking
    from fewseg.segment.supports import Supports

_ORDER = "fewseg.order"
ADAPTED = "_adapted"
"""What the name of the folder ends with that holds a concept's adapted model."""


class OrderedCommand(TyperCommand):
    """Keeps the words of the command line: `--class`, `--support` and their like mean what their order says, and a
    command may be told or run again.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta[_ORDER] = list(args)
        return super().parse_args(ctx, args)


Class = Annotated[
    list[str] | None, typer.Option("--class", help="Name of the class that the options after it describe.")
]
Support = Annotated[list[Path] | None, typer.Option(help="An annotated photo; repeat for several.")]
Mask = Annotated[
    list[Path] | None, typer.Option(help="Mask of the class's first photo without one: the object is not 0.")
]
LabelOption = Annotated[
    list[str] | None,
    typer.Option(help="Value of the class's masks that is the object: 2, a name, any (all but 0), >=128, #ff0000."),
]
Scribble = Annotated[
    list[Path] | None,
    typer.Option(help="Instead of a mask of the last --support: red strokes object, blue background."),
]
Box = Annotated[list[str] | None, typer.Option(help="Instead of a mask: LEFT,TOP,RIGHT,BOTTOM around it.")]
Point = Annotated[list[str] | None, typer.Option(help="Instead of a mask: X,Y on the object.")]
Background = Annotated[list[str] | None, typer.Option(help="X,Y beside the object, with the three above.")]
SupportsFolder = Annotated[
    Path | None,
    typer.Option(help="Folder of CLASS/NAME.jpg with CLASS/NAME_mask.png (or NAME.png); --class NAME chooses."),
]
Annotations = Annotated[
    Path | None,
    typer.Option(help="Export of COCO, LabelMe, Label Studio, CVAT, VIA, Supervisely or YOLO; --class NAME chooses."),
]
MostShots = Annotated[
    int, typer.Option(callback=finite, min=1, help="Most photos of a class to take from --annotations.")
]
Range = Annotated[
    str | None,
    typer.Option("--range", help="LOW,HIGH of pictures deeper than 8 bit [each one's 0.1 and 99.9 percentiles]."),
]
Bands = Annotated[str | None, typer.Option(help="R,G,B: which bands of a TIFF, from 1 [1,2,3].")]
Page = Annotated[int | None, typer.Option(callback=finite, min=1, help="Which page of a TIFF [1].")]
Runtime = Annotated[
    str | None,
    typer.Option(help="graphs or torch [graphs for shipped and exported models on the CPU, torch otherwise]."),
]


class Given(NamedTuple):
    """What the options say, by class; None is the class without a name."""

    supports: Supports
    labels: dict[str | None, Label]
    files: list[Path]
    """Those that must not be overwritten besides photos and masks."""

    def labels_by_name(self) -> dict[str, Label | None]:
        """The label of every named class."""
        return {str(name): self.labels.get(name, self.labels.get(None)) for name in self.supports}


def picture_rule(limits: str | None, bands: str | None, page: int | None) -> PictureRule:
    """The rule that --range, --bands and --page say."""
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


def check_engine(
    *, runtime: str | None, provider: str | None = None, refine: str = "none", precision: str = "fp32"
) -> None:
    """UsageError where a word says of no engine how it is to run: told before supports are read."""
    from fewseg.labels import PRECISIONS, REFINE
    from fewseg.runtime.graphs import PROVIDERS
    from fewseg.storage.engines import RUNTIMES

    check_choice("--runtime", runtime or "graphs", RUNTIMES)
    check_choice("--provider", provider or "cpu", PROVIDERS)
    check_choice("--refine", refine, REFINE)
    check_choice("--precision", precision, PRECISIONS)


def read_supports(
    ctx: typer.Context,
    folder: Path | None,
    annotations: Path | None,
    *,
    photos: Path | None,
    shots: int,
    rule: PictureRule,
    one_class: bool = False,
) -> Given:
    """Supports of all three sources: the options in their order, --supports and --annotations.

    A class that is in several has the photos of all. `one_class`: of folders and exports only the class whose photos
    the options give, if it is there; a line says what is left out.
    """
    from fewseg.data.masks import Marking
    from fewseg.segment.origin import note_answers, note_mixed
    from fewseg.segment.supports import folder_supports, grouped, merged, ordered, supports_of

    _check_patterns(ctx.meta[_ORDER])
    groups, names, labels = grouped(ordered(ctx.meta[_ORDER]))
    inside = folder_supports(folder, rule) if folder else {}
    if annotations is None:
        _check_without_annotations(ctx, [name for name in names if name not in inside], inside, one_class=one_class)
    inside = {name: inside[name] for name in inside if not names or name in names}
    listed: Supports = {}
    if annotations:
        from fewseg.data.annotations.read import load_supports  # its readers take a tenth of a photo's time to import

        for name, (images, masks) in load_supports(
            annotations, classes=names or None, photos=photos, shots=shots
        ).items():
            listed[name] = images, [Marking(mask, f"from {annotations.name}") for mask in masks]
    if one_class and not names:
        inside, listed = (_of_classes([*groups], part) for part in (inside, listed))
    by_options = supports_of(groups, rule)
    found = merged(by_options, inside, listed)
    for name in labels:
        masks = [mask for n in found for mask in found[n][1] if name in (n, None)]
        if not any(isinstance(mask, Path) for mask in masks) and not ctx.params.get("correct"):
            raise UsageError(f"--label {labels[name]} says which value of a --mask is the object, but there is no mask")
    for images, masks in by_options.values():
        note_mixed(images, masks)
    note_answers([mask for _, masks in found.values() for mask in masks], annotations)
    scribbles = [photo.scribble for group in groups.values() for photo in group]
    return Given(found, labels, [path for path in (*scribbles, annotations) if path])


def _check_patterns(arguments: Sequence[str]) -> None:
    """UsageError where a pattern of the shell has become several files, of which an option takes the first."""
    for option, first, second in zip(arguments, arguments[1:], arguments[2:], strict=False):
        if option != "--support" or second.startswith("-"):
            continue
        if Path(second).parent == Path(first).parent and os.path.isfile(second):
            raise UsageError(
                f"after --support {first} comes {second}: an option takes one file. If {second} is a photo to search, "
                f"write it before all options (fewseg segment {second} --support {first} --mask ...), or at the end "
                "after --; if it is a further support, as where a pattern such as *.jpg was given, repeat --support "
                "and --mask for each photo, or give --supports FOLDER"
            )


def mask_names(images: Sequence[Any], masks: Sequence[Any]) -> dict[str, str]:
    """The mask's file of each photo that is alone with its name."""
    names = [Path(image).name if isinstance(image, str | os.PathLike) else "" for image in images]
    pairs = zip(names, masks, strict=True)
    return {name: mask.name for name, mask in pairs if isinstance(mask, Path) and names.count(name) == 1}


def _of_classes(names: Sequence[str | None], part: Supports) -> Supports:
    """Those of the classes that are named, if any are there; a line says what is left out."""
    own = {name: part[name] for name in part if name in names}
    if own and (others := [name for name in part if name not in own]):
        say(f"a concept is one class, {', '.join(map(str, own))}; left out: {', '.join(map(str, others))}")
    return own or part


def _check_without_annotations(ctx: typer.Context, unknown: list[str], inside: Supports, *, one_class: bool) -> None:
    """UsageError for a class that nothing describes, and for options that choose from --annotations."""
    if unknown and inside:
        raise UsageError(f"--class {unknown[0]}: the folders of --supports are {', '.join(map(str, inside))}")
    if unknown and ctx.params.get("concept") and not one_class:
        raise UsageError(
            f"--class {unknown[0]}: a concept brings its class; leave --class out, or call it so in a file of its own: "
            f"fewseg teach --concept FILE --class {shlex.quote(unknown[0])} --out OTHER.concept"
        )
    if unknown and not ctx.params.get("concept"):
        raise UsageError(
            f"--class {unknown[0]} has no --support; give its photos after it, or --annotations FILE or --supports "
            "FOLDER to choose it from"
        )
    for option in ("shots",) if ctx.params.get("correct") else ("shots", "photos"):
        if said(ctx, option):
            raise UsageError(
                f"--{option} is of the photos that --annotations FILE names: give it too, or leave this out"
            )


def pictures(paths: list[Path], option: str, *, videos: bool = False) -> list[Path]:
    """Photos, and videos where they are taken, and those of folders but for masks among them; UsageError for a folder
    without any.
    """
    from fewseg.data.images import SUFFIXES
    from fewseg.data.text import Tally
    from fewseg.data.video import VIDEO_SUFFIXES
    from fewseg.segment.planning import files_in, photos_among

    suffixes = SUFFIXES | VIDEO_SUFFIXES if videos else SUFFIXES
    found: list[Path] = []
    others = Tally(option)
    for path in paths:
        inside = photos_among([file for file in files_in(path) if file.suffix.lower() in suffixes], others)
        if path.is_dir() and not inside:
            raise UsageError(f"{option} {path}: there are no pictures in this folder")
        found += inside if path.is_dir() else [path]
    others.warn()
    return found


def model_beside(paths: Sequence[Path], concepts: Sequence[Concept]) -> str | None:
    """The adapted model that lies beside concepts that were all taught with it; a line says so. None for others.

    Only a folder of that very name is looked for, and its weights must be those that were taught.
    """
    from fewseg.files import file_sha256

    used = {concept.model for concept in concepts}
    name = concepts[0].model.name
    if len(used) > 1 or not name.endswith(ADAPTED) or Path(name).name != name:
        return None
    folder = paths[0].with_name(name)
    weights = folder / "model.safetensors"
    if not weights.is_file() or file_sha256(weights) != concepts[0].model.sha256:
        return None
    say(f"model: {folder}, which the concept was adapted with")
    return str(folder)


def said(ctx: typer.Context, option: str) -> bool:
    """Whether an option stands in the command, and has not its default alone."""
    source = ctx.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"


def words(ctx: typer.Context, *, without: tuple[str, ...] = (), flags: tuple[str, ...] = ()) -> list[str]:
    """The command's words as they were given, without some options that take a value, and some flags."""
    kept: list[str] = []
    given = iter(ctx.meta[_ORDER])
    for word in given:
        if word in without:
            next(given, None)
        elif not word.startswith(tuple(f"{option}=" for option in without)) and word not in flags:
            kept.append(word)
    return kept


def nothing_to_find() -> UsageError:
    """What is said where no option says what to find."""
    return UsageError(
        "nothing says what to find: give --support PHOTO --mask FILE (or --box, --point, --scribble), --supports "
        "FOLDER, or --annotations FILE"
    )


def tell_supports(supports: Supports, markings: Mapping[str, Iterable[Marking]]) -> None:
    """One line a support: how its mask was understood, and how much of the picture is marked."""
    from fewseg.segment.supports import understood

    for name, (images, masks) in supports.items():
        told = markings["support" if name is None else name]
        for image, mask, marking in zip(images, masks, told, strict=True):
            say(understood(name, image, mask, marking))
