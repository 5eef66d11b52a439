"""Models and data sets by name.

Every module of `fewseg.models` and `fewseg.data.sets` is searched for classes that have a `name`: a new file there is
enough. Code outside the package registers a class with `register`, or is named by its dotted path "pkg.mod:Class".
A file that names one (a saved model, a YAML) is believed only where `check_trusted` says so.
"""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import sys
from typing import Any, Literal, get_args, get_type_hints

import fewseg.data.sets
import fewseg.models
from fewseg.data.source import ImageSource
from fewseg.errors import UsageError, suggest
from fewseg.models.base import FewShotSegmenter
from fewseg.models.parts.base_learner import PSPNet

Kind = Literal["model", "source"]
_PACKAGES = {"model": fewseg.models, "source": fewseg.data.sets}
TRUST = "FEWSEG_TRUST"
"""Environment variable: modules, with commas between them, that files may name; processes that are started inherit
it."""
_REGISTERED: dict[str, dict[str, type[Any]]] = {"model": {}, "source": {}}


def register(kind: Kind, cls: type[Any]) -> type[Any]:
    """Make a class of another package known by its `name`."""
    _REGISTERED[kind][cls.name] = cls
    return cls


def classes(kind: Kind) -> dict[str, type[Any]]:
    """All known classes of a kind by name: those of the package, then those registered."""
    package = _PACKAGES[kind]
    found: dict[str, type[Any]] = {}
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        for cls in vars(module).values():
            if _is_kind(kind, cls) and cls.__module__ == module.__name__:
                found[cls.name] = cls
    return found | _REGISTERED[kind]


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
        raise UsageError(f"unknown {kind} {name!r}; known: {', '.join(sorted(known))}.{suggest(name, known)}")
    return known[name]


def trust(module: str) -> None:
    """Let files name classes of a module and of those below it: their code is then imported."""
    os.environ[TRUST] = ",".join(filter(None, (os.environ.get(TRUST), module)))


def check_trusted(name: str, *, named_by: object) -> None:
    """UsageError where a file names a class by a dotted path whose code nobody but the file asks for.

    Asked for are modules that the program has imported already, and those of `trust`.
    """
    module, path, _ = name.partition(":")
    known = os.environ.get(TRUST, "").split(",")
    if path and module not in sys.modules and not any(m and f"{module}.".startswith(f"{m}.") for m in known):
        raise UsageError(
            f"{named_by} names the class {name}, so that its code would be run, which may do anything. If you know "
            f"and trust it, give --trust {module} (or set {TRUST}={module}; in Python, import {module} first)"
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
