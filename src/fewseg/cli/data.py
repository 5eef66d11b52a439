"""`fewseg data`: look at a data set, check it, list its episodes, download it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewseg.cli.options import finite
from fewseg.cli.outputs import check_made_here, check_outputs, check_outside
from fewseg.cli.printing import console, printable, say
from fewseg.errors import DataError, shortened
from fewseg.progress import Bars, counted

if TYPE_CHECKING:
    from fewseg.config import Config

data_app = typer.Typer(
    name="data",
    help="Look at a data set: statistics, checks, pictures, episode lists, downloads."
    " Its options are written as for `fewseg train`: `fewseg data stats pascal5i data.root=DIR data.sbd=all`.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Name = Annotated[
    str,
    typer.Argument(
        help="pascal5i, coco20i, fss1000, lvis92i, isaid5i, pascal_part, paco_part, deepglobe, isic2018, chest_xray, "
        "suim, folder, coco_json, mix, scenes, or package.module:Class."
    ),
]
Words = Annotated[
    list[str] | None, typer.Argument(help="Recipes and overrides, such as `data.root=DIR data.fold=0 data.sbd=all`.")
]
Root = Annotated[Path | None, typer.Option(hidden=True, help="0.1's word for data.root=DIR.")]
Subset = Annotated[str, typer.Option(help="train or test.")]

_ALIKE = 10
"""Problems of one kind that are told whole; of more the ids."""


@data_app.command()
def stats(
    name: Name,
    words: Words = None,
    root: Root = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Count, per fold, the images to train on (under both rules for novel classes) and to test on."""
    from fewseg.data.inspect.stats import fold_statistics

    config = _config(name, words, root=root)
    train, test = (_source(config, subset) for subset in ("train", "test"))
    found = fold_statistics(train, test)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    rows = [["fold", "train, novel dropped", "train, novel as background", "test", "novel classes"]]
    for fold in found:
        novel = ", ".join(f"{c} {n['test']}" for c, n in fold["classes"].items() if n["role"] == "novel")
        rows.append([*(str(fold[key]) for key in ("fold", "train_drop", "train_background", "test")), novel])
    console().print(printable(rows))
    say(
        "train: images that hold a base class; training leaves out those of classes that train.validation=base holds "
        "out, and of classes with fewer images than an episode needs"
    )
    novel_in_some = {c for fold in found for c, n in fold["classes"].items() if n["role"] == "novel"}
    if len(found) > 1 and (never := [c for c in found[0]["classes"] if c not in novel_in_some]):
        say(f"novel in no fold, and so measured in none: {shortened(never, 20)}")
    for key, part in getattr(train, "parts", {}).items():
        images = f"{counted(len(part.index.ids), 'image')} to train on, {len(test.parts[key].index.ids)} to test on"
        say(f"{key}: {images}, {counted(len(part.class_names), 'class')}")
    for joined, own in getattr(train, "joined", {}).items():
        say(f"joined as {joined}: " + ", ".join(f"{key}/{class_name}" for key, class_name in own.items()))


@data_app.command()
def check(name: Name, words: Words = None, root: Root = None) -> None:
    """List what would fail later: files that are missing, unreadable, of a wrong size or wrongly labelled, masks that
    mark nothing, classes with too few images; exit code 1 if there is anything.
    """
    from fewseg.data.inspect.check import Problem, check_classes, check_copies, check_source

    config = _config(name, words, root=root)
    sources = [_source(config, subset) for subset in ("train", "test")]
    parts = [list(getattr(source, "parts", {"": source}).values()) for source in sources]
    pairs = [pair for pair in zip(*parts, strict=True) if all(hasattr(part, "image_path") for part in pair)]
    if not pairs:
        say(f"{name} has no files to check")
        return
    problems: list[Problem] = []
    images = 0
    for pair in pairs:
        train, test = ([part.image_path(i) for i in range(len(part.ids))] for part in pair)
        left_out = [path for _, path, *_ in getattr(pair[0], "left_out", ())]
        problems += check_source(pair[0], progress=Bars())
        problems += check_source(pair[1], but={*train, *left_out}, progress=Bars())
        images += len({*train, *test})
    for kind in dict.fromkeys(problem.kind for problem in problems):
        alike = [problem for problem in problems if problem.kind == kind]
        for problem in alike[:_ALIKE]:
            say(f"{kind}: {problem.text}")
        if more := [problem.image_id for problem in alike[_ALIKE:]]:
            say(f"{kind}: {len(more)} more: {' '.join(more)}")
    if problems:
        raise DataError(
            f"{counted(len(problems), 'problem')} in {counted(images, 'image')} of {config.data.root or name}"
        )
    notes = [*check_classes(sources, shots=config.data.shots), *check_copies(sources, progress=Bars())]
    for text in notes:
        say(f"note: {text}", err=True)
    notes += [text for pair in pairs for text in getattr(pair[0], "swapped", ())]  # told with the index
    but = " but for what the notes say" * bool(notes)
    say(f"{counted(images, 'image')} of {config.data.root or name}: nothing wrong{but}")


