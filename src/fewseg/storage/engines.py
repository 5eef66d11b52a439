"""Which engine runs a model on photos: one rule, and the engines by their names, so that no import leads to torch.

Graphs run the models that come with fewseg and those that `fewseg export` wrote; torch runs all others, and those too
where it alone can do what is asked: another device than the CPU, another precision, compiling. `dense`, `prototype`,
`linear` and `lite+linear` match the features of the shipped lite, on either runtime.
"""

from __future__ import annotations

import os
from importlib import import_module, resources
from pathlib import Path
from typing import Any

import safetensors

from fewseg.errors import DataError, UsageError, check_choice, missing_extra, suggest
from fewseg.linear import LINEAR, WITH
from fewseg.runtime.engine import Engine
from fewseg.storage.shipped import shipped_folder, shipped_models

RUNTIMES = {"graphs": "fewseg.runtime.graphs:OnnxSegmenter", "torch": "fewseg.storage.opening:open_on_torch"}
THEIR_MODEL = "lite"
SEVERAL = THEIR_MODEL + WITH
"""What is taken unless a model is named."""
UNTRAINED = ("dense", "prototype", LINEAR, SEVERAL)
"""What can be asked of the features of a shipped model besides its own method, under these names."""
CONCEPT, CONCEPT_KIND = ".concept", "fewseg concept"
"""How the files of concepts are called, and what is said in them."""
GRAPHS = "graphs"
"""Folder of a shipped model's graphs, in its own."""


def open_engine(
    model: Any,
    *,
    runtime: str | None = None,
    device: str | None = None,
    flip: bool = False,
    refine: str = "none",
    compile: bool = False,
    precision: str = "fp32",
    provider: str | None = None,
) -> Engine:
    """What runs a model: one that comes with fewseg, a folder, `dense` or `prototype`, or a network in torch.

    `runtime` graphs or torch overrides the rule of this module; the other options are those of `FewShotPredictor`.
    UsageError where the runtime cannot do what is asked, or is not installed.
    """
    named, method = isinstance(model, str | os.PathLike), None
    if named and str(model) in UNTRAINED and not Path(model).is_dir():
        model, method = THEIR_MODEL, str(model)
    graphs = graphs_of(model) if named else None
    alone = _torch_alone(device, compile=compile, precision=precision)
    if runtime is not None:
        check_choice("runtime", runtime, RUNTIMES)
    chosen = runtime or ("graphs" if graphs and not alone else "torch")
    if chosen == "torch" and named and graphs == Path(model):
        raise UsageError(
            f"{model} holds exported graphs, which torch does not run: leave out {alone or '--runtime torch'}, or give "
            "the model that they were made of"
        )
    if chosen == "torch" and provider is not None:
        what = model if named else "this model"
        raise UsageError(f"provider {provider} is for graphs, and torch runs {what}; leave it out, torch has --device")
    if chosen == "torch":
        how = {"flip": flip, "refine": refine, "compile": compile, "precision": precision, "method": method}
        try:
            entry = _entry(chosen)
        except UsageError as error:
            if named and not Path(model).exists() and not shipped_folder(str(model)):
                known = [*shipped_models(), *UNTRAINED]
                told = f"no model {str(model)!r} comes along ({', '.join(known)} do), nor is there such a folder"
                recipe = (resources.files("fewseg") / "configs" / f"{model}.yaml").is_file()
                more = f" It is a recipe, for torch: {error}" if recipe else suggest(str(model), known)
                raise UsageError(f"{told}.{more}") from error
            if named and Path(model).is_dir() and not shipped_folder(str(model)):
                folder = Path(model)
                if not [*folder.glob("fewseg.json"), *folder.glob("*/fewseg.json")]:
                    raise no_model(folder) from error
            raise
        return _named(entry(model, device=device, **how), model)
    if graphs is None:
        raise UsageError(f"{model} has no graphs; write them (fewseg export {model} --onnx DIR) and give that folder")
    if alone:
        raise UsageError(
            f"graphs run in fp32, on the CPU or a --provider; {alone} needs --runtime torch (runtime='torch' in Python)"
        )
    engine = _entry(chosen)(graphs, flip=flip, refine=refine, method=method, provider=provider or "cpu")
    return _named(engine, model)


def refuse_concept(model: str | os.PathLike[str]) -> None:
    """UsageError where what is given for a model is a concept, by its file's name or content."""
    if not Path(model).is_dir() and (Path(model).suffix == CONCEPT or _says_concept(Path(model))):
        raise UsageError(
            f"{model} is a concept, what was taught of a class, and no model: leave it out here, and give it as "
            f"--concept {model} to fewseg segment, teach or next, open it on the page of fewseg serve, or send it "
            "there with POST /v1/concepts (in Python: Concept.load)"
        )


def _says_concept(file: Path) -> bool:
    try:
        with safetensors.safe_open(file, framework="numpy") as opened:
            return (opened.metadata() or {}).get("kind") == CONCEPT_KIND
    except (OSError, safetensors.SafetensorError):
        return False


def no_model(path: Path) -> DataError:
    """What is wrong with a path that is no model's."""
    if not path.is_dir():
        return DataError(f"{path} is no directory; give a run directory, a saved model, or a name such as lite")
    return DataError(f"{path} holds neither a saved model nor a run with one (no fewseg.json in it, best/ or last/)")


def _named(engine: Engine, model: Any) -> Engine:
    """An engine under the name by which its model is opened."""
    if isinstance(model, str | os.PathLike):
        engine.name = str(model) if shipped_folder(str(model)) else Path(model).resolve().name
    return engine


def graphs_of(model: str | os.PathLike[str]) -> Path | None:
    """The folder of the graphs that a name or path means; None where there are none, UsageError for a concept."""
    refuse_concept(model)
    folder = shipped_folder(str(model))
    places = [Path(model), *([folder / GRAPHS] if folder else [])]
    return next((place for place in places if (place / "fewseg-onnx.json").is_file()), None)


def _torch_alone(device: str | None, *, compile: bool, precision: str) -> str:
    """What of the options no graph can do, in words."""
    if device not in (None, "auto", "cpu"):
        return f"device {device}"
    return f"precision {precision}" if precision != "fp32" else "compile" if compile else ""


def _entry(runtime: str) -> Any:
    module, _, name = RUNTIMES[runtime].partition(":")
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        if told := missing_extra(error):
            raise told from error
        raise
