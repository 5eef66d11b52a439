"""Text files of annotation tools in the encodings that they come in."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from fewseg.data.text import Tally, read_lines, read_text
from fewseg.errors import DataError, DataWarning


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("text", ['{"label": "fenêtre"}', "零件\nКошка", "plain"])
def test_unicode_is_read_without_a_word(tmp_path: Path, text: str, encoding: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(text, encoding=encoding)
    assert read_text(file) == text


@pytest.mark.parametrize(
    ("text", "encoding"),
    [("零件", "gb18030"), ("fenêtre", "latin-1"), ("Straße, größer", "cp1252"), ("名: 猫, 狗和 “x”", "gb18030")],
)
def test_an_older_encoding_is_guessed_and_the_guess_told(tmp_path: Path, text: str, encoding: str) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(f'{{"label": "{text}"}}\n'.encode(encoding))
    with pytest.warns(DataWarning, match=r"a\.json is not in UTF-8 and was read as"):
        assert text in read_text(file)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"\x00\xff\x00\xfe" * 20)
    with pytest.raises(DataError, match="no text"):
        read_text(file)
    with pytest.raises(DataError, match="no such file"):
        read_text(tmp_path / "b.txt")


def test_lines_lose_the_mark_the_blanks_and_the_empty_ones(tmp_path: Path) -> None:
    file = tmp_path / "classes.txt"
    file.write_bytes("\ufeffcow \r\n\r\n sheep\r\n".encode())
    assert read_lines(file) == ["cow", "sheep"]


def test_what_is_passed_over_is_told_once_with_count_and_example() -> None:
    tally = Tally("a.json")
    for number in range(3):
        tally.add("polygons of two points, left out", f"annotation {number}")
    with pytest.warns(DataWarning, match=r"a\.json: 3 polygons of two points, left out \(the first: annotation 0\)"):
        tally.warn()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tally.warn()
