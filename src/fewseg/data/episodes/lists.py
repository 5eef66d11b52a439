"""Episodes by their images, and lists of them, which have a hash and are saved as CSV files that a person can read."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fewseg.data.episodes.protocols import may_lack
from fewseg.data.source import ImageSource
from fewseg.errors import DataError, UsageError
from fewseg.files import write_csv

_HEADER = ("source", "subset", "fold", "shots", "protocol", "seed")
_COLUMNS = ("episode", "class_id", "class_name", "query")


@dataclass(frozen=True)
class EpisodeSpec:
    """One episode: indices of the query and support images in the source, and the class to find."""

    query: int
    class_id: int
    support: tuple[int, ...]


@dataclass(frozen=True)
class EpisodeList:
    """Episodes of one source, with what they were drawn by."""

    source: str
    subset: str
    fold: int
    shots: int
    protocol: str
    seed: int
    specs: tuple[EpisodeSpec, ...]
    ids: tuple[str, ...]
    """Ids of all images of the source; the specs point into them."""
    class_names: tuple[str, ...]
    """Names of class ids 1..N."""

    def __len__(self) -> int:
        return len(self.specs)

    @cached_property
    def sha256(self) -> str:
        """Hash of the episodes by image ids: equal for the same episodes of a source, however they were drawn."""
        rows = [[spec.class_id, *(self.ids[i] for i in (spec.query, *spec.support))] for spec in self.specs]
        return hashlib.sha256(json.dumps([self.source, self.subset, rows]).encode()).hexdigest()

    def save(self, path: str | Path) -> None:
        """Write the list as CSV: a header of `# key: value` lines, then one episode a row by image ids."""
        rows: list[list[object]] = [[*_COLUMNS, *(f"support_{k + 1}" for k in range(self.shots))]]
        for e, spec in enumerate(self.specs):
            images = [self.ids[i] for i in (spec.query, *spec.support)]
            rows.append([e, spec.class_id, self.class_names[spec.class_id - 1], *images])
        write_csv(Path(path), rows, comments=[f"{key}: {getattr(self, key)}" for key in (*_HEADER, "sha256")])

    @classmethod
    def load(cls, path: str | Path, source: ImageSource) -> EpisodeList:
        """Read a saved list for a source; DataError names the line of whatever does not fit the source."""
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read the episode list {path}: {error}") from error
        header = _read_header(path, lines)
        if (header["source"], header["subset"]) != (source.name, source.subset):
            raise UsageError(
                f"{path} lists episodes of {header['source']} ({header['subset']}), but the data set in use is"
                f" {source.name} ({source.subset})"
            )
        fold, shots, seed = (_number(f"{path}, line 1", key, header[key]) for key in ("fold", "shots", "seed"))
        if not 1 <= shots <= len(source.index.ids):
            raise DataError(f"{path} says {shots} shots; {source.name} has {len(source.index.ids)} images to take from")
        rows = [(n, row) for n, row in enumerate(lines, 1) if row.strip() and not row.startswith("#")]
        specs = tuple(_read_rows(path, rows, source, shots, lacking=may_lack(header["protocol"])))
        if not specs:
            raise DataError(f"{path} lists no episode, it has a header alone; make one with fewseg data episodes")
        drawn = fold, shots, header["protocol"], seed
        episodes = cls(source.name, source.subset, *drawn, specs, source.index.ids, source.class_names)
        if header["sha256"] not in ("", episodes.sha256):
            raise DataError(
                f"{path} was changed after it was saved: its sha256 is {episodes.sha256[:12]}, not"
                f" {header['sha256'][:12]}; if that was meant, remove the line '# sha256'"
            )
        return episodes


def _read_header(path: str | Path, lines: Iterable[str]) -> dict[str, str]:
    pairs = (line[1:].partition(":") for line in lines if line.startswith("#"))
    header = {"sha256": ""} | {key.strip(): value.strip() for key, _, value in pairs}
    if missing := [key for key in _HEADER if key not in header]:
        raise DataError(
            f"{path} is no episode list: it has no line '# {missing[0]}: ...'; make one with fewseg data episodes"
        )
    return header


def _read_rows(
    path: str | Path, rows: list[tuple[int, str]], source: ImageSource, shots: int, *, lacking: bool
) -> Iterable[EpisodeSpec]:
    """`lacking`: whether a query may lack the episode's class."""
    expected = [*_COLUMNS, *(f"support_{k + 1}" for k in range(shots))]
    if not rows or _cells(f"{path}, line {rows[0][0]}", rows[0][1]) != expected:
        raise DataError(f"{path}, line {rows[0][0] if rows else 1}: the columns must be {','.join(expected)}")
    position = {name: i for i, name in enumerate(source.index.ids)}
    for n, row in rows[1:]:
        where = f"{path}, line {n}"
        cells = _cells(where, row)
        if len(cells) != len(expected):
            raise DataError(f"{where}: {len(cells)} cells, but {len(expected)} columns")
        _, number, class_name, *names = cells
        class_id = _number(where, "class_id", number)
        if not 1 <= class_id <= len(source.class_names) or source.class_names[class_id - 1] != class_name:
            raise DataError(f"{where}: class {class_id} is not {class_name!r} in {source.name}")
        for slot, name in enumerate(names):
            if name not in position:
                raise DataError(f"{where}: {source.name} ({source.subset}) has no image {name!r}")
            if not source.index.counts[position[name], class_id] and not (lacking and slot == 0):
                raise DataError(f"{where}: image {name!r} has no pixel of {class_name!r}")
        if names[0] in names[1:]:
            raise DataError(f"{where}: the query {names[0]!r} is among its own supports")
        query, *support = (position[name] for name in names)
        yield EpisodeSpec(query, class_id, tuple(support))


def _cells(where: str, row: str) -> list[str]:
    try:
        return next(csv.reader([row]))
    except csv.Error as error:  # a cell of more than 131,072 characters
        raise DataError(f"{where}: this is no row of an episode list ({error})") from error


def _number(where: str, what: str, text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise DataError(f"{where}: {what} must be a whole number, not {text!r}") from error
