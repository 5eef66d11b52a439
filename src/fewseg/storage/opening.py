"""Opening what a user names: a run directory, a saved model, or a method that needs no training."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fewseg import registry
from fewseg.build import configured_model, create_source, pick_device
from fewseg.config import Config, load_config, recipes
from fewseg.data.class_names import matched_names
from fewseg.data.source import Fold, ImageSource, classes_hash
from fewseg.errors import DataError, DataWarning, UsageError, suggest
from fewseg.linear import classifies
from fewseg.models.base import FewShotSegmenter
from fewseg.models.untrained import as_method
from fewseg.models.wrapper import Wrapper
from fewseg.progress import Silent
from fewseg.runtime.torch_engine import TorchEngine
from fewseg.storage.engines import THEIR_MODEL, UNTRAINED, refuse_concept
from fewseg.storage.learnt import Learnt, learnt_of
from fewseg.storage.run_directory import RunDirectory
from fewseg.storage.saved import find_folder, load_model, read_record
from fewseg.storage.shipped import shipped_folder


@dataclass(frozen=True)
class Trained:
    """What a model says of its training; nothing, where it was not trained or its files do not tell."""

    fold: Fold | None = None
    """The fold it was trained on, with its held-out classes."""
    data: str | None = None
    """The data set it was trained on."""
    seen_before: frozenset[int] = frozenset()
    """Class ids of that data set that the model which it started from was trained on."""
    classes: str | None = None
    """Hash of the class names that it was trained with; None where that is not known."""
    learnt: Learnt | None = None
    """The names of the classes that it was trained on."""

    def knows_ids_of(self, source: ImageSource) -> bool:
        """Whether class ids mean the same here as in the data that it was trained on, as far as is known."""
        return self.data in (None, source.name) and self.classes in (None, classes_hash(source))


def trained_of(model: FewShotSegmenter, *, file: str | Path = "fewseg.json") -> Trained:
    """What a model tells that `load_model` gave; DataError where that, which is from `file`, is damaged."""
    info = getattr(model, "info", {})
    try:
        fold = info.get("fold")
        return Trained(
            fold and Fold(int(fold["index"]), *(_classes(fold[k]) for k in ("novel", "base", "held_out"))),
            info.get("data", {}).get("name"),
            frozenset(_classes(info.get("seen_before", ()))),
            info.get("classes"),
            learnt_of(info),
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{file} is damaged: it tells no fold and data ({error}); save the model again") from error


@dataclass(frozen=True)
class Opened:
    """A model ready for use, with the configuration that names its data."""

    model: FewShotSegmenter
    config: Config
    weights: dict[str, Any]
    """Path and hash of the weights, and whether their training is `unfinished`; empty for a method without training."""


def open_target(
    target: str, words: Sequence[str], *, device: str = "auto", support_mask: bool = True, **overrides: Any
) -> Opened:
    """Open a model that comes with fewseg, a run directory, a saved folder, or a training-free method by its recipe's
    name; `linear` and `lite+linear` have none, and see the shipped lite's features.

    `words` are recipes and overrides, as for `load_config`; `support_mask=False` is passed to the model.
    """
    refuse_concept(target)
    if classifies(target) and target in UNTRAINED and not Path(target).is_dir():
        opened = open_target(THEIR_MODEL, words, device=device, support_mask=support_mask, **overrides)
        return replace(opened, model=as_method(opened.model, target).eval())
    path = shipped_folder(target) or Path(target)
    options = overrides if support_mask else {**overrides, "support_mask": False}
    if path.is_dir():
        return _open_folder(path, words, device=device, options=options)
    if "/" in target and path.suffix not in (".yaml", ".yml"):
        raise UsageError(f"{target} is no directory; give a run directory, a saved model, or a method such as dense")
    named = target in recipes() or registry.is_known("model", target)
    if not named and not path.is_file() and path.suffix not in (".yaml", ".yml"):
        known = (THEIR_MODEL, *UNTRAINED)
        raise UsageError(
            f"{target!r} is no folder that is here and no model's name; give a run directory, a saved or an exported "
            f"model, or a name such as {', '.join(known)}.{suggest(target, (*known, *recipes()))}"
        )
    config = load_config(target, *words)
    if registry.find("model", config.model.name).trainable:
        raise UsageError(
            f"{config.model.name} must be trained first (fewseg train {target} ...); then give its run directory"
        )
    return Opened(configured_model(config).eval().to(pick_device(device)), config, {})


def is_trained(target: str) -> bool:
    """Whether `open_target` finds trained weights by this name."""
    return Path(target).is_dir() or shipped_folder(target) is not None or (classifies(target) and target in UNTRAINED)


def open_on_torch(model: Any, *, device: str | None = None, **how: Any) -> TorchEngine:
    """A network, or one by its name as `open_target` takes it, on torch; `how` as for `TorchEngine`."""
    weights = ""
    if isinstance(model, str | os.PathLike):
        opened = open_target(os.fspath(model), [], device=device or "auto")
        model, weights = opened.model, opened.weights.get("sha256", "")
    return TorchEngine(model, device=device, weights=weights, **how)


def _open_folder(path: Path, words: Sequence[str], *, device: str, options: dict[str, Any]) -> Opened:
    folder = find_folder(path)
    record = read_record(folder)
    run = RunDirectory.around(path)
    if run:
        run.check_plugins()
    asked = [word.partition("=")[0].removeprefix("model.") for word in words if word.startswith("model.")]
    own = [str(run.configuration)] if run else [f"model.name={record['method']}"] if asked else []
    # first: a word of the user's may name the class that the run's files name, and so allow it
    config = load_config(*own, *words)
    wanted = {key: config.model.options[key] for key in asked if key in config.model.options}
    fixed = [key for key in asked if key not in wanted]  # name, backbone, weights
    same = load_config(*own).model if run and fixed else None
    if other := [key for key in fixed if not same or getattr(config.model, key) != getattr(same, key)]:
        raise UsageError(
            f"model.{other[0]}: {path} is a trained model, whose network is what it is; leave it out, or train another"
        )
    model = load_model(folder, **wanted | options)
    if not isinstance(model, FewShotSegmenter):
        raise UsageError(
            f"{path} holds a base learner, which segments base classes only; give a run of a few-shot method"
        )
    if run is None and not any(word.startswith("data.shots=") for word in words):
        config.data.shots = model.shots
    trained_of(model, file=folder / "fewseg.json")  # what is damaged is told before data are read
    weights = {"path": str(folder), "sha256": record["sha256"]}
    if run and (told := run.unfinished):
        weights["unfinished"] = told
        warnings.warn(DataWarning(f"{path}: {told}; {run.resuming} goes on"), stacklevel=4)
    return Opened(model.to(pick_device(device)), config, weights)


def _classes(ids: Any) -> tuple[int, ...]:
    return tuple(int(c) for c in ids)


@dataclass(frozen=True)
class Matching:
    """The base learner of a model that was trained on another data set: its classes matched to the data by name."""

    channels: tuple[int, ...]
    """Of every base class of the fold, its number 1..N among the model's."""
    names: dict[str, str]
    """The model's classes that are base classes of the data, each with its name there."""
    absent: tuple[str, ...]
    """The model's classes that are none of the data's base classes: what it takes for them counts as background."""
    unknown: tuple[str, ...]
    """The data's base classes that the model does not know: background, as for its base learner."""


