"""Configurations: packaged YAML files are recipes, `key=value` changes one thing; `fewseg.schema` says the keys.

`load_config("hdmnet", "pascal5i", "data.root=DIR", "data.fold=0")` merges the named recipes in order, then the
overrides. Options of a method or a data set are the keyword arguments of its class: `model.temperature=2`,
`data.sbd=all`.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import fields
from functools import partial
from importlib import resources
from itertools import pairwise
from pathlib import Path
from types import NoneType
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml

from fewseg import registry
from fewseg.data.text import read_text
from fewseg.errors import MOST, DataError, UsageError
from fewseg.registry import method_class
from fewseg.schema import Config, DataConfig
from fewseg.yaml_text import Scalar, plain, read_yaml, written

_GROUPS = get_type_hints(Config)
_OF_MANY = {
    "image_size": "Side of the square that the model sees, in pixels.",
    "output_stride": "Pixels of the image, along a side, for one position of the back-end's last maps; null: its own.",
    "trained": "What of the back-end is trained.",
    "min_pixels": "An image counts for a class from so many of its pixels on.",
    "folds": "How many folds the classes are divided into.",
}
"""What options mean that many methods or data sets have."""
_MOST_BYTES = 500_000
"""Of a YAML file: a second reads so many."""
_MOST_NUMBER = 1e15
"""Of numbers with a point: no option has use for larger ones, and sums and products of them are infinite."""
_SET_BY_THE_RUN = {"model": ("base_classes", "shots"), "data": ("subset",)}


def recipes() -> list[str]:
    """Names of the packaged recipes, and of those beside a plugin's file."""
    return sorted(_recipe_files())


def _recipe_files() -> dict[str, Any]:
    """The files of the recipes by name; what comes with fewseg keeps its name."""
    folders: list[Any] = [*registry.plugin_folders(), resources.files("fewseg") / "configs"]
    files = [entry for folder in folders for entry in folder.iterdir() if _is_recipe(entry.name)]
    return {entry.name.removesuffix(".yaml"): entry for entry in files}


def _is_recipe(name: str) -> bool:
    return name.endswith(".yaml") and not name.endswith(registry.PROTOCOL_FILE)


def load_config(*names_and_overrides: str) -> Config:
    """Merge packaged recipes or YAML files in order, then overrides `group.key=value`.

    A recipe's `when: {DATASET: {...}}` is merged if that data set is chosen. Raises UsageError with a suggestion for an
    unknown name or key and for a value of a wrong type, and where a file names a class whose code nobody
    asked for (`fewseg.registry.check_trusted`); DataError for a file that is no YAML.
    """
    names = [word for word in names_and_overrides if not _is_override(word)]
    merged: dict[str, Any] = {}
    when: dict[str, Any] = {}
    for name in names:
        recipe = _read_recipe(name)
        when = _merge(when, recipe.pop("when", {}))
        merged = _merge(_without_options(merged, recipe), recipe)
    overrides = _parse([word for word in names_and_overrides if _is_override(word)])
    merged = _without_options(merged, overrides)
    chosen = _chosen(_merge(merged, overrides), "data")
    whole = _merge(merged, when.get(chosen, {}), overrides)
    for group in ("model", "data"):
        said = dict(_named(overrides.get(group)))
        for place, name in _named(whole.get(group)):
            if said.get(place) != name:  # a file says it
                registry.check_trusted(name, named_by=", ".join(names))
    return _typed(whole)


def as_yaml(config: Config) -> str:
    """The configuration as a YAML file that `load_config` reads, with every key's help and what it may be."""
    lines: list[str] = []
    wrapped = partial(textwrap.wrap, width=110, initial_indent="  # ", subsequent_indent="  # ", break_on_hyphens=False)
    chosen = {"model": method_class(config.model.name), "data": registry.find("source", config.data.name)}
    for group, values in config.as_dict().items():
        lines.append(f"{group}:")
        told, defaults = _OF_MANY | field_help(_GROUPS[group]), _GROUPS[group]()
        allowed = {f.name: f.metadata.get("allowed") for f in fields(_GROUPS[group])}
        known = {f.name: getattr(defaults, f.name) for f in fields(_GROUPS[group])}
        if group in chosen:  # it tells of the options that its constructor adds
            lines += wrapped(f"{values['name']}: {inspect.getdoc(chosen[group])}")
            known |= {key: default for key, (_, default) in _options(chosen[group], {*known}).items()}
        for key, value in values.items():
            default = f"default {shown(known[key])}" + (", another here" if value != known[key] else "")
            bracket = "; ".join(filter(None, (allowed.get(key), default)))
            lines += wrapped(" ".join(filter(None, (told.get(key), f"[{bracket}]"))))
            lines += textwrap.indent(yaml.safe_dump({key: value}), "  ").splitlines()
    return "\n".join(lines) + "\n"


