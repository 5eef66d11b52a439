"""Text that people bring: files of any encoding that annotation tools write, and what is said about what was read."""

from __future__ import annotations

import codecs
import re
import warnings
from pathlib import Path

from fewseg.errors import DataError, DataWarning, shortened

_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_ODD_RUN = re.compile(rb"(?<![\x80-\xff])[\x80-\xff](?:[\x80-\xff]{2})*(?![\x80-\xff])")
"""An odd number of bytes beyond ASCII in a row, as accents in Western text are; Chinese characters are pairs."""


def read_text(file: Path) -> str:
    """A text file in UTF-8 (with or without a byte order mark), UTF-16 with one, GB18030 or Latin-1.

    The last two cannot be told for certain: a DataWarning says which was taken. DataError where the file is missing or
    no text.
    """
    try:
        content = file.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{file}: there is no such file") from error
    except IsADirectoryError as error:
        raise DataError(f"{file} is a folder; a text file is needed here") from error
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8" or b"\0" in content:
            raise DataError(f"{file} is no text ({error}); save it as UTF-8") from error
    for guess in ("cp1252", "latin-1") if _ODD_RUN.search(content) else ("gb18030", "cp1252", "latin-1"):
        try:
            text = content.decode(guess)
        except UnicodeDecodeError:
            continue
        at = next(i for i, letter in enumerate(text) if not letter.isascii())
        line = text[max(0, at - 20) : at + 40].splitlines()
        line = next(part for part in line if not part.isascii()).strip()
        warnings.warn(
            DataWarning(
                f"{file} is not in UTF-8 and was read as {guess}: {line[:60]!r}; if that is wrong, save it as UTF-8"
            ),
            stacklevel=2,
        )
        return text
    raise DataError(f"{file} is no text in UTF-8; save it as UTF-8")


def read_lines(file: Path) -> list[str]:
    """The lines of a text file without the blanks around them, empty ones left out; see `read_text`."""
    return [line.strip() for line in read_text(file).splitlines() if line.strip()]


class Tally:
    """What was passed over in something that was read: told once for each kind, with its count and an example."""

    def __init__(self, source: object) -> None:
        self.source = source
        self.found: dict[str, tuple[int, str]] = {}

    def add(self, what: str, example: object) -> None:
        """Count one more of `what`, such as "polygons of fewer than three points, left out"."""
        count, first = self.found.get(what, (0, str(example)))
        self.found[what] = count + 1, first

    def warn(self) -> None:
        """One DataWarning for each kind; none twice."""
        for told in self.lines():
            warnings.warn(DataWarning(f"{self.source}: {told}"), stacklevel=2)
        self.found = {}

    def __str__(self) -> str:
        return "; ".join(self.lines())

    def lines(self) -> list[str]:
        """A text for each kind."""
        return [
            f"{what} (one: {example})" if count == 1 else f"{count} {what} (the first: {example})"
            for what, (count, example) in self.found.items()
        ]


def found_in(folder: Path, *, most: int = 8) -> str:
    """What a folder holds, in words for an error that says what was expected there."""
    if not folder.is_dir():
        return f"{folder} is no folder"
    names = sorted(f"{path.name}/" if path.is_dir() else path.name for path in folder.iterdir())
    shown = [name for name in names if not name.startswith(".")]
    return f"{folder} holds {shortened(shown, most) or 'nothing'}"
