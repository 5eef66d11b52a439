"""YAML as configurations take it: every value as it is written, and as YAML reads it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import yaml

from fewseg.errors import first_line

MOST_VALUES = 10_000
"""Of a YAML text, its aliases written out."""
_POWER_OF_TEN = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")
"""Numbers that YAML 1.1 takes for text, for want of a point or a sign: 1e-5, 1.0e3."""


@dataclass(frozen=True)
class Scalar:
    """A value in YAML, as it is written and as YAML reads it: a class may have the name `yes`, `1` or `null`."""

    text: str
    value: Any


def read_yaml(text: str) -> Any:
    """Mappings and lists of `Scalar`; None of an empty text. Raises ValueError with the place of a fault."""
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _values(node, {}) > MOST_VALUES:
            raise ValueError(f"its aliases (*name) stand for more than {MOST_VALUES} values; write them out, or fewer")
        return _content(loader, node)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ValueError(f"{line}{error.problem}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(first_line(error)) from error


def _content(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    if isinstance(node, yaml.CollectionNode) and not re.fullmatch(r"tag:yaml.org,2002:(map|seq)", node.tag):
        raise yaml.MarkedYAMLError(problem=f"{node.tag} is not taken here", problem_mark=node.start_mark)
    if isinstance(node, yaml.MappingNode):
        loader.flatten_mapping(node)
        if odd := [key for key, _ in node.value if not isinstance(key, yaml.ScalarNode)]:
            raise yaml.MarkedYAMLError(problem="a key must be a word", problem_mark=odd[0].start_mark)
        return {key.value: _content(loader, value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [_content(loader, value) for value in node.value]
    try:
        value = loader.construct_object(node)
    except ValueError:  # a date that is none, a number of thousands of digits
        value = node.value
    quoted = getattr(node, "style", None) is not None
    if isinstance(value, str) and not quoted and _POWER_OF_TEN.fullmatch(value):  # YAML 1.2 takes it for a number
        value = float(value)
    return Scalar(node.value, value if isinstance(value, str | int | float | None) else node.value)


def plain(content: Any) -> Any:
    """What YAML means by what `read_yaml` gave."""
    if isinstance(content, dict):
        return {key: plain(value) for key, value in content.items()}
    if isinstance(content, list):
        return [plain(value) for value in content]
    return content.value if isinstance(content, Scalar) else content


def written(content: Any) -> str:
    """A value as a user writes it."""
    if isinstance(content, dict):
        return "{" + ", ".join(f"{key}: {written(value)}" for key, value in content.items()) + "}"
    if isinstance(content, list):
        return f"[{', '.join(map(written, content))}]"
    return content.text if isinstance(content, Scalar) else "null" if content is None else str(content)


def _values(node: Any, counted: dict[int, float]) -> float:
    """How many values a part of a YAML text has with its aliases written out; infinity for one that holds itself."""
    if id(node) not in counted:
        counted[id(node)] = math.inf
        pairs = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = [part for pair in pairs for part in (pair if isinstance(pair, tuple) else (pair,))]
        counted[id(node)] = 1 + sum(_values(part, counted) for part in parts)
    return counted[id(node)]