def shown(value: Any) -> str:
    """A value in a line, as YAML has it."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("\n").removesuffix("\n...")


def field_help(cls: type[Any]) -> dict[str, str]:
    """The texts that stand under a dataclass's fields, by field; none where its source is not at hand."""
    try:
        found: Any = ast.parse(inspect.getsource(cls)).body[0]
    except OSError:
        return {}
    return {
        ast.unparse(line.target): inspect.cleandoc(ast.literal_eval(text.value))
        for line, text in pairwise(found.body)
        if isinstance(line, ast.AnnAssign) and isinstance(text, ast.Expr)
    }


def _is_override(word: str) -> bool:
    """Whether a word is `key=value`: it has an equals sign and is no YAML file in a directory with one."""
    return "=" in word and not (word.endswith((".yaml", ".yml")) and Path(word).is_file())


def _parse(words: list[str]) -> dict[str, Any]:
    parsed: dict[str, Any] = {}
    for word in words:
        if not re.match(r"\w+(\.\w+)*=", word):
            raise UsageError(f"cannot read the override {word[:80]!r}; write group.key=value")
        keys, _, value = word.partition("=")
        try:
            content = read_yaml(value)
        except ValueError as error:
            raise UsageError(
                f"cannot read the override {word[:80]!r}: {error}; write group.key=value, with quotes around text with "
                "signs in it"
            ) from error
        for key in reversed(keys.split(".")):
            content = {key: content}
        parsed = _merge(parsed, content)
    return parsed


def _merge(*parts: dict[str, Any]) -> dict[str, Any]:
    """Mappings in one, key by key; the last one's values hold."""
    merged: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            former = merged.get(key)
            merged[key] = _merge(former, value) if isinstance(former, dict) and isinstance(value, dict) else value
    return merged


def _read_recipe(name: str) -> dict[str, Any]:
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        content = read_yaml_file(path)
    elif file := (known := _recipe_files()).get(name):
        content = _as_mapping(name, file.read_text(encoding="utf-8"))
    else:
        hint = registry.suggest(name, known, most=3)
        if registry.is_known("model", name):
            hint = f" The method {name!r} is known but has no recipe: write {name}.yaml beside its file, or give the "
            hint += f"recipe of a method that it is like, and model.name={name}."
        elif registry.is_known("source", name):
            hint = f" The data set {name!r} is known but has no recipe: write {name}.yaml beside its file, with "
            hint += f"`data: {{name: {name}}}`, or give data.name={name} in its place."
        elif (here := Path(f"{name}.yaml")).is_file():
            hint = f" {here} is here: give it so, and --plugin FILE.py for a method or a data set of your own."
        raise UsageError(
            f"unknown recipe {name!r}.{hint} `fewseg models` lists all {len(known)}; a YAML file will do too"
        )
    content = {group: keys for group, keys in content.items() if plain(keys) is not None}
    when = content.get("when", {})
    if not isinstance(when, dict) or not all(isinstance(part, dict) for part in when.values()):
        raise DataError(f"{name}: `when` must hold groups of keys by data set, as `when: {{coco20i: {{train: ...}}}}`")
    return content


