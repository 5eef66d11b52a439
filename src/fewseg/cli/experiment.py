"""`fewseg experiment`: the experiments of HDMNet's supplement, on any data set."""

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from fewseg import experiments
from fewseg.cli.options import CacheGb, Protocol, finite
from fewseg.cli.outputs import check_made_here
from fewseg.cli.printing import console, printable, say
from fewseg.errors import UsageError
from fewseg.progress import Bars, visible

Number = TypeVar("Number", int, float)

experiment_app = typer.Typer(
    name="experiment",
    help="The experiments of HDMNet's supplement on any data set: a table, CSV and JSON, and the figure.",
    no_args_is_help=True,
)

OnlyTable = Annotated[bool, typer.Option("--only-table", help="Show what is there, and what is missing.")]
Runs = Annotated[list[str] | None, typer.Option("--run", help="A trained run or a saved model; may be repeated.")]


def _plan(
    dataset: Annotated[
        str, typer.Argument(help="scenes, pascal5i, coco20i, fss1000, folder, coco_json, or package.module:Class.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for tables, figures and runs; what is finished in it is kept.")],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            help="Recipes and overrides as of `fewseg train`, such as `hdmnet data.root=DIR base.epochs=2`"
            " [experiment-DATASET where there is one, else hdmnet]."
        ),
    ] = None,
    folds: Annotated[str, typer.Option(help="Such as 0,1 [all].")] = "",
    protocol: Protocol = "fewseg",
    episodes: Annotated[
        int | None, typer.Option(callback=finite, min=1, help="Test episodes per repeat [the protocol's].")
    ] = None,
    repeats: Annotated[int, typer.Option(callback=finite, min=1, help="Repeats, each with a seed of its own.")] = 1,
    workers: Annotated[int, typer.Option(callback=finite, min=0, help="Loader processes while measuring.")] = 2,
    cache_gb: CacheGb = 2.0,
    device: Annotated[
        str, typer.Option(help="cpu, cuda, cuda:1, mps, or auto (to measure; train.accelerator to train).")
    ] = "auto",
    jobs: Annotated[
        int, typer.Option(callback=finite, min=1, help="Cells trained at once; threads (and CUDA devices) are divided.")
    ] = 1,
) -> Any:
    """The plan of an experiment from its command line: every option is one of its fields."""
    return experiments.Plan(
        **locals() | {"words": tuple(words or ()), "folds": _numbers(folds, int, option="--folds") or None}
    )


BASICS = ("dataset", "out", "words", "folds")
MEASURING = ("protocol", "episodes", "repeats", "workers", "cache_gb", "device")


def _command(*names: str, **other: tuple[Any, Any]) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """Make a command of `fewseg experiment` of a function of a plan, which returns tables to show.

    Its command line has the named options of `_plan`, and the function's own. `other` gives an option of the plan
    another help and default.
    """

    def decorate(experiment: Callable[..., Any]) -> Callable[..., None]:
        _, *own = inspect.signature(experiment).parameters.values()
        asked = {name: inspect.signature(_plan).parameters[name] for name in (*BASICS, *names)}
        for name, (annotation, default) in other.items():
            asked[name] = asked[name].replace(annotation=annotation, default=default)
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*asked.values(), *own)]

        @wraps(experiment)
        def command(**values: Any) -> None:
            plan = _plan(**{name: values.pop(name) for name in asked})
            check_results(plan.out, experiment.__name__.replace("_", "-"))
            for table in experiment(plan, **values):
                _show(table, plan.out)

        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return experiment_app.command()(command)

    return decorate


@_command()
def statistics(plan: Any) -> list[Any]:
    """Images by the number of classes that they contain, and how much of them each class covers (Fig. 1).

    From the annotations alone, no photo is needed. Warns where nearly all images hold one class: the support mask is
    hardly needed there.
    """
    found = experiments.run_statistics(plan, progress=Bars())
    return [found.class_table, found.table]


@_command(*MEASURING, "jobs")
def support_mask(
    plan: Any,
    at_test_only: Annotated[
        bool, typer.Option("--at-test-only", help="Take the mask away from the trained model, at test time only.")
    ] = False,
    only_table: OnlyTable = False,
) -> list[Any]:
    """HDMNet with and without the support mask, trained and measured each way, and the drop (Tab. 1, Fig. 4).

    On `scenes` it is measured on simple and on complex scenes.
    """
    return [experiments.run_support_mask(plan, at_test_only=at_test_only, only_table=only_table, progress=Bars()).table]


