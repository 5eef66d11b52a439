"""The site's reference pages, as Markdown: configuration, commands and Python, each made from what it describes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import fields
from importlib.resources import files
from typing import Any

import typer
import typer.main

import fewseg
from fewseg import registry, schema
from fewseg.cli.main import app
from fewseg.config import field_help, recipes, shown

GROUPS = {
    "model": (schema.ModelConfig, "model"),
    "data": (schema.DataConfig, "source"),
    "augment": (schema.AugmentConfig, None),
    "train": (schema.TrainConfig, None),
    "base": (schema.BaseConfig, None),
}
"""The configuration's groups: each one's keys, and which classes add keys of their own to it."""

ROOMS = {
    "Photos": ("predictor", "concept", "data.marks"),
    "Models": ("build", "models", "storage"),
    "Episodes and evaluation": ("episode", "data.episodes", "evaluation", "metrics"),
    "Training, and adding to fewseg": ("config", "schema", "training", "callback", "registry"),
    "Reports": ("report",),
    "Errors": ("errors",),
}
"""Where the public names live, and under which heading they stand."""
CONFIGURATION = """# Configuration

What `fewseg train` and others are told: recipes by name, and overrides such as `train.lr=1e-3`. `fewseg train METHOD
DATASET --show` prints the same for one method and data set, with the values in force.

"""
PYTHON = """# Python

The public names: `import fewseg` brings all of them, each loaded when it is first used. In shapes B is episodes, K
supports, C channels, H and W an image's height and width, h and w those of a map.

"""
KINDS = {"str": "TEXT", "path": "PATH", "int": "NUMBER", "float": "NUMBER"}


def plain(text: str) -> str:
    """Text of the source in which only what stands between backticks is markup."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(part if n % 2 else re.sub(r"([\\<>*_\[\]{}$#|])", r"\\\1", part) for n, part in enumerate(parts))


def paragraphs(text: str) -> str:
    """A docstring's paragraphs, each on one line."""
    return "\n\n".join(plain(" ".join(part.split())) for part in inspect.cleandoc(text).split("\n\n"))


def defined(term: str, meaning: str) -> str:
    """A term and below it what it means."""
    return f"{term}\n: {meaning or '(its name says it)'}\n\n"


# -- configuration


def configuration() -> Iterator[str]:
    """The keys of every group, what methods and data sets add to them, and the recipes."""
    yield CONFIGURATION
    for group, (cls, kind) in GROUPS.items():
        yield f"## {group}\n\n{paragraphs(cls.__doc__ or '')}\n\n"
        told = field_help(cls)
        for field in fields(cls):
            if field.name == "options":  # they are the class's own keys, below
                continue
            default = f"default {_shown(getattr(cls(), field.name))}"
            limits = field.metadata.get("allowed")
            yield defined(
                f"`{group}.{field.name}`", " ".join([plain(told.get(field.name, "")), _bracket(limits, default)])
            )
        if kind:
            yield from _of_classes(group, kind, {field.name for field in fields(cls)})
    yield "## Recipes\n\nYAML files that come along, known by their names.\n\n"
    for name in recipes():
        text = (files("fewseg") / "configs" / f"{name}.yaml").read_text(encoding="utf-8")
        yield f"### {name}\n\n```yaml\n{text}```\n\n"


def _of_classes(group: str, kind: Any, common: set[str]) -> Iterator[str]:
    """The keys that a method or a data set adds to its group."""
    for name, cls in sorted(registry.classes(kind).items()):
        own = {key: value for key, value in registry.options(cls).items() if key not in common}
        yield f"### {group}.name={name}\n\n{paragraphs(cls.__doc__ or '')}\n\n"
        keys = [f"`{group}.{key}` ({_shown(value.default)})" for key, value in own.items()]
        if keys:
            yield f"Its own keys, with their defaults: {', '.join(keys)}.\n\n"


def _bracket(*parts: str | None) -> str:
    return plain(f"[{'; '.join(filter(None, parts))}]")


def _shown(value: Any) -> str:
    if value is inspect.Parameter.empty:
        return "to be given"
    return f"`{shown(list(value) if isinstance(value, tuple) else value)}`"


# -- commands


def commands() -> Iterator[str]:
    """Every command with its arguments and options."""
    top = typer.main.get_command(app)
    context = typer.Context(top, info_name="fewseg")
    yield f"# Commands\n\nWhat `fewseg COMMAND --help` says. {plain(str(top.epilog))}\n\n"
    yield from _commands(top, context, 2)


def _commands(group: Any, context: Any, level: int) -> Iterator[str]:
    for name, command in group.commands.items():
        if command.hidden:
            continue
        inner = typer.Context(command, info_name=name, parent=context)
        yield f"{'#' * level} {inner.command_path}\n\n{paragraphs(command.help or '')}\n\n"
        if hasattr(command, "commands"):
            yield from _commands(command, inner, level + 1)
            continue
        words = [re.sub(r"[{}]", "", word).upper() for word in command.collect_usage_pieces(inner)]
        yield f"```\n{inner.command_path} {' '.join(words)}\n```\n\n"
        for parameter in command.get_params(inner):
            term, meaning = parameter.get_help_record(inner) or ("", "")
            if term not in ("", "--help"):
                many = " (may be repeated)" if "list[" in term and parameter.param_type_name == "option" else ""
                yield defined(f"`{_term(term)}`{many}", plain(meaning))


def _term(text: str) -> str:
    """How an option or argument is written, with what it takes in the usual capitals."""
    name, _, kind = text.partition(" <")
    taken = kind.strip(">").removeprefix("list[").removesuffix("]").removesuffix(" range").lower()
    return name if not kind else name.upper() if name[0] != "-" else f"{name} {KINDS.get(taken, taken.upper())}"


# -- Python


def python() -> Iterator[str]:
    """The public names with their docstrings, which Sphinx reads."""
    yield PYTHON
    left = sorted(fewseg.__all__)
    for title, rooms in ROOMS.items():
        names = [name for name in left if _lives_in(name, rooms)]
        left = [name for name in left if name not in names]
        yield f"## {title}\n\n```{{eval-rst}}\n.. autosummary::\n   :nosignatures:\n\n" + "".join(
            f"   ~fewseg.{name}\n" for name in names
        )
        yield "\n" + "".join(_documented(name) for name in names) + "```\n\n"
    if left:
        raise SystemExit(f"docs/site/reference.py does not know under which heading {', '.join(left)} should stand")


def _lives_in(name: str, rooms: tuple[str, ...]) -> bool:
    return getattr(fewseg, name).__module__.removeprefix("fewseg.").startswith(rooms)


def _documented(name: str) -> str:
    found = getattr(fewseg, name)
    if not inspect.isclass(found):
        return f".. autofunction:: fewseg.{name}\n\n"
    members = "" if found.__module__.startswith("fewseg.models") and name != "FewShotSegmenter" else "   :members:\n"
    return f".. autoclass:: fewseg.{name}\n{members}\n"