@data_app.command()
def show(
    name: Name,
    out: Annotated[Path, typer.Option(help="PNG file to write.")],
    words: Words = None,
    root: Root = None,
    subset: Subset = "train",
    count: Annotated[int, typer.Option(callback=finite, min=1, help="Images on the sheet.")] = 24,
    seed: Annotated[int, typer.Option(callback=finite, min=0, help="Which images.")] = 0,
) -> None:
    """Draw a contact sheet of images with their labels."""
    from fewseg.data.images import write_image
    from fewseg.data.inspect.sheet import contact_sheet

    check_outside(out, [*(words or []), f"root={root}"])
    write_image(contact_sheet(_source(_config(name, words, root=root), subset), count=count, seed=seed), out)
    say(f"contact sheet: {out}")


@data_app.command()
def episodes(
    name: Name,
    out: Annotated[Path, typer.Option(help="CSV file to write; `fewseg evaluate --episodes-file` reads it.")],
    words: Words = None,
    root: Root = None,
    fold: Annotated[int | None, typer.Option(callback=finite, hidden=True, help="0.1's word for data.fold=0.")] = None,
    shots: Annotated[
        int | None, typer.Option(callback=finite, hidden=True, help="0.1's word for data.shots=1.")
    ] = None,
    protocol: Annotated[str, typer.Option(help="As for `fewseg evaluate`; see docs/protocols.md.")] = "fewseg",
    count: Annotated[int | None, typer.Option("--episodes", callback=finite, min=1, help="[the protocol's]")] = None,
    seed: Annotated[int | None, typer.Option(callback=finite, min=0, help="[the protocol's first]")] = None,
) -> None:
    """Draw a list of test episodes and save it as a CSV that a person can read."""
    from fewseg.evaluation.benchmark import Benchmark

    check_outputs([out], *(words or []))
    check_made_here([out], "# source: ")
    config = _config(name, words, root=root, fold=fold, shots=shots)
    source = _source(config, "test")
    benchmark = Benchmark.draw(
        source,
        source.fold(config.data.fold),
        protocol=protocol,
        shots=config.data.shots,
        episodes=count,
        repeats=1,
        seeds=None if seed is None else (seed,),
    )
    (listed,) = benchmark.lists
    listed.save(out)
    say(f"{counted(len(listed), 'episode')}, SHA-256 {listed.sha256}: {out}")


@data_app.command()
def download(
    name: Annotated[
        str, typer.Argument(help="voc2012, sbd, coco2014, coco2017, lvis or paco; of others, where to find them.")
    ],
    root: Annotated[Path, typer.Option(help="Directory to unpack into.")],
) -> None:
    """Fetch a data set from its own host, with checksums; a broken download goes on where it stopped."""
    from fewseg.data.download import download as fetch

    fetch(name, root, progress=Bars())
    say(f"{name} is in {root}")


def _config(name: str, words: list[str] | None, **formerly: Any) -> Config:
    """The configuration of a data set by recipe or class, changed by `words`; 0.1's spellings are still understood."""
    from fewseg.config import load_config, recipes

    old = {word: f"data.{word}" for word in words or [] if re.match(r"\w+=", word)}
    old |= {f"--{key} {value}": f"data.{key}={value}" for key, value in formerly.items() if value is not None}
    for before, now in old.items():
        say(f"note: write {now} for {before}, as `fewseg train` does; the next release takes nothing else", err=True)
    given = [word for word in words or [] if word not in old]
    return load_config(name if name in recipes() else f"data.name={name}", *given, *old.values())


def _source(config: Config, subset: str) -> Any:
    from fewseg.build import create_source

    return create_source(config, subset, progress=Bars())
