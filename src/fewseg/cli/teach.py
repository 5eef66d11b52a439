"""The command `fewseg teach`: supports in, a concept out. It works without torch."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewseg.cli import supports as given
from fewseg.cli.options import Device, Model
from fewseg.cli.outputs import check_outputs
from fewseg.cli.printing import say
from fewseg.cli.stopping import if_stopped
from fewseg.errors import DataError, UsageError
from fewseg.progress import Bars, counted

if TYPE_CHECKING:
    from fewseg.concept import Concept
    from fewseg.data.masks import Label

_SUFFIX = ".concept"
_LOW = 0.5
"""An expected IoU below which it is said what would help."""
_LESS = 0.02
"""So much less expected IoU than before is worth a word, and a copy of what was."""


def teach(
    ctx: typer.Context,
    out: Annotated[
        Path | None, typer.Option(help="The concept's file, NAME.concept [that of --concept, which is replaced].")
    ] = None,
    concept: Annotated[Path | None, typer.Option(help="A concept to go on from: its photos are learnt along.")] = None,
    correct: Annotated[
        list[Path] | None,
        typer.Option(help="A folder that segment --concept wrote: masks corrected there are supports; or such masks."),
    ] = None,
    absent: Annotated[list[Path] | None, typer.Option(help="A photo without the class, or a folder of them.")] = None,
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
    photos: Annotated[
        Path | None, typer.Option(help="Folder of the photos that --annotations or --correct name.")
    ] = None,
    shots: given.MostShots = 10,
    keep_photos: Annotated[
        bool, typer.Option("--photos-inside/--no-photos", help="Keep the photos in the file, or features alone.")
    ] = True,
    adapt: Annotated[
        bool,
        typer.Option("--adapt", help="Train the model further on the supports, and take it if it finds them better."),
    ] = False,
    range_: given.Range = None,
    bands: given.Bands = None,
    page: given.Page = None,
    device: Device = "auto",
    runtime: given.Runtime = None,
) -> None:
    """Learn a class from annotated photos: a concept, one file that `fewseg segment --concept` takes.

    `fewseg teach --class rust --support a.jpg --mask a.png --support b.jpg --box 10,20,200,180 --out rust.concept`.
    Supports are given as to `fewseg segment`; a mask that marks nothing says that its photo does not have the class.

    Every support is looked for by means of the others, with each method, threshold, and whole or in tiles: the best
    setting is kept, and the IoU to expect is told. A picture beside the file shows how each support was understood.

    `fewseg teach --concept rust.concept --correct masks/` takes masks that were corrected, and tells it anew.
    """
    from fewseg.concept import Concept, teach

    given.check_engine(runtime=runtime)
    former = None if concept is None else Concept.load(concept)
    target = _target(out, concept)
    asked = (range_, bands, page) != (None, None, None)
    rule = given.picture_rule(range_, bands, page) if asked or former is None else former.pictures
    found = given.read_supports(ctx, supports, annotations, photos=photos, shots=shots, rule=rule, one_class=True)
    name, images, masks = _one_class(found, former, class_ or [], alone=not (correct or absent) and target != concept)
    value = found.labels.get(name, found.labels.get(None))
    if correct:
        more, marked = _corrected(correct, former, photos, value)
        images, masks = [*images, *more], [*masks, *marked]
    without = given.pictures(absent or [], "--absent")
    if not images and not without and former is None:
        raise given.nothing_to_find()
    sheet = target.with_name(f"{target.stem}_supports.png")
    check_outputs([target, sheet], *images, *masks, *without, *found.files)
    if concept is None or target != concept:
        _check_replaced(target, [*images, *without])
    folder = target.with_name(target.stem + given.ADAPTED)
    if adapt:
        _check_adapting(folder, former, count=len(images), keep_photos=keep_photos)
    chosen = given.said(ctx, "model")
    if former and former.model.name.endswith(given.ADAPTED) and not chosen and (images or without):
        told = "the concept's model was trained on its supports, and tells nothing of others"
        say(f"{told}: tried with lite as it comes; --adapt trains anew")
        model, chosen = "lite", True
    with if_stopped():
        taught = teach(
            images,
            masks,
            name=name,
            absent=without,
            label=value,
            model=model if chosen else None,
            former=former,
            keep_photos=keep_photos,
            pictures=rule,
            runtime=runtime,
            device=device,
            progress=Bars(),
        )
    if adapt:
        with if_stopped("the concept was not written"):
            taught = _adapted(taught, folder, device)
    kept = _kept(former, taught, target) if target == concept else None
    taught.save(target)
    _tell(taught, target, former, kept, given.mask_names(images, masks))
    _draw(taught, sheet)


def _kept(former: Concept | None, taught: Concept, target: Path) -> Path | None:
    """Where the concept that is replaced was saved, if less is expected of the new one: NAME_before.concept, ..."""
    from fewseg.segment.planning import free_name

    if former is None or taught.expected.iou >= former.expected.iou - _LESS:
        return None
    if former.model != taught.model and former.model.name == target.stem + given.ADAPTED:
        return None  # what it was adapted with is replaced
    taken = {path.stem.casefold() for path in target.parent.glob(f"*{_SUFFIX}")}
    kept = target.with_name(free_name(f"{target.stem}_before", taken) + _SUFFIX)
    former.save(kept)
    return kept


def _draw(concept: Concept, sheet: Path) -> None:
    """The supports with their marks, where the concept keeps them, and where that is drawn."""
    from fewseg.concept.sheet import contact_sheet
    from fewseg.data.images import write_image

    if concept.supports:
        write_image(contact_sheet(concept), sheet)
        say(f"how each support was understood: {sheet}")


def _check_adapting(folder: Path, former: Concept | None, *, count: int, keep_photos: bool) -> None:
    """What would be wrong with --adapt shows before the supports are tried; `count` of them are given now."""
    from fewseg.concept.adapting import LEAST, trainer

    trainer()  # what it lacks
    if not keep_photos:
        raise UsageError("--adapt trains on the photos: leave out --no-photos, or --adapt")
    if (supports := count + (len(former.supports) if former else 0)) < LEAST:
        raise UsageError(f"--adapt needs {LEAST} supports or more; there are {supports}")
    if folder.exists() and not (former and former.model.name == folder.name):
        raise UsageError(f"{folder} is there already, and is where the adapted model would be; give another --out")


def _adapted(concept: Concept, folder: Path, device: str) -> Concept:
    """The concept on a model that was trained further, in a folder beside it, or as it is; a line says why."""
    from fewseg.concept.adapting import adapted

    found = adapted(concept, folder, device=None if device == "auto" else device, progress=Bars())
    compared = f"expect {found.after} adapted, {found.before} as it comes"
    if found.better:
        say(f"{compared}: the adapted model is taken, {folder}; keep it beside the concept (it needs fewseg[train])")
    else:
        say(f"{compared}: adapting does not find the supports better, and is left out")
    return found.concept


def _target(out: Path | None, concept: Path | None) -> Path:
    target = out or concept
    if target is None:
        raise UsageError(f"give the file to write: --out NAME{_SUFFIX}")
    if target.suffix != _SUFFIX or target.is_dir():
        raise UsageError(f"--out {target}: a concept's file is called NAME{_SUFFIX}")
    return target


def _check_replaced(target: Path, photos: list[Any]) -> None:
    """UsageError where a concept at the target holds photos that are not given again: they would be lost."""
    from fewseg.concept import Concept
    from fewseg.concept.teach import photo_name

    if not target.exists():
        return
    try:
        there = Concept.load(target)
    except DataError as error:
        raise UsageError(f"--out is there already, and is not replaced ({error}); give another name") from error
    given = {photo_name(photo, number) for number, photo in enumerate(photos, 1)}
    if lost := [example.name for example in (*there.supports, *there.absent) if example.name not in given]:
        count = counted(len(lost), "photo")
        raise UsageError(
            f"--out {target} is there already, with {count} that would be lost, such as {lost[0]}; add to it "
            f"(--concept {target} in place of --out), or give another name"
        )


def _one_class(
    found: given.Given, former: Concept | None, named: list[str], *, alone: bool
) -> tuple[str | None, list[Any], list[Any]]:
    """The class's name, its photos and masks; `named` without photos is how a concept is to be called in a file of its
    own, which nothing else may be asked of (`alone`).
    """
    if len(found.supports) > 1:
        names = ", ".join(map(str, found.supports))
        raise UsageError(f"a concept is one class, and {names} were given; teach each, --class NAME, into its own file")
    if not found.supports:
        own = former.name if former else None
        if others := sorted({*named} - {own}):
            if len(others) > 1 or not alone:
                raise UsageError(
                    f"--class {', '.join(others)}: a concept brings its class; leave --class out. It is called "
                    "otherwise by itself, in another file: fewseg teach --concept FILE --class NAME --out OTHER.concept"
                )
            return others[0], [], []
        return own, [], []
    ((name, (images, masks)),) = found.supports.items()
    if former is not None and None not in (name, former.name) and name != former.name:
        raise UsageError(f"the concept is {former.name}, and --class {name} was given; teach it into a file of its own")
    return name or (former.name if former else None), list(images), list(masks)


def _corrected(
    masks: list[Path], former: Concept | None, photos: Path | None, label: Label | None
) -> tuple[list[Any], list[Any]]:
    """Photos and corrected masks of the class; a line says how many there are."""
    from fewseg.segment.corrected import corrected

    if former is None:
        raise UsageError("--correct takes masks of a concept: give it, --concept NAME.concept")
    found, unchanged = corrected(masks, former.title, photos=photos, label=label)
    left = f"; {unchanged} as written, left out" if unchanged else ""
    say(f"{counted(len(found[0]), 'corrected mask')}{left}")
    return found


def _tell(concept: Concept, path: Path, former: Concept | None, kept: Path | None, masks: dict[str, str]) -> None:
    """What was taught, by which `masks` of this call, what to expect, and of the concept before, where it is `kept`,
    and what would help.
    """
    for example in (*concept.supports, *concept.absent):
        mask = masks.get(example.name, "")
        how = f"{mask}: {example.meaning}" if mask not in example.meaning else example.meaning
        say(f"support: {example.name}: {how}" if example.marks else f"without the class: {example.name}")
    if former:
        say(f"before: expect {former.expected}, by {former.choice}")
    count = len(concept.supports)
    told = f"{counted(count, 'support')}, " if count else ""
    say(f"{told}expect {concept.expected}, by {concept.choice}: {path}")
    for advice in advices(concept):
        say(advice)
    if kept:
        say(f"less is expected than before: {kept} is the concept as it was; compare both on a few photos")


def advices(concept: Concept) -> list[str]:
    """What would make a concept better, where little is to be expected of it."""
    from fewseg.data.masks import SWAPPED

    found, expected = [], concept.expected
    if count := len(concept.supports):
        if count == 1:
            found.append(
                "one support: nothing could be chosen on it, and the estimate is rough; two or more are better"
            )
        elif count == len(expected.by_choice):
            # by either setting: those that a photo is missing from may choose one that is bad for it, as few do
            found_best = [max(pair) for pair in zip(expected.each, expected.by_choice, strict=True)]
            if (least := min(found_best)) < expected.iou / 3:
                worst = found_best.index(least)
                told = f"{concept.supports[worst].name} is hardly found by the other{'s' * (count > 2)}"
                asked = "is its mask right?" if count > 2 else "is the mask of each right?"  # either may mislead
                swapped = [example.name for example in concept.supports if SWAPPED in example.meaning]
                if 0 < len(swapped) < count:  # of all it is what the class is like
                    asked = f"does {swapped[0]}'s mask mark what is around the object? Then invert it"
                found.append(f"{told} ({concept.found_by_others(worst)}): {asked}")
    if expected.iou >= _LOW:
        return found
    grown = [example.name for example in concept.supports if example.meaning.startswith("grown from")]
    ways = ["a wrong outline mended, if there is one"] * (count > 1)
    ways += [f"a mask instead of the marks of {grown[0]}"] if grown else []
    ways += ["more supports"] * (count < 10)
    lacking = "" if find_spec("torch") else ", with the extra train"
    ways += [f"a few minutes of training on them (--adapt{lacking})"] * (count >= 5 and concept.model.name == "lite")
    return [*found, f"that is low; what would help: {', '.join(ways) or 'other photos'}"]
