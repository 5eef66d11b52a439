"""Models in files: saved folders (`models.saving` says what is in them), run directories, and the released weights of
the papers.
"""

from __future__ import annotations

import json
import secrets
import shutil
from importlib import resources
from pathlib import Path
from typing import Any

from torch import nn

from fewseg import registry
from fewseg.errors import DataError, FewsegError, UsageError
from fewseg.files import replacing, sync
from fewseg.models.backbones import LITE
from fewseg.models.base import FewShotSegmenter
from fewseg.models.base_learner import PSPNet
from fewseg.models.released import RELEASED, Recognised, recognise, recognise_method, rename_released
from fewseg.models.saving import FORMAT, checksum, file_sha256, write_files
from fewseg.models.weights import load_backbone_weights, load_strict, read_state_dict

_RELEASED_SIZES = {"hsnet": 400}


def method_class(name: str) -> type[Any]:
    """The class of a method by name; "base" is the base learner."""
    return PSPNet if name == PSPNet.name else registry.find("model", name)


def create_model(
    name: str,
    *,
    backbone: str = "lite0",
    base_classes: int = 15,
    shots: int = 1,
    weights: str | None = None,
    **options: Any,
) -> FewShotSegmenter:
    """A model by its method's name. Back-end `weights`: None (random), "imagenet", or a file; nothing else is ever
    read.

    `options` are the keyword arguments of the method's class. Raises UsageError for an unknown name or option.
    """
    model = _construct(name, options | {"backbone": backbone}, common={"base_classes": base_classes, "shots": shots})
    load_backbone_weights(model.backbone, backbone, weights)
    return model


def _construct(name: str, arguments: dict[str, Any], *, common: dict[str, Any]) -> Any:
    """`common` arguments are passed only where the method knows them."""
    cls = method_class(name)
    known = registry.options(cls)
    arguments = arguments | {k: v for k, v in common.items() if k in known}
    for argument in arguments:
        if argument not in known:
            hint = registry.suggest(argument, known)
            raise UsageError(f"model {name!r} has no option {argument!r}; it has {', '.join(known)}.{hint}")
    return cls(**arguments)


