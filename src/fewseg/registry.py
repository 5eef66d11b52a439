"""Models and data sets by name.

Every module of `fewseg.models` and `fewseg.data.sets` is searched for classes that have a `name`: a new file there is
enough. Code outside the package is a plugin (`load_plugin`, --plugin), registers a class with `register`, or is named
by its dotted path "pkg.mod:Class". No code is run because a file names it (a saved model, a YAML): `check_trusted`.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import pkgutil
import shlex
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args, get_type_hints

import fewseg.data.sets
import fewseg.models
from fewseg.callback import Callback
from fewseg.data.episodes.protocols import PROTOCOLS, EvaluationProtocol
from fewseg.data.source import ImageSource
from fewseg.errors import DataWarning, UsageError, first_line, suggest
from fewseg.files import file_sha256
from fewseg.models.base import FewShotSegmenter
from fewseg.models.parts.base_learner import PSPNet
from fewseg.trackers import TRACKERS

Kind = Literal["model", "source"]
_PACKAGES = {"model": fewseg.models, "source": fewseg.data.sets}
PLUGINS = "FEWSEG_PLUGINS"
"""Environment variable: plugins, with what parts paths (":" or ";") between them; processes that are started inherit
it."""
_LOADED: dict[str, ModuleType] = {}
"""Plugins by what they were called."""
_REGISTERED: dict[str, dict[str, type[Any]]] = {"model": {}, "source": {}}
_PROTOCOLS: dict[str, EvaluationProtocol] = {}
"""Protocols that were registered, by name."""
_CALLBACKS: dict[str, type[Callback]] = {}
"""Callbacks of plugins, and those that were registered, by name."""
PROTOCOL_FILE = ".protocol.yaml"
"""How the name of a protocol's file beside a plugin ends."""


def register(kind: Kind | Literal["protocol", "callback"], cls: Any) -> Any:
    """Make a class of another package known by its `name`; of kind "protocol", an EvaluationProtocol."""
    if kind == "callback":
        if cls.name in TRACKERS:
            raise UsageError(f"fewseg itself has a callback {cls.name!r}; give another name")
        _CALLBACKS[cls.name] = cls
    elif kind == "protocol":
        if cls.name in PROTOCOLS:
            raise UsageError(f"fewseg itself has a protocol {cls.name!r}; give another name")
        _PROTOCOLS[cls.name] = cls
    else:
        _REGISTERED[kind][cls.name] = cls
    return cls


def protocols() -> dict[str, EvaluationProtocol]:
    """The registered protocols by name."""
    _load_what_was_named()
    return dict(_PROTOCOLS)


def find_callback(name: str) -> type[Callback]:
    """The callback of that name: fewseg's own, from a plugin, or registered; UsageError where there is none."""
    _load_what_was_named()
    known = TRACKERS | _CALLBACKS
    if name not in known:
        told = f"known: {', '.join(known)}; others by --plugin FILE.py"
        raise UsageError(f"unknown callback {name!r}; {told}.{suggest(name, known)}")
    return known[name]


def protocol_files() -> dict[str, Path]:
    """The protocols' files beside plugins, by the protocols' names."""
    files = (file for folder in plugin_folders() for file in folder.iterdir() if file.name.endswith(PROTOCOL_FILE))
    return {file.name.removesuffix(PROTOCOL_FILE): file for file in sorted(files)}


def load_plugin(what: str) -> None:
    """Import a Python file, or a module by its dotted name, and make its methods, data sets, protocols and callbacks
    known by their names.

    Processes that are started after it load it too. UsageError where it cannot be imported, holds none of them, or one
    of a name that fewseg has.
    """
    file = Path(what).resolve() if what.endswith(".py") else None
    what = str(file or what)
    if what in _LOADED:
        return
    module = _import_plugin(what, file)
    kinds: tuple[Kind, ...] = get_args(Kind)
    own = [
        cls
        for cls in vars(module).values()
        if isinstance(cls, type) and f"{cls.__module__}.".startswith(f"{module.__name__}.")
    ]
    found: list[tuple[Kind, Any]] = [(kind, cls) for kind in kinds for cls in own if _is_kind(kind, cls)]
    rules = [value for value in vars(module).values() if isinstance(value, EvaluationProtocol)]
    told = [cls for cls in own if issubclass(cls, Callback) and isinstance(getattr(cls, "name", None), str)]
    if not found and not rules and not told:
        raise UsageError(
            f"the plugin {what} holds neither a method, a data set, a protocol nor a callback; see "
            "docs/add-a-method.md, add-a-dataset.md and protocols.md"
        )
    for kind, cls in found:
        if cls.name in _packaged(kind):
            raise UsageError(f"the plugin {what} has a {kind} {cls.name!r}, as fewseg itself; give it another name")
        register(kind, cls)
    for protocol in rules:
        register("protocol", protocol)
    for cls in told:
        register("callback", cls)
    _LOADED[what] = module
    said = [*filter(None, os.environ.get(PLUGINS, "").split(os.pathsep))]
    os.environ[PLUGINS] = os.pathsep.join(dict.fromkeys([*said, what]))


