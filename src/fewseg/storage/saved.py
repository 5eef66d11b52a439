"""Saved models: written whole, found again in folders and run directories, and loaded with every check."""

from __future__ import annotations

import glob
import json
import math
import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

import torch
from torch import nn

from fewseg import registry
from fewseg.build import construct
from fewseg.data.source import Fold, ImageSource, classes_hash
from fewseg.errors import DataError, FewsegError, UsageError
from fewseg.files import file_sha256, sync
from fewseg.models.base import FewShotSegmenter
from fewseg.models.hub_model import FORMAT, checksum, cpu_state, model_options, write_files
from fewseg.models.parts.backbone_weights import (
    PACKAGED,
    check_fits,
    load_backbone_weights,
    load_strict,
    read_state_dict,
)
from fewseg.models.parts.backbones import LITE, create_backbone
from fewseg.models.parts.base_learner import PSPNet
from fewseg.models.untrained import as_method
from fewseg.storage.engines import THEIR_MODEL, UNTRAINED, no_model, refuse_concept
from fewseg.storage.learnt import learnt_of
from fewseg.storage.shipped import shipped_folder

BEST, LAST = "best", "last"
"""Folders of a run's saved models."""
FILES = ("model.safetensors", "config.json", "fewseg.json")
"""The files of a saved model; the last one says that the others are there."""
_NEEDED = {"format", "method", "class", "sha256", "info"}
"""What `fewseg.json` says in any case."""
_MORE = {"backbone", "backbone_sha256", "checksum"}
"""What it may say besides: of a slim model where its back-end comes from, and the hash of that file."""


