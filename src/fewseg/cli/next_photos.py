"""The command `fewseg next`: which photos to annotate next for a concept. It works without torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewseg.cli import supports as given
from fewseg.cli.options import Device, Model, finite
from fewseg.cli.outputs import check_outputs
from fewseg.cli.printing import console, failed_photos, printable, say
from fewseg.cli.stopping import if_stopped
from fewseg.errors import DataError, UsageError
from fewseg.progress import Bars, counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from PIL import Image

    from fewseg.concept import Concept
    from fewseg.concept.next_photos import Growth


def next_(
    ctx: typer.Context,
    photos: Annotated[list[Path], typer.Argument(help="Photos and videos without annotations, or folders of them.")],
    concept: Annotated[Path, typer.Option(help="What fewseg teach wrote.")],
    count: Annotated[int, typer.Option(callback=finite, min=1, help="How many photos to choose.")] = 5,
    every: Annotated[int, typer.Option(callback=finite, min=1, help="Of a video, look at every n-th frame.")] = 10,
    model: Model = "lite",
    out: Annotated[Path | None, typer.Option(help="Also write the list here, as CSV.")] = None,
    device: Device = "auto",
    runtime: given.Runtime = None,
) -> None:
    """Say which photos to annotate next: those of doubt that differ from the supports, and from one another.

    `fewseg next --concept rust.concept photos/`. Annotate them, or mend their masks, and `fewseg teach --concept
    rust.concept --support PHOTO --mask FILE`, or `--correct DIR`; a frame of a video is named as `--support` takes it.
    What that is likely to bring is an estimate, by how much the supports brought one another.
    """
    import numpy as np

    from fewseg.concept import Concept
    from fewseg.concept import next_photos as choosing
    from fewseg.concept.finder import Finder
    from fewseg.files import write_failures

    given.check_engine(runtime=runtime)
    taught = Concept.load(concept)
    files = given.pictures(photos, "photos", videos=True)
    list_of_failed = out and out.with_name(f"{out.stem}-failures.csv")
    check_outputs(filter(None, (out, list_of_failed)), concept, *files)
    chosen = model if given.said(ctx, "model") else given.model_beside([concept], [taught])
    finder = Finder([taught], chosen, device=device, runtime=runtime)
    supports = choosing.taught_by(finder, taught)
    seen: list[tuple[Path, float, Any]] = []
    failed: list[tuple[Path, str]] = []
    with if_stopped():
        for file, picture in _pictures(files, failed, every=every):
            try:
                looked = choosing.looked_at(finder, picture, taught, supports)
            except DataError as error:
                failed.append((file, str(error)))
                continue
            if looked is None:
                say(f"{file} is in the concept already; left out")
                continue
            result, features = looked
            seen.append((file, result.doubt(0.5) or 0.0, features))
    if seen:
        doubts = np.array([doubt for _, doubt, _ in seen])
        picked = choosing.chosen(doubts, np.stack([features for *_, features in seen]), supports, count)
        growth = choosing.growth(finder.engine, taught)
        rows = _rows([(seen[i][0], seen[i][1], difference, worth) for i, difference, worth in picked], taught, growth)
        _tell(rows, out)
        say(_estimate(taught, growth, len(picked)))
    file = list_of_failed and write_failures(list_of_failed, failed)
    if failed:
        raise DataError(failed_photos(failed, f"could not be read, listed in {file}" if file else "could not be read"))
    if not seen:
        raise UsageError("all of these photos are in the concept already; give others")


def _pictures(
    files: Sequence[Path], failed: list[tuple[Path, str]], *, every: int
) -> Iterator[tuple[Path, Path | Image.Image]]:
    """Photos, and of videos the frames by their times (`clip.mp4@2.5s`), with what is shown; a video that breaks off is
    told in `failed`.
    """
    from fewseg.data.video import VIDEO_SUFFIXES, frames_so_far, named_frame, to_image

    bars = Bars()
    for file in bars(files, "looking at photos", len(files)):
        if file.suffix.lower() not in VIDEO_SUFFIXES:
            yield file, file
            continue
        for _, frame in frames_so_far(file, failed, every=every, progress=bars):
            yield named_frame(file, frame), to_image(frame)


def _rows(picked: list[tuple[Path, float, float, float]], concept: Concept, growth: Growth) -> list[tuple[str, ...]]:
    """The list; what all of them bring is shared out by their worth."""
    brings, *_ = growth.of(concept.shots, len(picked))
    worth = sum(each for *_, each in picked) or 1.0
    head = ("photo", "doubt", "difference", "brings")
    return [
        head,
        *(
            (str(photo), f"{doubt:.2f}", f"{difference:.2f}", f"{100 * brings * own / worth:+.1f}")
            for photo, doubt, difference, own in picked
        ),
    ]


def _tell(rows: list[tuple[str, ...]], out: Path | None) -> None:
    head, *chosen = rows  # a share in the file, as in results.csv; people read per cent, as in review.html
    told = [(photo, f"{100 * float(doubt):.0f} %", *rest) for photo, doubt, *rest in chosen]
    console().print(printable([head, *told]))
    if out:
        from fewseg.files import write_csv

        say(f"list: {write_csv(out, rows)}")


def _estimate(concept: Concept, growth: Growth, more: int) -> str:
    """What annotating so many photos is likely to bring, in words."""
    gain, low, high = (100 * each for each in growth.of(concept.shots, more))
    told = f"{counted(more, 'photo')} more: {gain:+.1f} points of IoU ({low:+.1f} to {high:+.1f})"
    how = "an estimate, by how much the supports brought one another and what is usual"
    return f"{told} on top of what is expected, {concept.expected}; {how}"
