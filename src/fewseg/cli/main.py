"""The command line: `fewseg train | evaluate | compare | cross-validate | report | segment | teach | next | serve |
web | export | convert | models | data | experiment | demo`, and `rerun` and `replay` for a run that is there.
"""

from __future__ import annotations

import io
import json
import shlex
import sys
import traceback
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

import fewseg
from fewseg.cli.compare import compare_models
from fewseg.cli.cross_validate import cross_validate
from fewseg.cli.data import data_app
from fewseg.cli.evaluate import evaluate
from fewseg.cli.experiment import experiment_app
from fewseg.cli.export import export
from fewseg.cli.next_photos import next_
from fewseg.cli.options import Words, finite
from fewseg.cli.outputs import check_outputs
from fewseg.cli.printing import console, printable, say
from fewseg.cli.report import report
from fewseg.cli.rerun import replay, rerun
from fewseg.cli.segment import segment
from fewseg.cli.serve import ANY_WORDS, formerly, serve
from fewseg.cli.stopping import StoppableGroup
from fewseg.cli.supports import OrderedCommand
from fewseg.cli.teach import teach
from fewseg.cli.web import web
from fewseg.errors import DataWarning, FewsegError, UsageError, first_line, lacks_disk, lacks_memory, missing_extra
from fewseg.progress import Bars, counted, visible
from fewseg.runtime.heap import keep_freed_memory

_LONGEST = 2000
"""Of a line of an error, in characters: a value that was given may have millions."""

app = typer.Typer(
    name="fewseg",
    cls=StoppableGroup,
    help="Few-shot semantic segmentation: given a few annotated photos of a class, find it in other photos.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="`--debug` anywhere shows the traceback of an error. `--plugin FILE.py` (or a module's "
    "name) anywhere, once for each, brings methods and data sets of your own: its code is run. "
    "Exit codes: 0 done, 1 data, 2 usage, "
    "130 stopped.",
)
app.add_typer(data_app)
app.add_typer(experiment_app)
app.command(cls=OrderedCommand)(segment)
app.command(cls=OrderedCommand)(teach)
app.command(name="next")(next_)
app.command()(serve)
app.command(name="app", hidden=True, context_settings=ANY_WORDS)(formerly)
app.command()(web)
app.command()(export)
app.command(name="cross-validate")(cross_validate)
app.command(cls=OrderedCommand)(report)
app.command()(rerun)
app.command()(replay)


def _print_version(wanted: bool) -> None:
    if wanted:
        say(f"fewseg {fewseg.__version__}\nsegments with {_runtimes()}")
        raise typer.Exit


def _runtimes() -> str:
    """Which runtimes are installed, and which one runs what (`fewseg.storage.engines` has the rule)."""
    found = {}
    for name in ("onnxruntime", "torch"):
        try:
            found[name] = f"{name} {version(name)}"
        except PackageNotFoundError:
            found[name] = f"{name} (not installed)"
    return f"graphs ({found['onnxruntime']}) for shipped and exported models, {found['torch']} for all others"


@app.callback()
def before_any_command(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version, what runs models, and stop."
        ),
    ] = False,
) -> None:
    """What is said once, before a command's name."""


