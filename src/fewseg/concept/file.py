"""A concept's file: safetensors, whose metadata hold the rest as JSON and the hash of it all.

The supports are JPEG and PNG files in tensors of bytes, so that no code is in the file and nothing in it is larger than
the file says. Reading trusts none of it: sizes of file and header come first, then format, hash and every value.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from fewseg.concept.taught import MOST_EXAMPLES, Choice, Example, Expected, Presence, Taught, UsedModel
from fewseg.data.decoding import PictureRule
from fewseg.errors import DataError, FewsegError, first_line, refuse_address, suggest
from fewseg.files import replacing
from fewseg.storage.engines import CONCEPT_KIND

FORMAT = 1
MOST_BYTES, MOST_HEADER = 200_000_000, 2_000_000
"""Of a file, and of its list of tensors with the JSON."""
_OF_EACH = ("each", "by_choice", "settings")
_FEATURES = "features."
_DTYPES = {"U8": np.uint8, "F16": np.float16}


def write(path: Path, taught: Taught) -> None:
    """Write a concept, whole or not at all; DataError where it is larger than what is read again."""
    tensors: dict[str, NDArray[Any]] = {_FEATURES + name: value for name, value in taught.features.items()}
    for group, examples in (("supports", taught.supports), ("absent", taught.absent)):
        for number, example in enumerate(examples):
            tensors[f"{group}.{number}.jpeg"] = np.frombuffer(example.jpeg, np.uint8)
            tensors[f"{group}.{number}.png"] = np.frombuffer(example.png, np.uint8)
    text = json.dumps(_as_json(taught))
    size = sum(value.nbytes for value in tensors.values()) + 2 * len(text)
    if size > MOST_BYTES or len(text) > MOST_HEADER // 4:
        raise DataError(f"{path}: a concept of {size / 1e6:.0f} MB is too large; teach it with fewer supports")
    metadata = {"kind": CONCEPT_KIND, "format": str(FORMAT), "concept": text, "sha256": hash_of(text, tensors)}
    with replacing(path, durable=True) as temporary:
        # not save_file: its files are readable by their owner alone
        temporary.write_bytes(safetensors.numpy.save(tensors, metadata))


def read(path: Path) -> Taught:
    """What a concept's file holds; DataError where it is none, damaged, of a newer fewseg, or says what cannot be."""
    refuse_address(path)
    try:
        metadata, tensors = _content(path)
        taught = _from_json(json.loads(metadata["concept"]), tensors)
        for example in (*taught.supports, *taught.absent):
            example.check()
    except FewsegError as error:
        raise DataError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError, OverflowError) as error:
        raise DataError(f"{path} is damaged ({first_line(error)}); copy it again, or teach it anew") from error
    return taught


def _content(path: Path) -> tuple[dict[str, str], dict[str, NDArray[Any]]]:
    """A file's metadata and tensors, after all that can be said without a look at what they mean."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            header = int.from_bytes(file.read(8), "little")
    except FileNotFoundError as error:
        near = suggest(path.name, (other.name for other in path.parent.glob("*.concept")))
        raise DataError(f"there is no such file.{near}") from error
    except OSError as error:
        raise DataError(f"it cannot be read ({error.strerror})") from error
    other = DataError("it is no concept; give a file that fewseg teach wrote")
    if size < 8 or header > size:
        raise other
    if size > MOST_BYTES or header > MOST_HEADER:
        raise DataError(f"a concept has at most {MOST_BYTES // 10**6} MB, and {MOST_HEADER // 10**6} MB of header")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("kind") != CONCEPT_KIND:
                raise other
            if (version := int(metadata["format"])) > FORMAT:
                raise DataError(f"a newer fewseg wrote it (format {version}); upgrade fewseg")
            for name in file.keys():  # noqa: SIM118  (it is no dict)
                if (kind := file.get_slice(name).get_dtype()) not in _DTYPES:
                    raise ValueError(f"{name} is of {kind}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise other from error
    if metadata["sha256"] != hash_of(metadata["concept"], tensors):
        raise ValueError("its hash is another")
    return metadata, tensors


def hash_of(text: str, tensors: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 of the JSON and of every tensor's name, shape and values."""
    found = hashlib.sha256(text.encode())
    for name, value in sorted(tensors.items()):
        found.update(f"\n{name} {value.dtype} {value.shape}\n".encode())
        found.update(np.ascontiguousarray(value).data)
    return found.hexdigest()


def _as_json(taught: Taught) -> dict[str, Any]:
    groups = {"supports": taught.supports, "absent": taught.absent}
    examples = {
        group: [{"name": e.name, "meaning": e.meaning, "side": e.side} for e in found]
        for group, found in groups.items()
    }
    parts = {name: getattr(taught, name) for name in ("model", "choice", "expected", "presence", "pictures")}
    written = {name: part if part is None else dataclasses.asdict(part) for name, part in parts.items()}
    return {"name": taught.name, **examples, **written}


def _from_json(found: dict[str, Any], tensors: dict[str, NDArray[Any]]) -> Taught:
    """ValueError, TypeError or KeyError where anything is not as `_as_json` writes it."""
    left = dict(tensors)
    supports, absent = (_examples(group, found.pop(group), left) for group in ("supports", "absent"))
    features = {name.removeprefix(_FEATURES): value for name, value in left.items() if name.startswith(_FEATURES)}
    for name, value in features.items():
        if value.ndim < 2 or value.shape[0] != 1 or value.shape[1] > MOST_EXAMPLES or not np.isfinite(value).all():
            raise ValueError(f"the features {name[:40]!r} are not finite or of shape {value.shape}")
    if len(features) + 2 * (len(supports) + len(absent)) != len(tensors):
        raise ValueError("it holds more than a concept does")
    presence, expected, pictures = (found.pop(name) for name in ("presence", "expected", "pictures"))
    return Taught(
        supports=supports,
        absent=absent,
        features=features,
        model=UsedModel(**found.pop("model")),
        choice=Choice(**found.pop("choice")),
        expected=Expected(**expected | {name: tuple(expected.get(name, ())) for name in _OF_EACH}),
        presence=None if presence is None else Presence(**presence),
        pictures=_picture_rule(pictures),
        **found,
    )


def _examples(group: str, listed: Any, left: dict[str, NDArray[Any]]) -> tuple[Example, ...]:
    """The photos of a group; their tensors are taken out of those that are `left`."""
    if not isinstance(listed, list) or len(listed) > MOST_EXAMPLES:
        raise ValueError(f"{group} is no list of at most {MOST_EXAMPLES}")
    examples = []
    for number, entry in enumerate(listed):
        jpeg, png = (left.pop(f"{group}.{number}.{kind}") for kind in ("jpeg", "png"))
        if jpeg.dtype != np.uint8 or png.dtype != np.uint8:
            raise ValueError(f"photo {number} of {group} is no bytes")
        examples.append(Example(jpeg.tobytes(), png.tobytes(), **entry))
    return tuple(examples)


def _picture_rule(found: dict[str, Any]) -> PictureRule:
    """ValueError where its numbers are none."""
    limits, bands, page = found["range"], found["bands"], found["page"]
    for values, kind, count in (
        (limits, (int, float), 2),
        (bands, (int,), 3),
        ([page] * (page is not None), (int,), 1),
    ):
        if values and (len(values) != count or any(type(value) not in kind for value in values)):
            raise ValueError(f"{str(values)[:40]} is no rule for pictures")
    return PictureRule(tuple(limits) if limits else None, tuple(bands) if bands else None, page)
