"""Protocols of one's own: a YAML file that changes a packaged one, or one that was registered."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from fewseg import registry
from fewseg.config import read_group, read_yaml_file
from fewseg.data.episodes.protocols import CHOICES, PROTOCOLS, EvaluationProtocol, get_protocol, is_generalised
from fewseg.data.episodes.sampling import NOVEL_RULES
from fewseg.errors import DataError, UsageError, check_choice, suggest

ENDING = registry.PROTOCOL_FILE
_VARIED = ("absent", "supports", "references", "ways")
_FOR_THE_RECORD = ("name", "query_void", "support_void")
"""What a file cannot change: its own name is another's, and void is read in one way."""


def find_protocol(name: str, *, dataset: str) -> EvaluationProtocol:
    """The protocol of that name for a data set: a packaged one, a registered one, or that of a YAML file, which is
    given by its path, or by its name where it lies beside a plugin as `NAME.protocol.yaml`.

    Raises UsageError for an unknown name and for what a protocol cannot be; DataError for a file that is no YAML.
    """
    if name in PROTOCOLS:
        return get_protocol(name, dataset=dataset)
    if name in (own := registry.protocols()):
        return own[name]
    files = registry.protocol_files()
    if name.endswith((".yaml", ".yml")) or name in files:
        return _read(files.get(name, Path(name)), dataset)
    known = (*PROTOCOLS, *own, *files)
    choices = f"choose {', '.join(known)}, or give a YAML file (docs/protocols.md)"
    raise UsageError(f"unknown protocol {name!r}; {choices}.{suggest(name, known)}")


def labels_all(name: str) -> bool:
    """Whether a protocol of that name is a generalised one; errors as of `find_protocol`."""
    return find_protocol(name, dataset="any").labels == "all"


def _read(file: Path, dataset: str) -> EvaluationProtocol:
    """The protocol `base` of a file with what it changes, and what it changes on one data set (`when`)."""
    content = read_yaml_file(file)
    name = file.name.removesuffix(ENDING).removesuffix(file.suffix)
    if not re.fullmatch(r"[\w.-]+", name) or name in PROTOCOLS:
        raise UsageError(f"{file}: a protocol is called as its file, and {name!r} is {_taken(name)}; rename the file")
    when = content.pop("when", {})
    if not isinstance(when, dict) or not all(isinstance(part, dict) for part in when.values()):
        raise DataError(f"{file}: `when` must hold keys by data set, as `when: {{coco20i: {{episodes: 10000}}}}`")
    hints = {"base": str} | {
        f: h for f, h in registry.field_hints(EvaluationProtocol).items() if f not in _FOR_THE_RECORD
    }
    given = read_group(f"{file.name}:", hints, content | when.get(dataset, {}))
    for key, choices in (CHOICES | {"novel_in_training": NOVEL_RULES}).items():
        if key in given:
            check_choice(f"{file.name}: {key}", given[key], choices)
    if "base" not in given:
        raise UsageError(
            f"{file} does not say which protocol it changes; add `base: fewseg` or one of {', '.join(PROTOCOLS)}"
        )
    base = get_protocol(given.pop("base"), dataset=dataset)
    varied = {key: given.pop(key) for key in _VARIED if key in given}
    if "seeds" in given:
        given["seeds"] = tuple(given["seeds"])
    found = replace(base, name=name, **given)
    _check(file, found)
    return found.varied(**varied) if varied else found


def _taken(name: str) -> str:
    return "a protocol of fewseg's" if name in PROTOCOLS else "no name (letters, digits, ., - and _)"


def _check(file: Path, p: EvaluationProtocol) -> None:
    """UsageError for numbers that are none, and for rules that do not go together."""
    faults = {
        "episodes must be 1 or more, or null for the whole list": p.episodes is not None and p.episodes < 1,
        "seeds must be one or more different numbers from 0 on": not p.seeds
        or min(p.seeds) < 0
        or len(set(p.seeds)) < len(p.seeds),
        "input_size must be 16 to 4096 pixels, or null for the model's own": p.input_size is not None
        and not 16 <= p.input_size <= 4096,
        "scored_at cropped and padded_square need resize: pad": p.scored_at in ("cropped", "padded_square")
        and p.resize != "pad",
        "labels: all belongs to names that end in -generalised, and to no others": (p.labels == "all")
        != is_generalised(p.name),
        "labels: all and the queries all_in_order and all_shuffled with query_class any_novel belong together": len(
            {p.labels == "all", p.query.startswith("all_"), p.query_class == "any_novel"}
        )
        > 1,
        "support: fixed belongs to the protocols of all novel classes at once: base: fewseg-all-generalised": (
            p.support == "fixed"
        )
        != (p.ways == 0),
    }
    for told, holds in faults.items():
        if holds:
            raise UsageError(f"{file}: {told}")