@app.command()
def train(
    words: Words = None,
    out: Annotated[Path | None, typer.Option(help="Run directory [runs/METHOD-DATA-foldF-Kshot].")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out where it stopped, with its configuration.")
    ] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Print every key with its value, and what it means; then stop.")
    ] = False,
) -> None:
    """Train a method on the base classes of a fold.

    `fewseg train hdmnet pascal5i data.root=DIR data.fold=0` trains HDMNet on a laptop; where no `base.run=RUN` is
    given, its base learner is trained first, as `fewseg train base pascal5i ...` would. `hdmnet-paper` and its like
    are the papers' recipes. `fewseg models` lists methods and recipes.

    `fewseg train hdmnet --show` prints every key that an override may change, with its value; for fewseg's own keys
    also what they mean, and their choices or limits.
    """
    from fewseg.config import as_yaml, load_config
    from fewseg.runtime.processes import rank_and_world
    from fewseg.storage.run_directory import RunDirectory
    from fewseg.training.loop import train as run_training

    if resume and out and not words:
        config = RunDirectory(out).config()
    elif any("=" not in word for word in words or []):
        config = load_config(*(words or []))
    elif resume and out:
        raise UsageError(
            f"a run goes on with the configuration it has: leave out {' '.join(words or [])}. With other keys train "
            f"anew, into another --out; train.init={out} starts from its weights"
        )
    else:
        raise UsageError("say what to train and on what: fewseg train hdmnet pascal5i data.root=DIR data.fold=0")
    if show:
        typer.echo(as_yaml(config), nl=False)
        return
    run = out or Path("runs") / f"{config.model.name}-{config.data.name}-fold{config.data.fold}-{config.data.shots}shot"
    before = resume and RunDirectory(run).is_finished(config)
    run_training(config, run, resume=resume, again=RunDirectory(run).resuming, progress=Bars())
    if rank_and_world()[0] == 0:
        done = "trained to the end before, left as it is" if before else "trained"
        say(f"{done}: {run}  ({_next_step(config, run)})")


def _next_step(config: Any, run: Path) -> str:
    """What a trained run is for: what has seen all classes, or knows the base classes alone, cannot be measured on its
    own data.
    """
    given = shlex.quote(str(run))
    if config.model.name == "base":
        return f"train with it: fewseg train hdmnet {config.data.name} {_data_words(config)} base.run={given}"
    if config.train.all_classes:
        return f"find more: fewseg segment --model {given} --support a.jpg --mask a.png --out masks photos/"
    return f"evaluate it: fewseg evaluate {given}"


