"""`fewseg data`: look at a data set, check it, list its episodes, download it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from fewseg.errors import DataError
from fewseg.progress import Bars

data_app = typer.Typer(
    name="data",
    help="Look at a data set: statistics, checks, pictures, episode lists, downloads.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Name = Annotated[
    str, typer.Argument(help="pascal5i, coco20i, fss1000, folder, coco_json, scenes, or package.module:Class.")
]
Root = Annotated[Path | None, typer.Option(help="The data set's directory (`scenes` has none).")]
Options = Annotated[
    list[str] | None, typer.Argument(help="Options of the data set, such as `sbd=all` or `level=simple`.")
]
Subset = Annotated[str, typer.Option(help="train or test.")]


@data_app.command()
def stats(
    name: Name,
    options: Options = None,
    root: Root = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Count, per fold, the images to train on (under both rules for novel classes) and to test on."""
    from fewseg.data.inspect.stats import fold_statistics

    sources = [_source(name, root, options, subset) for subset in ("train", "test")]
    found = fold_statistics(sources[0], sources[1])
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    table = Table("fold", "train, novel dropped", "train, novel as background", "test", "novel classes")
    for fold in found:
        novel = ", ".join(f"{c} {n['test']}" for c, n in fold["classes"].items() if n["role"] == "novel")
        table.add_row(*(str(fold[key]) for key in ("fold", "train_drop", "train_background", "test")), novel)
    Console().print(table)


@data_app.command()
def check(name: Name, options: Options = None, root: Root = None) -> None:
    """List files that are missing, unreadable, of a wrong size or wrongly labelled; exit code 1 if there are any."""
    from fewseg.data.inspect.check import check_source

    problems, images = [], 0
    for subset in ("train", "test"):
        source = _source(name, root, options, subset)
        if not hasattr(source, "image_path"):
            typer.echo(f"{name} has no files to check")
            return
        images += len(source.ids)
        problems += check_source(source, progress=Bars())
    for problem in problems:
        typer.echo(f"{problem.kind}: {problem.text}")
    if problems:
        raise DataError(f"{len(problems)} problems in {images} images of {root}")
    typer.echo(f"{images} images of {root}: nothing wrong")


@data_app.command()
def show(
    name: Name,
    out: Annotated[Path, typer.Option(help="PNG file to write.")],
    options: Options = None,
    root: Root = None,
    subset: Subset = "train",
    count: Annotated[int, typer.Option(min=1, help="Images on the sheet.")] = 24,
    seed: Annotated[int, typer.Option(help="Which images.")] = 0,
) -> None:
    """Draw a contact sheet of images with their labels."""
    from fewseg.data.images import write_image
    from fewseg.data.inspect.sheet import contact_sheet

    sheet = contact_sheet(_source(name, root, options, subset), count=count, seed=seed)
    write_image(sheet, out)
    typer.echo(f"contact sheet: {out}")


@data_app.command()
def episodes(
    name: Name,
    out: Annotated[Path, typer.Option(help="CSV file to write; `fewseg evaluate --episodes-file` reads it.")],
    options: Options = None,
    root: Root = None,
    fold: Annotated[int, typer.Option(min=0)] = 0,
    shots: Annotated[int, typer.Option(min=1)] = 1,
    protocol: Annotated[str, typer.Option(help="As for `fewseg evaluate`; see docs/protocols.md.")] = "fewseg",
    count: Annotated[int | None, typer.Option("--episodes", min=1, help="[the protocol's]")] = None,
    seed: Annotated[int | None, typer.Option(help="[the protocol's first]")] = None,
) -> None:
    """Draw a list of test episodes and save it as a CSV that a person can read."""
    from fewseg.evaluation.benchmark import Benchmark

    source = _source(name, root, options, "test")
    benchmark = Benchmark.draw(
        source,
        source.fold(fold),
        protocol=protocol,
        shots=shots,
        episodes=count,
        repeats=1,
        seeds=None if seed is None else (seed,),
    )
    (listed,) = benchmark.lists
    listed.save(out)
    typer.echo(f"{len(listed)} episodes, SHA-256 {listed.sha256}: {out}")


@data_app.command()
def download(
    name: Annotated[str, typer.Argument(help="voc2012, sbd or coco2014 (fss1000: says where to find it).")],
    root: Annotated[Path, typer.Option(help="Directory to unpack into.")],
) -> None:
    """Fetch a data set from its own host, with checksums; a broken download goes on where it stopped."""
    from fewseg.data.download import download as fetch

    fetch(name, root, progress=Bars())
    typer.echo(f"{name} is in {root}")


def _source(name: str, root: Path | None, options: list[str] | None, subset: str) -> Any:
    """The source as the configuration `data.name=... data.root=...` would make it."""
    from fewseg.build import create_source
    from fewseg.config import load_config, recipes

    words = [name] if name in recipes() else [f"data.name={name}"]
    words += [f"data.{option.removeprefix('data.')}" for option in options or []]
    if root is not None:
        words.append(f"data.root={root}")
    return create_source(load_config(*words), subset, progress=Bars())