def read_yaml_file(path: Path) -> dict[str, Any]:
    """What a YAML file holds, by its keys. DataError for one that cannot be read or holds anything else."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(f"{path} has more than {_MOST_BYTES} bytes; no configuration needs as many")
        return _as_mapping(str(path), read_text(path))
    except OSError as error:
        raise DataError(f"cannot read the configuration {path}: {error.strerror}") from error


def _as_mapping(name: str, text: str) -> dict[str, Any]:
    try:
        content = read_yaml(text) or {}
    except ValueError as error:
        raise DataError(f"{name} is no YAML that a configuration can be: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{name} must hold keys with values, as `epochs: 4`, not {written(content)[:80]}")
    return content


def read_group(place: str, hints: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """What `read_yaml_file` gave, as the types of known keys; UsageError names what is unknown or of another type."""
    for key in given:
        if key not in hints:
            raise UsageError(f"{place} unknown key {key}; known: {', '.join(hints)}.{registry.suggest(key, hints)}")
    return {key: _checked(f"{place} {key}", hints[key], value) for key, value in given.items()}


def _without_options(merged: dict[str, Any], then: dict[str, Any]) -> dict[str, Any]:
    """What is merged so far, of its data what holds for any data set, where `then` names another one."""
    if not isinstance(merged.get("data"), dict) or _chosen(_merge(merged, then), "data") == _chosen(merged, "data"):
        return merged
    kept = {f.name for f in fields(DataConfig)} - {"root"}
    if "name" in merged["data"]:  # a fold of that one is none of another
        kept -= {"name", "fold"}
    return merged | {"data": {key: value for key, value in merged["data"].items() if key in kept}}


def _chosen(merged: dict[str, Any], group: str) -> str:
    section = merged.get(group)
    name = section.get("name") if isinstance(section, dict) else None
    return _GROUPS[group].name if name is None else written(name)


def _named(content: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """The values of every key `name` in a group and the groups in it, by their places."""
    for key, value in content.items() if isinstance(content, dict) else ():
        if isinstance(value, dict):
            yield from _named(value, (*place, key))
        elif key == "name":
            yield place, written(value)


def _typed(merged: dict[str, Any]) -> Config:
    """The merged values checked against the dataclasses and the chosen classes' constructors."""
    classes = {
        "model": method_class(_chosen(merged, "model")),
        "data": registry.find("source", _chosen(merged, "data")),
    }
    keys = {}
    for group, base in _GROUPS.items():
        own = {key: hint for key, hint in get_type_hints(base).items() if key != "options"}
        more = _options(classes[group], {*own, *_SET_BY_THE_RUN[group]}) if group in classes else {}
        keys[group] = own, more
    _refuse_unknown_group(merged, {group: [*own, *more] for group, (own, more) in keys.items()})
    values = {}
    for group, (own, more) in keys.items():
        given = {} if merged.get(group) is None else merged[group]
        _refuse_unknown(group, given, [*own, *more])
        hints = own | {key: hint for key, (hint, _) in more.items()}
        read = {key: _checked(f"{group}.{key}", hints[key], value) for key, value in given.items()}
        kept = {key: value for key, value in read.items() if key in own}
        if group in classes:
            kept["options"] = {key: read.get(key, default) for key, (_, default) in more.items()}
        values[group] = _GROUPS[group](**kept)
        _check_values(group, values[group])
    return Config(**values)


def _options(cls: type[Any], left_out: set[str]) -> dict[str, tuple[Any, Any]]:
    """Type and default of the keyword arguments of a method's or data set's class, by name."""
    hints, found = registry.keyword_hints(cls), {}
    for name, parameter in registry.options(cls).items():
        if name not in left_out:
            default = None if parameter.default is inspect.Parameter.empty else parameter.default
            found[name] = hints[name], list(default) if isinstance(default, tuple) else copy(default)
    return found


def _refuse_unknown_group(merged: dict[str, Any], known: dict[str, list[str]]) -> None:
    for group in merged:
        if group not in known:
            whole = [repr(f"{place}.{group}") for place, keys in known.items() if group in keys]
            hint = f" Did you mean {' or '.join(whole)}?" if whole else registry.suggest(group, known)
            raise UsageError(f"unknown group {group!r} in the configuration; groups: {', '.join(known)}.{hint}")


def _refuse_unknown(group: str, given: Any, known: list[str]) -> None:
    if not isinstance(given, dict):
        raise UsageError(f"{group} must be a group of keys ({', '.join(known)}), not {written(given)!r}")
    for key in given:
        if key not in known:
            hint = registry.suggest(key, known)
            hint = hint.replace("Did you mean '", f"Did you mean '{group}.")
            raise UsageError(f"unknown key {group}.{key}; known: {', '.join(known)}.{hint}")