def _data_words(config: Any) -> str:
    """What chooses a configuration's data, as words of a shell: its fold, and what is not as the source has it."""
    from fewseg import registry

    usual = registry.options(registry.find("source", config.data.name))
    words = {k: v for k, v in config.data.options.items() if k not in usual or v != usual[k].default}
    words |= {"root": config.data.root} if config.data.root is not None else {}
    words["fold"] = config.data.fold
    return shlex.join(f"data.{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in words.items())


app.command()(evaluate)
app.command(name="compare", cls=OrderedCommand)(compare_models)


@app.command()
def convert(
    method: Annotated[str, typer.Argument(help="hdmnet, bam, pfenet or hsnet.")],
    file: Annotated[Path, typer.Argument(help="The released weights (.pth); read without running any code in them.")],
    outdir: Annotated[Path, typer.Argument(help="Folder to write; `fewseg evaluate OUTDIR` reads it.")],
    backbone: Annotated[
        str | None, typer.Option(help="resnet50-ds, vgg16_bn, ..., whatever the file says [from the file].")
    ] = None,
    base_classes: Annotated[
        int | None,
        typer.Option(help="15 on PASCAL-5i, 60 on COCO-20i [from the file; 15 for PFENet, whose file does not tell]."),
    ] = None,
    shots: Annotated[
        int | None, typer.Option(callback=finite, min=1, help="Shots that they were trained for [from the file].")
    ] = None,
) -> None:
    """Turn released weights into a saved model of fewseg, strictly: every name must fit."""
    from fewseg.storage.released import load_released
    from fewseg.storage.saved import save_model

    check_outputs((outdir / name for name in ("model.safetensors", "config.json", "fewseg.json")), file)
    model = load_released(method, file, backbone=backbone, base_classes=base_classes, shots=shots)
    save_model(model, outdir, {"released": file.name})
    arguments = getattr(model, "_hub_mixin_config", {})
    base = counted(arguments["base_classes"], "base class")
    say(
        f"converted: {outdir} ({method} on {arguments['backbone']}, {base}, "
        f"{arguments['shots']}-shot, {arguments['image_size']} px)"
    )


@app.command()
def models() -> None:
    """List methods with their options, data sets, protocols, back-ends and recipes."""
    from fewseg import registry
    from fewseg.config import recipes
    from fewseg.data.episodes.protocols import PROTOCOLS
    from fewseg.models.parts.backbones import BACKBONES

    rows = [
        (name, (cls.__doc__ or "").strip().splitlines()[0].replace("`", ""), ", ".join(registry.options(cls)))
        for name, cls in sorted(registry.classes("model").items())
    ]
    shown = console()
    shown.print(printable([("method", "what", "options"), *rows]))
    shown.print("data sets: " + ", ".join(sorted(registry.classes("source"))))
    shown.print("protocols: " + ", ".join([*PROTOCOLS, *registry.protocols(), *registry.protocol_files()]))
    shown.print("back-ends: " + ", ".join(BACKBONES))
    shown.print("recipes: " + ", ".join(recipes()))


@app.command()
def demo(
    out: Annotated[
        Path, typer.Option(help="Folder for the run, the masks and the report; it must not exist yet.")
    ] = Path("runs/demo"),
) -> None:
    """The whole way on the built-in data set `scenes` in a few minutes: train, evaluate, segment, report."""
    from fewseg.experiments.demo import run_demo

    say(f"report: {run_demo(out, progress=Bars()).resolve()}")


def main() -> None:
    """Run the command line; errors become one message and an exit code."""
    keep_freed_memory()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks a letter is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    warnings.simplefilter("always", DataWarning)  # "once" forgets whenever any library changes a filter
    warnings.showwarning = _notes()
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    try:
        _take_plugins()
        app()
    except FewsegError as error:
        _fail(str(error), error.exit_code, debug=debug)
    except OSError as error:
        _fail(_told(error), 1, debug=debug)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and (missing := missing_extra(error)):
            _fail(str(missing), missing.exit_code, debug=debug)
        if lacks_memory(error):
            _fail(f"there is too little memory ({first_line(error)}); give smaller or fewer pictures", 1, debug=debug)
        if "can't start new thread" in str(error):
            told = "the system gives fewseg no further thread: too little memory (ulimit -v), or too many processes"
            _fail(f"{told} (ulimit -u, a container's limits)", 1, debug=debug)
        if "Symlink loop" in str(error):  # Path.resolve's word for it
            _fail(str(error), 1, debug=debug)
        _fail(f"{type(error).__name__}: {error} ({_whose_fault(error)}; --debug shows where)", 1, debug=debug)


def _whose_fault(error: Exception) -> str:
    """Whose fault an error is that nothing foresaw: where plugins are loaded it may be theirs."""
    registry = sys.modules.get("fewseg.registry")
    files = [str(file) for file in registry.plugin_files()] if registry else []
    at = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files]
    if at:
        return f"in the plugin {at[-1].filename}, line {at[-1].lineno}, or in what it calls"
    return f"this is a fault of fewseg, or of the plugin {' or '.join(files)}" if files else "this is a fault of fewseg"


def _told(error: OSError) -> str:
    """What the system says, of which file, and what to do where a disk is full."""
    told = f"{error.strerror or error}: {error.filename}" if error.filename else str(error)
    if lacks_disk(error):
        told = f"the disk is full ({told}); make room, or write elsewhere; files that are there are whole"
    return told


def _take_plugins() -> None:
    """Take `--plugin FILE.py` out of the words, wherever it stands."""
    while "--plugin" in sys.argv:
        from fewseg.registry import load_plugin

        at = sys.argv.index("--plugin")
        if not (what := sys.argv[at + 1 : at + 2]):
            raise UsageError("--plugin needs a Python file, or the name of a module, such as my_package.my_module")
        load_plugin(what[0])
        del sys.argv[at : at + 2]


def _notes() -> Callable[..., None]:
    """What shows a warning as a note, equal ones once; other libraries' in Python's form, which names the place."""
    told = set[str]()

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        ours = issubclass(category, DataWarning)
        text = f"note: {message}" if ours else warnings.formatwarning(message, category, *where[:2])
        if text not in told:
            told.add(text)
            _say(text.rstrip())

    return show


def _fail(message: str, code: int, *, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    lines = (line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..." for line in message.splitlines())
    _say("error: " + "\n".join(lines), style="red")
    raise SystemExit(code)


def _say(text: str, *, style: str | None = None) -> None:
    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    console.print(visible(text), style=style, soft_wrap=True)