@_command(
    *MEASURING,
    episodes=(
        Annotated[
            int | None,
            typer.Option(callback=finite, min=1, help="n; ten times as many are drawn too [the protocol's]."),
        ],
        None,
    ),
    repeats=(Annotated[int, typer.Option(callback=finite, min=2, help="R, each with a seed of its own.")], 10),
)
def episodes(
    plan: Any,
    run: Runs = None,
    half_width: Annotated[
        float,
        typer.Option(
            callback=finite, help="Wanted half-width of the 95 % interval, in points of mIoU: how many episodes?"
        ),
    ] = 0.5,
) -> list[Any]:
    """How far R repeats of n and of 10 n test episodes are apart, and how many episodes are enough (Fig. 2).

    Of trained runs (`--run RUN`, on the fold of each), or of a method without training on every fold:
    `fewseg experiment episodes pascal5i dense data.root=DIR --out DIR`. Every image is encoded once.
    """
    return [experiments.run_episodes(plan, runs=run or [], half_width=half_width / 100, progress=Bars()).table]


@_command(*MEASURING, "jobs")
def temperature(
    plan: Any,
    values: Annotated[str, typer.Option(help="Temperatures.")] = "0.5,1,2,5",
    only_table: OnlyTable = False,
) -> list[Any]:
    """HDMNet by the temperature of its distillation, on every fold (Tab. 2)."""
    chosen = _numbers(values, float, option="--values")
    return [experiments.run_temperature(plan, values=chosen, only_table=only_table, progress=Bars()).table]


@_command(*MEASURING, "jobs")
def relu(
    plan: Any,
    shots: Annotated[str, typer.Option(help="Supports per episode, in training and test.")] = "1,5",
    only_table: OnlyTable = False,
) -> list[Any]:
    """HDMNet with and without the last ReLU of the back-end's stages, by shots, on every fold (Tab. 3).

    Only for back-ends that have one: `model.backbone=resnet50` or `resnet50-ds`, `vgg16_bn`, ...; not lite0.
    """
    chosen = _numbers(shots, int, option="--shots")
    return [experiments.run_relu(plan, shots=chosen, only_table=only_table, progress=Bars()).table]


@_command(
    *(name for name in MEASURING if name != "repeats"),
    "jobs",
    episodes=(
        Annotated[int | None, typer.Option(callback=finite, min=1, help="Test episodes of the table [100].")],
        None,
    ),
)
def correlation(
    plan: Any,
    run: Runs = None,
    rows: Annotated[int, typer.Option(callback=finite, min=1, help="Episodes in the picture.")] = 4,
) -> list[Any]:
    """Correlation maps of all stages with and without distillation, one row per episode (Figs. 5 and 6).

    Of one trained run or of two (`--run DISTILLED --run OTHER`); without `--run` both are trained on the first fold.
    """
    return [experiments.run_correlation(plan, runs=run or [], rows=rows, progress=Bars()).table]


def check_results(out: Path, name: str) -> None:
    """UsageError where files of the experiment's names are there that no experiment wrote, such as an episode list."""
    for one in (name, f"{name}-at-test", f"{name}-classes"):
        check_made_here([out / f"{one}.json"], '{\n  "experiment": ')
        if (out / f"{one}.csv").exists() and not (out / f"{one}.json").exists():
            raise UsageError(f"{out / one}.csv is there already and is no experiment's; give another --out")


def _numbers(text: str, kind: Callable[[str], Number], *, option: str) -> tuple[Number, ...]:
    """Different numbers from a list with commas, in the given order; UsageError names the option."""
    try:
        numbers = [kind(word) for word in text.split(",") if word.strip()]
    except ValueError as error:
        raise UsageError(f"{option} {text!r} is no list of numbers with commas between them, such as 1,2") from error
    return tuple(dict.fromkeys(numbers))


def _show(table: Any, out: Path) -> None:
    """The table with its notes, and where everything is."""
    screen = console()
    screen.print(printable([table.columns, *table.rows], title=table.title))
    for note in table.notes:
        screen.print(visible(note), style="yellow" if note.startswith("warning") else None, highlight=False)
    say(f"written: {out}")
