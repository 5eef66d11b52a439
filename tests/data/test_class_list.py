from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewseg.data.class_list import find_class_list, read_class_list
from fewseg.errors import DataError


def write(folder: Path, name: str, *lines: str, encoding: str = "utf-8") -> Path:
    (folder / name).write_text("\n".join(lines), encoding=encoding)
    return folder / name


@pytest.mark.parametrize(
    ("name", "lines", "background"),
    [
        ("classes.txt", ["cow", "water buffalo"], False),
        ("classes.txt", ["background", "cow", "water buffalo"], True),
        ("class_names.txt", ["_background_", "cow", "water buffalo"], True),
        ("labels.txt", ["__ignore__", "_background_", "cow", "water buffalo"], True),
        ("classes.txt", ["1: cow", "2: water buffalo"], False),
        ("classes.txt", ["0 background", "2 water buffalo", "1 cow"], True),
        ("_classes.csv", ["Pixel Value, Class", "0, background", "1, cow", "2, water buffalo"], True),
        ("labelmap.txt", ["# label:color", "background:0,0,0::", "cow:9,9,9::", "water buffalo:1,2,3::"], True),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lists_of_every_tool(tmp_path: Path, name: str, lines: list[str], background: bool, encoding: str) -> None:
    write(tmp_path, name, *lines, "", encoding=encoding)
    listed = find_class_list(tmp_path)
    assert listed is not None
    assert (listed.names, listed.background) == (("cow", "water buffalo"), background)


@pytest.mark.parametrize(
    ("name", "lines", "says"),
    [
        ("classes.txt", ["cow", "ox", "cow"], "the name 'cow' more than once"),
        ("classes.txt", ["cow", "background"], "'background' is not in the first line"),
        ("classes.txt", ["background"], "names no class"),
        ("classes.txt", [], "names no class"),
        ("classes.txt", ["0: cow", "1: ox"], "calls the value 0 'cow', but 0 is the background"),
        ("_classes.csv", ["Pixel Value, Class", "1, cow", "3, ox"], "VALUE,NAME with the values 0, 1, 2"),
        ("_classes.csv", ["filename, cow, ox", "a.jpg, 0, 1"], "VALUE,NAME"),
        ("labelmap.txt", ["cow:9,9,9::", "ox:red::"], "'ox:red::' is not of the form"),
        ("labelmap.txt", ["cow:9,9,9::", "ox:9,9,9::"], "the colour .* more than once"),
    ],
)
def test_a_list_with_a_fault_is_refused(tmp_path: Path, name: str, lines: list[str], says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_class_list(write(tmp_path, name, *lines))


WORDS = st.sampled_from(["cow", "1", "yes", "null", "3d printer", "tête", "牛", "a:b", "x, y", "10 cents"])


@given(st.lists(WORDS, min_size=1, unique=True), st.booleans())
@pytest.mark.slow
def test_names_are_kept_as_they_are_written(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], first: bool
) -> None:
    lines = ["background"] * first + names
    listed = read_class_list(write(tmp_path_factory.mktemp("list"), "classes.txt", *lines))
    assert (list(listed.names), listed.background) == (names, first)


def test_colours_of_a_class_dict(tmp_path: Path) -> None:
    file = write(tmp_path, "class_dict.csv", "name,r,g,b", "Sky,128,128,128", "Void,0,0,0", "Car,64,0,128")
    found = read_class_list(file)
    assert found.names == ("Sky", "Car")
    assert found.colours == ((0, 0, 0), (128, 128, 128), (64, 0, 128))