def open_test_data(opened: Opened, *, progress: Silent | None = None) -> tuple[ImageSource, Fold]:
    """The configured test subset, and the fold to evaluate the model on."""
    source = create_source(opened.config, "test", progress=progress)
    fold = source.fold(opened.config.data.fold)
    return source, evaluation_fold(opened.model, source, fold, name=opened.weights.get("path"))[0]


def evaluation_fold(
    model: FewShotSegmenter, source: ImageSource, fold: Fold, *, name: str | None = None
) -> tuple[Fold, Matching | None]:
    """A fold as a model knows it: with the base classes it was trained on; `name` is what errors call the model.

    Where it was trained on another data set, a base learner's classes are matched to the data's base classes by name;
    the second is then how. Raises UsageError if it was trained on classes of this data set that are novel there.
    """
    trained, name = trained_of(model), name or f"the model ({model.name})"
    ids = trained.knows_ids_of(source)
    if trained.data == source.name and not ids and _names(trained) is None:
        text = f"the model was trained on other classes than those of this {source.name}; whether it has seen the novel"
        warnings.warn(DataWarning(f"{text} ones of fold {fold.index} cannot be checked"), stacklevel=1)
    if trained.fold is not None and not ids and _base_head(model) is not None:
        return _matched(model, trained, source, fold)
    if trained.fold is None or not ids:
        check_base_classes(model, source, fold)
        return fold, None
    seen = (set(trained.fold.base) | trained.seen_before) & set(fold.novel)
    if seen and not trained.fold.novel:
        raise UsageError(
            f"the model was trained on every class of {source.name}, so nothing in it can measure the model; give "
            "another data set, or train a fold's model"
        )
    if seen:
        names = ", ".join(source.class_names[c - 1] for c in sorted(seen))
        raise UsageError(
            f"{name} was trained on classes that are novel in fold {fold.index} ({names}); it was "
            f"trained for fold {trained.fold.index}: evaluate with data.fold={trained.fold.index} "
            f"(in Python: source.fold({trained.fold.index}))"
        )
    return trained.fold if trained.fold.novel == fold.novel else fold, None


def _names(trained: Trained) -> tuple[str, ...] | None:
    """The names of the model's base classes in their order; None where they are not known."""
    return None if trained.learnt is None else trained.learnt.base


def _matched(
    model: FewShotSegmenter, trained: Trained, source: ImageSource, fold: Fold
) -> tuple[Fold, Matching | None]:
    """The fold with those base classes that the model's base learner knows by name."""
    names = _names(trained)
    if names is None:
        check_base_classes(model, source, fold)
        text = f"the names of the classes that the base learner was trained on ({trained.data}) are not known"
        warnings.warn(DataWarning(f"{text}; its i-th class is taken for the i-th base class here"), stacklevel=1)
        return fold, None
    there = {source.class_names[c - 1]: c for c in fold.base}
    found = {own: other for other, own in matched_names(there, names).items()}
    number = {own: n for n, own in enumerate(names, 1)}
    pairs = sorted((there[other], number[own]) for own, other in found.items())
    base = tuple(c for c, _ in pairs)
    absent = tuple(own for own in names if own not in found)
    unknown = tuple(name for name, c in there.items() if c not in base)
    return replace(fold, base=base), Matching(tuple(n for _, n in pairs), found, absent, unknown)


def _base_head(model: FewShotSegmenter) -> Any:
    return _base_head(model.model) if isinstance(model, Wrapper) else getattr(model, "base", None)


def check_base_classes(model: FewShotSegmenter, source: ImageSource, fold: Fold) -> None:
    """Raise UsageError for a model whose base learner knows another number of classes than the fold has."""
    head = _base_head(model)
    if head is not None and head.classifier.out_channels - 1 != len(fold.base):
        raise UsageError(
            f"the model's base learner knows {head.classifier.out_channels - 1} classes, but fold {fold.index} of "
            f"{source.name} has {len(fold.base)} base classes, and nothing tells the names to match; evaluate it "
            "on the data set and fold of its training"
        )