def _import_plugin(what: str, file: Path | None) -> ModuleType:
    """The module of a plugin's file, whose folder is found by Python from now on, or of its dotted name."""
    name = file.stem if file else what
    if not all(part.isidentifier() for part in name.split(".")):
        raise UsageError(
            f"{what!r} is no plugin; give a Python file (my_method.py), or a module (my_package.my_module); of "
            f"several, --plugin once for each, or {PLUGINS} with {os.pathsep!r} between them"
        )
    if file and not file.is_file():
        raise UsageError(f"there is no file {file}; a plugin is a Python file, or a module by its dotted name")
    if file and str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))  # the last place: it hides no other module
    try:
        spec = importlib.util.find_spec(name)
        other = file and spec is not None and Path(str(spec.origin)).resolve() != file
        if not other:
            return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # whatever a module does when it is imported
        raise UsageError(f"cannot import the plugin {what}: {type(error).__name__}: {first_line(error)}") from error
    raise UsageError(f"{file} has the name of another module, {spec and spec.origin}; call the file otherwise")


def _load_what_was_named() -> None:
    """Load the plugins that the environment names."""
    for what in filter(None, os.environ.get(PLUGINS, "").split(os.pathsep)):
        load_plugin(what)


def plugin_folders() -> list[Path]:
    """The folders of the plugins' files: their recipes lie beside them."""
    _load_what_was_named()
    return list(dict.fromkeys(_file_of(module).parent for module in _LOADED.values()))


def plugin_words() -> list[str]:
    """The options by which a command is given the plugins that are loaded."""
    _load_what_was_named()
    return [word for what in _LOADED for word in ("--plugin", what)]


def plugin_files() -> list[Path]:
    """The files of the plugins that are loaded."""
    return [_file_of(module) for module in _LOADED.values()]


def plugins_of(*used: type[Any]) -> list[dict[str, str]]:
    """Which plugins classes come from: module, file and its hash, for a record of what was run."""
    names = {cls.__module__ for cls in used}
    modules = [m for m in _LOADED.values() if any(f"{name}.".startswith(f"{m.__name__}.") for name in names)]
    return [{"module": m.__name__, "file": str(_file_of(m)), "sha256": file_sha256(_file_of(m))} for m in modules]


def check_plugins(recorded: Any, *, named_by: object) -> None:
    """UsageError where a plugin of a record by `plugins_of` was not loaded; a DataWarning where its file is another."""
    _load_what_was_named()
    loaded = {module.__name__: module for module in _LOADED.values()}
    for said in recorded if isinstance(recorded, list) else ():
        name, file = (str(said.get(key)) for key in ("module", "file"))
        if name not in loaded and name not in sys.modules:
            raise UsageError(
                f"{named_by} was made with the plugin {file}; no code is run because a file names it, so give it "
                f"again: --plugin {shlex.quote(file)}"
            )
        if name in loaded and file_sha256(_file_of(loaded[name])) != said.get("sha256"):
            text = f"{_file_of(loaded[name])} is not what it was when {named_by} was made; what it computes may differ"
            warnings.warn(DataWarning(text), stacklevel=1)


def _file_of(module: ModuleType) -> Path:
    return Path(str(module.__file__))


def classes(kind: Kind) -> dict[str, type[Any]]:
    """All known classes of a kind by name: those of the package, then those registered."""
    _load_what_was_named()
    return _packaged(kind) | _REGISTERED[kind]