def save_model(model: nn.Module, folder: Path, info: dict[str, Any] | None = None, *, slim: bool = False) -> Path:
    """Save a model as a folder that `load_model` and the class's `from_pretrained` read; it replaces an older one
    whole.

    `info` is kept as it is (JSON-able), under "info" in `fewseg.json`; None: what the model was loaded with. `slim`
    leaves the back-end to the package that brings its ImageNet weights, and keeps the rest as 16-bit floats; only
    `load_model` reads that. Raises UsageError for a folder that holds anything but a saved model: it would be lost.
    """
    folder = folder.resolve()
    check_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.new")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        write_files(model, work, info, slim=slim)
        for path in (*work.iterdir(), work):
            sync(path)
        _swap(work, folder)
        sync(folder.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def check_replaceable(folder: Path) -> None:
    """Raise UsageError for a folder that holds anything but a saved model: it would be lost."""
    if folder.exists() and not (folder / "fewseg.json").is_file() and (folder.is_file() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already and is no saved model; give the name of a new folder")


def shipped_models() -> list[str]:
    """Names of the models that come with the package."""
    folder = Path(str(resources.files("fewseg") / "shipped"))
    return sorted(file.parent.name for file in folder.glob("*/fewseg.json"))


def shipped_folder(name: str) -> Path | None:
    """The folder of a model that comes with the package; None for another name, or where a directory has this one."""
    if name not in shipped_models() or Path(name).is_dir():
        return None
    return Path(str(resources.files("fewseg") / "shipped" / name))


def _swap(new: Path, folder: Path) -> None:
    """Put `new` in the place of `folder`; the old one stays beside it until the new one is there."""
    old = folder.with_name(f".{folder.name}.old")
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    try:
        new.rename(folder)
    except BaseException:
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def find_folder(path: Path) -> Path:
    """The saved folder that a path means: itself, or the best (else the last) model of a run directory."""
    # the hidden ones: a run that was killed between the two renames of a swap
    for candidate in (path, *(path / name for name in ("best", ".best.old", "last", ".last.old"))):
        if (candidate / "fewseg.json").is_file():
            return candidate
    raise DataError(
        f"{path} is neither a saved model nor a run directory with one (no fewseg.json in it, best/ or last/)"
    )


def read_record(path: Path) -> dict[str, Any]:
    """What `fewseg.json` of a saved folder or a run's model says."""
    file = find_folder(path) / "fewseg.json"
    try:
        record = json.loads(file.read_text())
        if record["format"] > FORMAT:
            raise DataError(f"{file} was written by a newer fewseg (format {record['format']}); upgrade fewseg")
        if absent := {"method", "class", "sha256", "info"} - record.keys():
            raise DataError(f"{file} is damaged (no {', '.join(sorted(absent))}); save the model again")
        return record
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise DataError(f"{file} is damaged ({error}); save the model again") from error


def load_model(name_or_path: str | Path, **overrides: Any) -> FewShotSegmenter:
    """A trained model in evaluation mode: one that comes with fewseg ("lite"), a run directory, or a saved folder.

    `overrides` change constructor arguments that do not change weights, such as `support_mask=False`.
    Raises DataError where files are missing, damaged, or do not fit.
    """
    folder = find_folder(shipped_folder(str(name_or_path)) or Path(name_or_path))
    record = read_record(folder)
    try:
        text = (folder / "config.json").read_text()
        arguments = json.loads(text)
        if not isinstance(arguments, dict):
            raise TypeError("no keyword arguments in it")
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, TypeError) as error:
        raise DataError(f"{folder / 'config.json'} is missing or damaged ({error}); save the model again") from error
    if "checksum" in record and record["checksum"] != checksum(record, text):  # one made by hand may have none
        raise DataError(f"{folder} is damaged: config.json or fewseg.json is not as it was saved; save the model again")
    method = record["method"]
    if method != PSPNet.name and method not in registry.classes("model"):
        method = record["class"]
    try:
        model = _construct(method, arguments | overrides, common={})
    except FewsegError:
        raise
    except Exception as error:  # a constructor raises whatever a value of a wrong type leads it to
        raise DataError(
            f"{folder / 'config.json'} does not describe a {method} ({type(error).__name__}: {error}); "
            "copy or save the model again"
        ) from error
    weights = folder / "model.safetensors"
    if weights.is_file() and file_sha256(weights) != record["sha256"]:
        raise DataError(f"{weights} is damaged: its hash is not the one in fewseg.json; copy or save the model again")
    state = read_state_dict(weights)
    if record.get("backbone") is not None:
        name = str(arguments.get("backbone"))
        if record["backbone"] != "imagenet" or name not in LITE:
            raise DataError(f"{folder} lacks its back-end, which is none that comes with fewseg; save the model whole")
        load_backbone_weights(model.backbone, name, "imagenet")
        state = {f"backbone.{n}": t for n, t in model.backbone.state_dict().items()} | state
    load_strict(model, state, what=str(weights))
    model.info = record["info"]
    return model.eval()


def load_released(
    method: str,
    path: str | Path,
    *,
    backbone: str | None = None,
    base_classes: int | None = None,
    shots: int | None = None,
    **options: Any,
) -> FewShotSegmenter:
    """A network of the papers with its released weights, in evaluation mode.

    `path` is a torch file with or without a `state_dict` wrapper and `module.` prefixes; it is read with weights_only.
    What is None is taken from the file's names and shapes; where those do not tell, 15 base classes and one shot.
    `image_size` follows the base classes (60: COCO's), if not given. Raises DataError that says what the file holds and
    lists missing and unexpected names.
    """
    if method not in RELEASED:
        raise UsageError(f"no released weights are known for {method!r}; choose {', '.join(sorted(RELEASED))}")
    released = read_state_dict(Path(path))
    actual = recognise_method(released)
    if actual not in (method, None):
        raise DataError(f"{path} holds the names of {actual}, not of {method}; load it as {actual}")
    state = rename_released(method, released)
    found = recognise(state)
    chosen = backbone or found.backbone
    if chosen is None:
        raise DataError(f"{path} holds {method} on a back-end that is not recognised; name it: backbone=resnet50-ds")
    classes = base_classes or found.base_classes or 15
    common = {"base_classes": classes, "shots": shots or found.shots or 1}
    coco_size = 633 if method == "hdmnet" else 641
    size = _RELEASED_SIZES.get(method, coco_size if classes == 60 else 473)
    model = _construct(method, {"backbone": chosen, "image_size": size} | options, common=common)
    asked = Recognised(chosen, **common)
    load_strict(model, state, what=f"{path} ({method}: {found}), taken as {asked},")
    return model.eval()


def write_json(path: Path, content: Any) -> Path:
    """Write JSON whole or not at all."""
    with replacing(path, durable=True) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")
    return path


def load_base_learner(model: Any, run: Path, *, base: tuple[int, ...]) -> None:
    """Fill a segmenter's back-end and base head from a run of `fewseg train base` on the same base classes."""
    learner: Any = load_model(run)
    if not isinstance(learner, PSPNet):
        raise UsageError(
            f"base.run={run} holds {read_record(run)['method']}, not a base learner; train one: fewseg train base"
        )
    trained = tuple(read_record(run)["info"].get("fold", {}).get("base", base))
    if trained != base:
        raise UsageError(
            f"base.run={run} was trained on the base classes {list(trained)}, this fold's are {list(base)}; "
            "train it on the same fold with the same train.validation, train.held_out and train.all_classes"
        )
    what = f"base learner {run}"
    load_strict(model.backbone, learner.backbone.state_dict(), what=f"{what} (back-end)")
    load_strict(model.base, learner.base.state_dict(), what=f"{what} (head)")
