"""`fewseg experiment`: the experiments of HDMNet's supplement, on any data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from fewseg.cli.printing import console
from fewseg.progress import Bars

experiment_app = typer.Typer(
    name="experiment",
    help="The experiments of HDMNet's supplement on any data set: a table, CSV and JSON, and the figure.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Dataset = Annotated[
    str, typer.Argument(help="scenes, pascal5i, coco20i, fss1000, folder, coco_json, or package.module:Class.")
]
Words = Annotated[
    list[str] | None,
    typer.Argument(
        help="Recipes and overrides as of `fewseg train`, such as `hdmnet-paper data.root=DIR train.epochs=2`"
        " [experiment-DATASET where there is one, else hdmnet]."
    ),
]
Out = Annotated[Path, typer.Option(help="Folder for tables, figures and runs; what is finished in it is kept.")]
Folds = Annotated[str, typer.Option(help="Such as 0,1 [all].")]
Protocol = Annotated[str, typer.Option(help="fewseg, hdmnet, bam, pfenet or hsnet.")]
Episodes = Annotated[int | None, typer.Option(min=1, help="Test episodes per repeat [the protocol's].")]
Repeats = Annotated[int, typer.Option(min=1, help="Repeats, each with a seed of its own.")]
Workers = Annotated[int, typer.Option(min=0, help="Loader processes while measuring.")]
CacheGb = Annotated[float, typer.Option(min=0, help="Memory for encoded images; no number depends on it.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, or auto (to measure; train.accelerator to train).")]
Jobs = Annotated[int, typer.Option(min=1, help="Cells trained at once; threads (and CUDA devices) are divided.")]
OnlyTable = Annotated[bool, typer.Option("--only-table", help="Show what is there, and what is missing.")]
Runs = Annotated[list[str] | None, typer.Option("--run", help="A trained run or a saved model; may be repeated.")]


@experiment_app.command()
def statistics(dataset: Dataset, out: Out, words: Words = None, folds: Folds = "") -> None:
    """Images by the number of classes that they contain, and how much of them each class covers (Fig. 1).

    From the annotations alone, no photo is needed. Warns where nearly all images hold one class: the support mask is
    hardly needed there.
    """
    from fewseg.experiments import run_statistics

    found = run_statistics(_plan(dataset, out, words, folds), progress=Bars())
    _show(found.class_table, out)
    _show(found.table, out)


@experiment_app.command(name="support-mask")
def support_mask(
    dataset: Dataset,
    out: Out,
    words: Words = None,
    folds: Folds = "",
    at_test_only: Annotated[
        bool, typer.Option("--at-test-only", help="Take the mask away from the trained model, at test time only.")
    ] = False,
    protocol: Protocol = "fewseg",
    episodes: Episodes = None,
    repeats: Repeats = 1,
    workers: Workers = 2,
    cache_gb: CacheGb = 2.0,
    device: Device = "auto",
    jobs: Jobs = 1,
    only_table: OnlyTable = False,
) -> None:
    """HDMNet with and without the support mask, trained and measured each way, and the drop (Tab. 1, Fig. 4).

    On `scenes` it is measured on simple and on complex scenes.
    """
    from fewseg.experiments import run_support_mask

    plan = _plan(
        dataset,
        out,
        words,
        folds,
        protocol=protocol,
        episodes=episodes,
        repeats=repeats,
        workers=workers,
        cache_gb=cache_gb,
        device=device,
        jobs=jobs,
    )
    _show(run_support_mask(plan, at_test_only=at_test_only, only_table=only_table, progress=Bars()).table, out)


@experiment_app.command()
def episodes(
    dataset: Dataset,
    out: Out,
    words: Words = None,
    run: Runs = None,
    folds: Folds = "",
    count: Annotated[
        int | None, typer.Option("--episodes", min=1, help="n; ten times as many are drawn too [the protocol's].")
    ] = None,
    repeats: Annotated[int, typer.Option(min=2, help="R, each with a seed of its own.")] = 10,
    half_width: Annotated[
        float, typer.Option(help="Wanted half-width of the 95 % interval, in points of mIoU: how many episodes?")
    ] = 0.5,
    protocol: Protocol = "fewseg",
    workers: Workers = 2,
    cache_gb: CacheGb = 2.0,
    device: Device = "auto",
) -> None:
    """How far R repeats of n and of 10 n test episodes are apart, and how many episodes are enough (Fig. 2).

    Of trained runs (`--run RUN`, on the fold of each), or of a method without training on every fold:
    `fewseg experiment episodes pascal5i dense data.root=DIR --out DIR`. Every image is encoded once.
    """
    from fewseg.experiments import run_episodes

    plan = _plan(
        dataset,
        out,
        words,
        folds,
        protocol=protocol,
        episodes=count,
        repeats=repeats,
        workers=workers,
        cache_gb=cache_gb,
        device=device,
    )
    _show(run_episodes(plan, runs=run or [], half_width=half_width / 100, progress=Bars()).table, out)


@experiment_app.command()
def temperature(
    dataset: Dataset,
    out: Out,
    words: Words = None,
    folds: Folds = "",
    values: Annotated[str, typer.Option(help="Temperatures.")] = "0.5,1,2,5",
    protocol: Protocol = "fewseg",
    episodes: Episodes = None,
    repeats: Repeats = 1,
    workers: Workers = 2,
    cache_gb: CacheGb = 2.0,
    device: Device = "auto",
    jobs: Jobs = 1,
    only_table: OnlyTable = False,
) -> None:
    """HDMNet by the temperature of its distillation, on every fold (Tab. 2)."""
    from fewseg.experiments import run_temperature
    from fewseg.experiments.plan import parse_numbers

    plan = _plan(
        dataset,
        out,
        words,
        folds,
        protocol=protocol,
        episodes=episodes,
        repeats=repeats,
        workers=workers,
        cache_gb=cache_gb,
        device=device,
        jobs=jobs,
    )
    chosen = parse_numbers(values, float, option="--values")
    _show(run_temperature(plan, values=chosen, only_table=only_table, progress=Bars()).table, out)


@experiment_app.command()
def relu(
    dataset: Dataset,
    out: Out,
    words: Words = None,
    folds: Folds = "",
    shots: Annotated[str, typer.Option(help="Supports per episode, in training and test.")] = "1,5",
    protocol: Protocol = "fewseg",
    episodes: Episodes = None,
    repeats: Repeats = 1,
    workers: Workers = 2,
    cache_gb: CacheGb = 2.0,
    device: Device = "auto",
    jobs: Jobs = 1,
    only_table: OnlyTable = False,
) -> None:
    """HDMNet with and without the last ReLU of the back-end's stages, by shots, on every fold (Tab. 3).

    Only for back-ends that have one: `model.backbone=resnet50` or `resnet50-ds`, `vgg16_bn`, ...; not lite0.
    """
    from fewseg.experiments import run_relu
    from fewseg.experiments.plan import parse_numbers

    plan = _plan(
        dataset,
        out,
        words,
        folds,
        protocol=protocol,
        episodes=episodes,
        repeats=repeats,
        workers=workers,
        cache_gb=cache_gb,
        device=device,
        jobs=jobs,
    )
    chosen = parse_numbers(shots, int, option="--shots")
    _show(run_relu(plan, shots=chosen, only_table=only_table, progress=Bars()).table, out)


@experiment_app.command()
def correlation(
    dataset: Dataset,
    out: Out,
    words: Words = None,
    run: Runs = None,
    folds: Folds = "",
    rows: Annotated[int, typer.Option(min=1, help="Episodes in the picture.")] = 4,
    protocol: Protocol = "fewseg",
    episodes: Annotated[int | None, typer.Option(min=1, help="Test episodes of the table [100].")] = None,
    workers: Workers = 2,
    cache_gb: CacheGb = 2.0,
    device: Device = "auto",
    jobs: Jobs = 1,
) -> None:
    """Correlation maps of all stages with and without distillation, one row per episode (Figs. 5 and 6).

    Of one trained run or of two (`--run DISTILLED --run OTHER`); without `--run` both are trained on the first fold.
    """
    from fewseg.experiments import run_correlation

    plan = _plan(
        dataset,
        out,
        words,
        folds,
        protocol=protocol,
        episodes=episodes,
        workers=workers,
        cache_gb=cache_gb,
        device=device,
        jobs=jobs,
    )
    _show(run_correlation(plan, runs=run or [], rows=rows, progress=Bars()).table, out)


def _plan(dataset: str, out: Path, words: list[str] | None, folds: str, **others: Any) -> Any:
    from fewseg.experiments import Plan
    from fewseg.experiments.plan import parse_numbers

    chosen = parse_numbers(folds, int, option="--folds") or None
    return Plan(dataset, out=out, words=tuple(words or []), folds=chosen, **others)


def _show(table: Any, out: Path) -> None:
    """The table with its notes, and where everything is."""
    screen = console()
    shown = Table(*table.columns, title=table.title, title_justify="left")
    for row in table.rows:
        shown.add_row(*row)
    screen.print(shown)
    for note in table.notes:
        screen.print(note, style="yellow" if note.startswith("warning") else None, markup=False, highlight=False)
    typer.echo(f"written: {out}")
