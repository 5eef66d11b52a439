"""The command `fewseg segment`: a model on one's own photos. It works without torch."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewseg.cli import supports as given
from fewseg.cli.options import Device, Model, Precision, Refine, finite
from fewseg.cli.outputs import check_made_here
from fewseg.cli.printing import say
from fewseg.cli.segment_told import tell_doubts, tell_masks
from fewseg.cli.stopping import if_stopped
from fewseg.errors import UsageError, check_choice
from fewseg.progress import Bars

if TYPE_CHECKING:
    from fewseg.concept.finder import Finder
    from fewseg.data.decoding import PictureRule
    from fewseg.predictor import FewShotPredictor
    from fewseg.segment.shards import Shard
    from fewseg.segment.supports import Supports


def segment(
    ctx: typer.Context,
    out: Annotated[str, typer.Option(help="Folder for masks and overlays, or an address such as s3://BUCKET/MASKS.")],
    queries: Annotated[
        list[str] | None,
        typer.Argument(
            help="Photos, videos, or folders of them (none with --check); s3://BUCKET/PHOTOS with the extra `remote`."
        ),
    ] = None,
    concept: Annotated[
        list[Path] | None,
        typer.Option(help="What fewseg teach wrote, instead of supports; repeat for several classes."),
    ] = None,
    model: Model = "lite",
    class_: given.Class = None,
    support: given.Support = None,
    mask: given.Mask = None,
    label: given.LabelOption = None,
    scribble: given.Scribble = None,
    box: given.Box = None,
    point: given.Point = None,
    background: given.Background = None,
    supports: given.SupportsFolder = None,
    annotations: given.Annotations = None,
    photos: Annotated[Path | None, typer.Option(help="Folder of the photos that --annotations names.")] = None,
    shots: given.MostShots = 10,
    format_: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help="png, coco, yolo, geojson, labelme, cvat, labelstudio, via, csv, geotiff, gpkg; repeatable [png].",
        ),
    ] = None,
    overlay: Annotated[bool, typer.Option(help="Also write the photo with the masks drawn on it.")] = True,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, callback=finite, help="Foreground above this probability [0.5, or the concept's]."),
    ] = None,
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
    instances: Annotated[
        bool,
        typer.Option(
            "--instances", help="Tell single objects apart, those that touch too: a PNG of numbers, COCO, results.csv."
        ),
    ] = False,
    review: Annotated[
        bool,
        typer.Option(
            "--review", help="Sort results.csv by doubt, and write review.html, a page of what to look at first."
        ),
    ] = False,
    every: Annotated[int, typer.Option(callback=finite, min=1, help="Of a video, take every n-th frame.")] = 1,
    steady: Annotated[
        bool, typer.Option(help="Of a video, let the frame before decide where the supports are undecided.")
    ] = True,
    window: Annotated[
        int | None,
        typer.Option(
            callback=finite,
            min=64,
            help="Read pictures of any size in windows of so many pixels a side; masks are GeoTIFFs "
            "[the size of the supports' photos, with --format geotiff or gpkg].",
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(help="I/N: only part I of N, from 1, for processes and machines that share the work [all]."),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="ray: share the photos out over Ray's cluster (RAY_ADDRESS, else this machine) [none]."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Leave out photos whose files are all there; without it all but corrected masks are made anew.",
        ),
    ] = False,
    flip: Annotated[
        bool, typer.Option("--flip", help="Average with the mirrored photo: a little better, twice the time.")
    ] = False,
    refine: Refine = "none",
    precision: Precision = "fp32",
    range_: given.Range = None,
    bands: given.Bands = None,
    page: given.Page = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Write a picture of each support with its marking to --out, and end: no photos."),
    ] = False,
    device: Device = "auto",
    runtime: given.Runtime = None,
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

    What `fewseg teach` learnt: `fewseg segment --concept rust.concept --out masks photos/`; `results.csv` comes along.
    """
    from fewseg.segment import plan, segment_folder, segment_large_folder
    from fewseg.segment.outputs import held
    from fewseg.segment.ray_parts import run_parts
    from fewseg.segment.remote import outputs_at
    from fewseg.segment.review import NAME as REVIEW

    resume = resume or engine is not None  # what the parts did is there
    large = _in_windows(window, format_ or [], whole={"--instances": instances, "--review": review})
    formats = _formats(format_, large=large, instances=instances, concept=bool(concept), resume=resume)
    as_tried = (flip, refine, precision) == (False, "none", "fp32")
    given.check_engine(runtime=runtime, provider=provider, refine=refine, precision=precision)
    part = _part(shard, engine, review=review)
    rule = given.picture_rule(range_, bands, page)
    found = given.read_supports(ctx, supports, annotations, photos=photos, shots=shots, rule=rule)
    _check_concept(bool(concept), supports=bool(found.supports), check=check, as_tried=as_tried)
    queries = _photos(queries or [], out, check=check)
    _check_review(review, shown=bool(concept) and overlay and "png" in (format_ or ["png"]))
    if check:
        _draw(found, Path(out), rule)
        return
    if concept:
        chosen = given.said(ctx, "model")
        own_rule = rule if (range_, bands, page) != (None, None, None) else None
        how: dict[str, Any] = {"runtime": runtime, "provider": provider, "device": device, "pictures": own_rule}
        predictor = _finder(concept, model if chosen else None, threshold=threshold, **how)
        threshold = 0.5
    else:
        from fewseg.predictor import FewShotPredictor

        how = {"flip": flip, "refine": refine, "precision": precision, "runtime": runtime, "provider": provider}
        model = model if refine != "none" or given.said(ctx, "model") else _for_so_many(found.supports)
        predictor = _taught_by_photos(found, FewShotPredictor(model, device, pictures=rule, **how))
    what = "the concept was taught without photos of its absence" if concept else model
    _check_presence(presence, what, tells=predictor.tells_presence)
    options: dict[str, Any] = {"overlay": overlay, "min_area": min_area, "resume": resume, "shard": part}
    options |= {"threshold": 0.5 if threshold is None else threshold, "presence": 0.5 if presence is None else presence}
    in_windows = partial(segment_large_folder, formats=formats, window=window)
    whole = partial(segment_folder, formats=formats, instances=instances, every=every, steady=steady)
    kept = f"what is in {out} is whole, and the same command with --resume goes on from there"
    with if_stopped(kept), held(out, part):
        if engine:
            words = given.words(ctx, without=("--engine",), flags=("--resume", "--review"))
            run_parts(words, len(plan(queries, Path(out))), progress=Bars())
        with outputs_at(out, resume=resume) as folder:
            if review:
                check_made_here([folder / REVIEW], "<!doctype html>")
            summary = (in_windows if large else whole)(predictor, queries, folder, **options, progress=Bars())
            if review:
                tell_doubts(folder, out)
            tell_masks(summary, folder, out, part)