def save_model(model: nn.Module, folder: Path, info: dict[str, Any] | None = None, *, slim: bool = False) -> Path:
    """Save a model as a folder that `load_model` and the class's `from_pretrained` read; it replaces an older one,
    whose other files stay.

    `info` is kept as it is (JSON-able), under "info" in `fewseg.json`; None: what the model was loaded with. `slim`
    leaves the back-end to the package that brings its ImageNet weights, and keeps the rest as 16-bit floats; only
    `load_model` reads that. Raises UsageError for a folder that holds anything but a saved model: it would be lost.
    """
    folder = folder.resolve()
    check_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.new")
    work.mkdir()
    try:
        write_files(model, work, info, **_slim(model) if slim else {})
        for path in (*work.iterdir(), work):
            sync(path)
        if folder.is_dir() and any(path.name not in FILES for path in folder.iterdir()):
            for name in FILES:  # so that what else is there is never moved
                os.replace(work / name, folder / name)
        else:
            _swap(work, folder)
        sync(folder.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def _slim(model: nn.Module) -> dict[str, Any]:
    """What to write of a slim model: the trained tensors in 16 bits, and where its back-end comes from.

    UsageError where the back-end is another than the ImageNet one of a package.
    """
    name = str(model_options(model).get("backbone"))
    if name not in LITE:
        raise UsageError(f"a slim model's back-end comes with a package, as {', '.join(LITE)} do; this one has {name}")
    state = cpu_state(model)
    backbone = create_backbone(name, head="backbone.head.names.weight" in state)
    load_backbone_weights(backbone, name, "imagenet")
    if any(not torch.equal(t, state[f"backbone.{n}"]) for n, t in backbone.state_dict().items()):
        raise UsageError("this model's back-end was trained further, so it must be kept; save it whole")
    rest = {n: t for n, t in state.items() if not n.startswith("backbone.")}
    small = {n: t.half() if t.is_floating_point() else t for n, t in rest.items()}
    return {"state": small, "backbone": {"backbone": "imagenet", "backbone_sha256": PACKAGED[name]}}


def check_replaceable(folder: Path) -> None:
    """Raise UsageError for a folder that holds anything but a saved model: it would be lost."""
    if folder.exists() and not (folder / "fewseg.json").is_file() and (folder.is_file() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already and is no saved model; give the name of a new folder")


def _swap(new: Path, folder: Path) -> None:
    """Put `new` in the place of a folder of a saved model's files alone; it stays beside until the new one is there."""
    old = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.old")
    if folder.exists():
        folder.rename(old)
    try:
        new.rename(folder)
    except BaseException:
        if old.exists():
            old.rename(folder)
        raise
    _remove(old)


def _remove(folder: Path) -> None:
    """Remove a saved model's files, and their folder unless there is more in it."""
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def clear_leftovers(folder: Path) -> None:
    """Bring back or remove what a process left that was killed while it saved a model as `folder`."""
    for path in _beside(folder, "old"):
        if folder.exists():
            _remove(path)
        else:
            path.rename(folder)
    for path in _beside(folder, "new"):
        _remove(path)


def _beside(folder: Path, kind: str) -> list[Path]:
    """The folders that `save_model` made beside `folder`: "new" ones, and "old" ones that were in its place."""
    return sorted(folder.parent.glob(f".{glob.escape(folder.name)}.{'[0-9a-f]' * 8}.{kind}"))


def find_folder(target: str | Path) -> Path:
    """The saved folder that a name or path means: a model that comes with the package, the folder itself, or the best
    (else the last) model of a run directory.
    """
    refuse_concept(target)
    path = shipped_folder(str(target)) or Path(target)
    # the old ones are there if a run was killed between the two renames of `_swap`
    for candidate in (path, *(c for name in (BEST, LAST) for c in (path / name, *_beside(path / name, "old")))):
        if (candidate / "fewseg.json").is_file():
            return candidate
    raise no_model(path)


def read_record(target: str | Path) -> dict[str, Any]:
    """What `fewseg.json` of the saved folder says that a name or path means."""
    file = find_folder(target) / "fewseg.json"
    try:
        record = json.loads(file.read_text())
        if type(record["format"]) is not int or record["format"] < 1:
            raise TypeError(f"format is {str(record['format'])[:80]}")
        if record["format"] > FORMAT:
            raise DataError(f"{file} was written by a newer fewseg (format {record['format']}); upgrade fewseg")
        if absent := _NEEDED - record.keys():
            raise DataError(f"{file} is damaged (no {', '.join(sorted(absent))}); save the model again")
        if unknown := record.keys() - _NEEDED - _MORE:  # a damaged "checksum" would check nothing
            raise DataError(f"{file} is damaged (what is {', '.join(sorted(unknown))}?); save the model again")
        kinds = {"method": str, "class": str, "sha256": str, "info": dict}
        if wrong := [key for key, kind in kinds.items() if not isinstance(record[key], kind)]:
            raise TypeError(f"{wrong[0]} is {record[wrong[0]]!r}")
        return record
    except FewsegError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{file} is damaged ({error}); save the model again") from error


def load_model(name_or_path: str | Path, **overrides: Any) -> FewShotSegmenter:
    """A trained model in evaluation mode: one that comes with fewseg ("lite"), a run directory, or a saved folder; or
    "dense", "prototype", "linear" or "lite+linear", which match the shipped model's features, as on the command line.

    `overrides` change constructor arguments that do not change weights, such as `support_mask=False`.
    Raises DataError where files are missing, damaged, or do not fit.
    """
    if str(name_or_path) in UNTRAINED and not Path(name_or_path).is_dir():
        return as_method(load_model(THEIR_MODEL, **overrides), str(name_or_path)).eval()
    folder = find_folder(name_or_path)
    record = read_record(folder)
    arguments = _read_arguments(folder, record)
    registry.check_plugins(record["info"].get("plugins"), named_by=folder)
    method = record["method"]
    if method != PSPNet.name and not registry.is_known("model", method):
        method = record["class"]
        registry.check_trusted(method, named_by=folder / "fewseg.json")
    weights = folder / "model.safetensors"
    if weights.is_file() and file_sha256(weights) != record["sha256"]:
        raise DataError(f"{weights} is damaged: its hash is not the one in fewseg.json; copy or save the model again")
    state = read_state_dict(weights)
    packaged = _packaged_backbone(folder, record, arguments)
    try:
        _check_types(method, arguments)
        with torch.device("meta"):  # its sizes alone: what does not fit the weights might not fit the memory either
            own = construct(method, arguments | overrides, common={}).state_dict()
        expected = {n: t for n, t in own.items() if not (packaged and n.startswith("backbone."))}
        check_fits(expected, state, what=str(weights))
        model = construct(method, arguments | overrides, common={})
    except FewsegError:
        raise
    except Exception as error:  # a constructor raises whatever a value of a wrong type leads it to
        raise DataError(
            f"{folder / 'config.json'} does not describe a {method} ({type(error).__name__}: {error}); "
            "copy or save the model again"
        ) from error
    if packaged:
        load_backbone_weights(model.backbone, packaged, "imagenet")
        state = {f"backbone.{n}": t for n, t in model.backbone.state_dict().items()} | state
    load_strict(model, state, what=str(weights))
    model.info = _with_size(record["info"], arguments)
    return model.eval()


def _with_size(info: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """What a record says of a training, with the side of its images: that of the options it was saved with."""
    if not info or "image_size" not in arguments:
        return info
    return {**info, "image_size": info.get("image_size", arguments["image_size"])}


def _read_arguments(folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    """The constructor's arguments that `config.json` holds, checked by the checksum of `fewseg.json`."""
    file = folder / "config.json"
    try:
        text = file.read_text()
        arguments = json.loads(text)
        if not isinstance(arguments, dict):
            raise TypeError("no keyword arguments in it")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{file} is missing or damaged ({error}); save the model again") from error
    # a file that was written by hand may have no checksum
    if "checksum" in record and record["checksum"] != checksum(record, text):
        raise DataError(f"{folder} is damaged: config.json or fewseg.json is not as it was saved; save the model again")
    return arguments


def _packaged_backbone(folder: Path, record: dict[str, Any], arguments: dict[str, Any]) -> str | None:
    """The name of the back-end that a slim model leaves to a package; None for a whole model."""
    if record.get("backbone") is None:
        return None
    name = str(arguments.get("backbone"))
    if record["backbone"] != "imagenet" or name not in LITE:
        raise DataError(f"{folder} lacks its back-end, which is none that comes with fewseg; save the model whole")
    if record.get("backbone_sha256", PACKAGED[name]) != PACKAGED[name]:
        raise DataError(
            f"{folder} was saved with other ImageNet weights of {name} than those that this fewseg takes (their "
            "hashes differ), so its masks would be others; use the version of fewseg that saved it"
        )
    return name


def _check_types(method: str, arguments: dict[str, Any]) -> None:
    """TypeError for an argument of another type than the constructor names."""
    hints = get_type_hints(registry.method_class(method).__init__)
    for name, value in arguments.items():
        if not _is_of(value, hints.get(name, Any)):
            raise TypeError(f"{name} is {value!r}")


def _is_of(value: Any, hint: Any) -> bool:
    """Whether a value from JSON is of a type; what else a type may be than JSON has is not judged."""
    parts = get_args(hint)
    if isinstance(hint, UnionType):
        return any(_is_of(value, part) for part in parts)
    if get_origin(hint) is list:
        return isinstance(value, list) and all(_is_of(inner, parts[0]) for inner in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf
    if hint in (int, bool, str, NoneType):
        return type(value) is hint
    return True


class Start(NamedTuple):
    """What a network started from."""

    told: str
    info: dict[str, Any]
    """Of the trained one's record."""
    seen: list[int]
    """Ids of the classes of the source that it, or one that it started from, was trained on, as far as is known."""


def start_from(model: Any, target: str, source: ImageSource, fold: Fold) -> Start:
    """Fill a network with what a trained one has learnt. What holds for that one's classes alone is left out unless
    the fold's base classes are the same by name, and as many.

    What the trained one lacks stays as it is. UsageError where it is of another method, its weights have other sizes,
    or it has seen classes of `source` that are to be unseen in the fold.
    """
    given = load_model(target)
    if type(given) is not type(model):
        raise UsageError(f"train.init={target} is a {given.name}; a {model.name} can start from a {model.name} only")
    info = read_record(target)["info"]
    seen = _seen(Path(target), info, source)
    if wrong := [c for c in seen if c in fold.unseen]:
        names = ", ".join(source.class_names[c - 1] for c in wrong)
        raise UsageError(
            f"train.init={target} was trained on classes that are to be unseen in fold {fold.index} ({names}), which "
            "could not measure anything then; start from a model of that fold, or train.all_classes=true"
        )
    own, learnt = model.state_dict(), given.state_dict()
    of_classes = {n for n in own if n.startswith(getattr(model, "of_classes", ()))}
    same = info.get("base_names") == [source.class_names[c - 1] for c in fold.base]
    if not same or any(own[n].shape != learnt[n].shape for n in of_classes & learnt.keys()):
        learnt = {n: t for n, t in learnt.items() if n not in of_classes}
    if other := [n for n, t in learnt.items() if n not in own or own[n].shape != t.shape]:
        mine, theirs = model_options(model), model_options(given)
        differ = [f"{k}={theirs.get(k)}" for k in mine if k in theirs and mine[k] != theirs[k] and k != "base_classes"]
        raise UsageError(
            f"train.init={target} does not fit ({len(other)} of its tensors, as {other[0]}); add the options that it "
            f"was trained with: {' '.join(f'model.{option}' for option in differ)}"
        )
    model.load_state_dict(learnt, strict=False)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}  # of a frozen back-end all is ImageNet's
    new = sorted({n.split(".")[0] for n in trained - learnt.keys()})
    anew = f"; what only its own classes have or it lacks starts anew: {', '.join(new)}" if new else ""
    knows, unseen = learnt_of(info), [source.class_names[c - 1] for c in fold.unseen]
    named = ", ".join((knows and knows.seen(unseen)) or [])
    told = f"; it has seen {named} by name, which fold {fold.index} measures: results tell them apart" if named else ""
    return Start(f"starts from {target}{anew}{told}", info, seen)


def _seen(target: Path, info: dict[str, Any], source: ImageSource) -> list[int]:
    if info.get("data", {}).get("name") != source.name or info.get("classes") not in (None, classes_hash(source)):
        return []
    return sorted({*_trained_base(target, info, ()), *info.get("seen_before", ())})


def load_base_learner(model: Any, run: Path, *, base: tuple[int, ...]) -> None:
    """Fill a segmenter's back-end and base head from a run of `fewseg train base` on the same base classes."""
    learner: Any = load_model(run)
    if not isinstance(learner, PSPNet):
        raise UsageError(
            f"base.run={run} holds {read_record(run)['method']}, not a base learner; train one: fewseg train base"
        )
    trained = _trained_base(run, read_record(run)["info"], base)
    if trained != base:
        raise UsageError(
            f"base.run={run} was trained on the base classes {list(trained)}, this fold's are {list(base)}; "
            "train it on the same fold with the same train.validation, train.held_out and train.all_classes"
        )
    what = f"base learner {run}"
    load_strict(model.backbone, learner.backbone.state_dict(), what=f"{what} (back-end)")
    load_strict(model.base, learner.base.state_dict(), what=f"{what} (head)")


def _trained_base(run: Path, info: dict[str, Any], default: tuple[int, ...]) -> tuple[int, ...]:
    try:
        return tuple(info.get("fold", {}).get("base", default))
    except (AttributeError, TypeError) as error:
        raise DataError(f"fewseg.json of {run} is damaged ({error}): it tells no fold; save the model again") from error