def _packaged(kind: Kind) -> dict[str, type[Any]]:
    package = _PACKAGES[kind]
    found: dict[str, type[Any]] = {}
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        for cls in vars(module).values():
            if _is_kind(kind, cls) and cls.__module__ == module.__name__:
                found[cls.name] = cls
    return found


def _in_own_file(kind: Kind, name: str) -> type[Any] | None:
    """The class of a name whose file is called like it, as most are: no other file is imported for it."""
    package = _PACKAGES[kind]
    if name in _REGISTERED[kind] or name not in {info.name for info in pkgutil.iter_modules(package.__path__)}:
        return None
    module = importlib.import_module(f"{package.__name__}.{name}")
    own = (cls for cls in vars(module).values() if _is_kind(kind, cls) and cls.__module__ == module.__name__)
    return next((cls for cls in own if cls.name == name), None)


def is_known(kind: Kind, name: str) -> bool:
    """Whether a class of the package, or a registered one, has that name."""
    return _in_own_file(kind, name) is not None or name in classes(kind)


def find(kind: Kind, name: str) -> type[Any]:
    """The class of that name or dotted path "pkg.mod:Class"."""
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            cls = getattr(importlib.import_module(module), attribute)
        except (Exception, SystemExit) as error:  # whatever a module does when it is imported
            raise UsageError(f"cannot import {kind} {name!r}: {error}; give it as package.module:Class") from error
        # a saved model's file may name a class: nothing but a method or a data set is ever called
        if not _is_kind(kind, cls):
            raise UsageError(f"{name!r} is no {kind}; see docs/add-a-{'method' if kind == 'model' else 'dataset'}.md")
        return cls
    if (own := _in_own_file(kind, name)) is not None:
        return own
    known = classes(kind)
    if name not in known:
        own = "" if _LOADED else " Code of your own: --plugin FILE.py."
        raise UsageError(f"unknown {kind} {name!r}; known: {', '.join(sorted(known))}.{suggest(name, known)}{own}")
    return known[name]


def check_trusted(name: str, *, named_by: object) -> None:
    """UsageError where a file names a class by a dotted path whose code nobody but the file asks for.

    Asked for are plugins, and modules that the program has imported already.
    """
    _load_what_was_named()
    module, path, _ = name.partition(":")
    if path and module not in sys.modules:
        raise UsageError(
            f"{named_by} names the class {name}, so that its code would be run, which may do anything. If you know "
            f"and trust it, give --plugin {module} or its file (or set {PLUGINS}; in Python, import {module} first)"
        )


def method_class(name: str) -> type[Any]:
    """The class of a method by name; "base" is the base learner."""
    return PSPNet if name == PSPNet.name else find("model", name)


def options(cls: type[Any]) -> dict[str, inspect.Parameter]:
    """The keyword arguments of a class's constructor by name."""
    parameters = inspect.signature(cls).parameters
    return {k: p for k, p in parameters.items() if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}


def keyword_hints(cls: type[Any]) -> dict[str, Any]:
    """The types of the keyword arguments of a class's constructor by name."""
    hints = get_type_hints(cls.__init__)
    return {name: hints.get(name, Any) for name in options(cls)}


def field_hints(cls: type[Any]) -> dict[str, Any]:
    """The types of a dataclass's fields by name."""
    return get_type_hints(cls)


def holds_sources(hint: Any) -> bool:
    """Whether an argument of that type is several data sets by name, each written as the group `data` is."""
    return any(part == dict[str, ImageSource] for part in (hint, *get_args(hint)))


def create(kind: Kind, name: str, **arguments: Any) -> Any:
    """Construct a model or a source; an unknown argument is refused with a suggestion."""
    cls = method_class(name) if kind == "model" else find(kind, name)
    known = options(cls)
    for argument in arguments:
        if argument not in known:
            raise UsageError(
                f"{kind} {name!r} has no option {argument!r}; it has {', '.join(known)}.{suggest(argument, known)}"
            )
    return cls(**arguments)


def _is_kind(kind: Kind, cls: Any) -> bool:
    if not isinstance(cls, type):
        return False
    if kind == "model":
        return issubclass(cls, FewShotSegmenter) and isinstance(getattr(cls, "name", None), str)
    return all(hasattr(cls, member) for member in ("name", "load", "fold", "index"))