def _draw(found: given.Given, out: Path, rule: PictureRule) -> None:
    """A picture of each support with its marking, and a line of each."""
    from fewseg.segment.supports import draw_supports

    for path, told in draw_supports(found.supports, found.labels, out, rule).items():
        say(f"{told}; drawn in {path}")


def _check_concept(concept: bool, *, supports: bool, check: bool, as_tried: bool) -> None:
    if concept and (supports or check):
        raise UsageError("--concept brings its own supports; give it alone, or add to it: fewseg teach --concept FILE")
    if not concept and not supports:
        raise given.nothing_to_find()
    if concept and not as_tried:
        raise UsageError("a concept is looked for as it was tried: leave out --flip, --refine and --precision")


def _check_presence(presence: float | None, what: str, *, tells: bool) -> None:
    if presence is not None and not tells:
        raise UsageError(f"--presence {presence}: {what} does not tell whether a class is there at all; leave it out")


def _photos(queries: list[str], out: str, *, check: bool) -> list[str]:
    """The photos that are given; UsageError where there are none to search, or the masks cannot go to `out`."""
    from fewseg.segment.remote import is_remote

    if is_remote(out) and (check or any(f"{out}/".startswith(f"{query.rstrip('/')}/") for query in queries)):
        raise UsageError(f"--out {out}: give a folder on the disk with --check, and none among the photos")
    if not queries and not check:
        raise UsageError("no photos to search were given; write them, or folders of them, before the options")
    return queries