def _checked(key: str, hint: Any, given: Any) -> Any:
    """A value as its type; UsageError says what it must be."""
    if registry.holds_sources(hint):
        return _sources(key, given)
    try:
        return _as_type(hint, given)
    except ValueError as error:
        raise UsageError(f"{key} is {written(given)[:80]!r}; give {error}") from error


def _sources(key: str, given: Any) -> dict[str, dict[str, Any]] | None:
    """Data sets by name, each as its group of keys; null leaves one out that another file has."""
    if plain(given) is None:
        return None
    example = "{NAME: {name: folder, root: DIR}}"
    if not isinstance(given, dict):
        raise UsageError(f"{key} is {written(given)[:80]!r}; give data sets by name: {example}")
    found = {}
    for part, keys in given.items():
        place = f"{key}.{part}"
        if plain(keys) is None:
            continue
        if not isinstance(keys, dict) or "name" not in keys:
            raise UsageError(f"{place} is {written(keys)[:80]!r}, which names no data set; give {example}")
        name = _checked(f"{place}.name", str, keys["name"])
        known = _options(registry.find("source", name), set(_SET_BY_THE_RUN["data"]))
        _refuse_unknown(place, keys, ["name", *known])
        read = {k: _checked(f"{place}.{k}", known[k][0], v) for k, v in keys.items() if k != "name"}
        found[part] = {"name": name} | {k: read.get(k, default) for k, (_, default) in known.items()}
    return found


def _as_type(hint: Any, given: Any) -> Any:
    """What was read, as a type: a text stays as it is written, and where a list belongs one value is a list of one.

    ValueError says what is wanted. A type that no text can be is left as YAML has it.
    """
    inner = get_args(hint)
    if NoneType in inner:
        return None if plain(given) is None else _as_type(Union[tuple(t for t in inner if t is not NoneType)], given)  # noqa: UP007
    kind = get_origin(hint) or hint
    if kind in (list, tuple):
        items = given if isinstance(given, list) else [given]
        try:
            return [_as_type(inner[0] if inner else Any, item) for item in items]
        except ValueError as error:
            raise ValueError(f"{error}, or several in brackets with commas: [A,B]") from error
    if kind is dict:
        if not isinstance(given, dict):
            raise ValueError("a group of keys: {key: value}")
        return {key: _as_type(inner[1] if inner else Any, value) for key, value in given.items()}
    if kind not in _READ:
        return plain(given)
    read, wanted = _READ[kind]
    if not isinstance(given, Scalar):
        raise ValueError(wanted)
    try:
        return read(given)
    except (ValueError, KeyError, OverflowError) as error:
        raise ValueError(wanted) from error


def _text(given: Scalar) -> str:
    if given.text == "" and given.value is None:
        raise ValueError
    return given.text


def _bool(given: Scalar) -> bool:
    return {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}[
        given.text.lower()
    ]


def _whole(given: Scalar) -> int:
    if isinstance(given.value, bool):
        raise ValueError
    number = given.value if isinstance(given.value, int) else int(given.text)
    if abs(number) > MOST:
        raise OverflowError
    return number


def _number(given: Scalar) -> float:
    if isinstance(given.value, bool):
        raise ValueError
    return float(given.value if isinstance(given.value, int | float) else given.text)


_READ: dict[Any, tuple[Callable[[Scalar], Any], str]] = {
    str: (_text, "a text"),
    bool: (_bool, "true or false"),
    int: (_whole, f"a whole number (to {MOST})"),
    float: (_number, "a number"),
}
"""How a type is read, and what it is called."""


def _check_values(group: str, values: Any) -> None:
    for f in fields(_GROUPS[group]):
        value: Any = getattr(values, f.name)
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, float) and not abs(number) <= _MOST_NUMBER:  # NaN is refused too
                allowed = f.metadata.get("allowed") or "a number"
                raise UsageError(f"{group}.{f.name} is {value}; give {allowed}, at most {_MOST_NUMBER:.0e}")
        if not f.metadata or value is None:
            continue
        least, most, choices, allowed = (f.metadata[key] for key in ("least", "most", "choices", "allowed"))
        if choices and value not in choices:
            raise UsageError(f"{group}.{f.name} is {value!r}; choose {allowed}.{registry.suggest(str(value), choices)}")
        if (least is not None and value < least) or (most is not None and value > most):
            raise UsageError(f"{group}.{f.name} is {value}; give {allowed}")