def _check_review(review: bool, *, shown: bool) -> None:
    if review and not shown:
        needs = "give --concept, leave out --no-overlay, and add --format png"
        raise UsageError(f"--review sorts by what a concept expects, and shows masks and overlays: {needs}")


def _part(shard: str | None, engine: str | None, *, review: bool) -> Shard | None:
    """Which part of the photos is to be done; UsageError where that cannot be."""
    from fewseg.segment.shards import Shard

    if engine is not None:
        check_choice("--engine", engine, ["ray"])
        if shard is not None:
            raise UsageError("--engine makes the parts itself; leave out --shard")
    if shard is not None and review:
        raise UsageError("--review sorts all photos: give it with --resume and without --shard once all parts are done")
    return None if shard is None else Shard.of(shard)


def _in_windows(window: int | None, formats: list[str], *, whole: dict[str, bool]) -> bool:
    """Whether pictures are read in windows; UsageError where an option is of pictures that are read `whole`."""
    large = window is not None or bool({"geotiff", "gpkg"} & set(formats))
    if large and (wrong := [option for option, is_given in whole.items() if is_given]):
        raise UsageError(f"{wrong[0]} is of pictures that are read whole; --format gpkg has a line for each part")
    return large


def _formats(given: list[str] | None, *, large: bool, instances: bool, concept: bool, resume: bool) -> list[str]:
    """The formats to write; UsageError where one is unknown, or cannot be gone on with."""
    from fewseg.segment.large_folder import check_large_formats
    from fewseg.segment.outputs import check_formats

    if large:
        check_large_formats(given or ["geotiff"])
        return given or ["geotiff"]
    more = [*(("coco", "csv") if instances else ()), *(("csv",) if concept else ())]
    formats = [*dict.fromkeys([*(given or ["png"]), *more])]
    check_formats(formats, resume=resume, instances=instances)
    return formats


def _for_so_many(supports: Supports) -> str:
    """The shipped model by what it is best of its supports; a line says so where that is not the model alone."""
    from fewseg.storage.engines import SEVERAL, THEIR_MODEL

    if all(len(photos) < 2 for photos, _ in supports.values()):
        return THEIR_MODEL
    say(
        f"several supports: by {SEVERAL}, which trains a classifier too for a class that has several; --model "
        f"{THEIR_MODEL} leaves that out"
    )
    return SEVERAL


def _finder(paths: list[Path], model: str | None, **how: Any) -> Finder:
    """The concepts, ready; a line says how each is looked for."""
    from fewseg.concept import Concept
    from fewseg.concept.finder import Finder

    concepts = [Concept.load(path) for path in paths]
    model = model or given.model_beside(paths, concepts)
    finder = Finder(concepts, model, **how)
    for path, concept in zip(paths, concepts, strict=True):
        say(f"{path}: {concept.title}, by {concept.choice}; expect {concept.expected}")
    finder.support_files = frozenset(path.resolve() for path in paths)
    return finder


def _taught_by_photos(found: given.Given, predictor: FewShotPredictor) -> FewShotPredictor:
    """The predictor with its supports; a line says how each was understood."""
    if None in found.supports:
        predictor.set_support(*found.supports[None], label=found.labels.get(None))
    else:
        predictor.set_support(found.supports, label=found.labels_by_name())
    given.tell_supports(found.supports, predictor.markings)
    predictor.support_files |= {path.resolve() for path in found.files}
    return predictor
