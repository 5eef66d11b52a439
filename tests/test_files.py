"""Files are whole or as they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewseg.files import replacing, replacing_files


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert contents(tmp_path) == {"a.txt": "old"}


def test_a_folder_s_files_are_replaced_together_and_others_stay(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for _ in range(2):
        with replacing_files(folder, last="record", stay=("card",)) as work:
            for name in ("record", "weights", "card"):
                (work / name).write_text("old")
    (folder / "notes").write_text("the user's")
    with replacing_files(folder, last="record", stay=("card",)) as work:
        for name in ("record", "weights", "card"):
            (work / name).write_text("new")
    assert contents(folder) == {"record": "new", "weights": "new", "card": "old", "notes": "the user's"}
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_is_as_it_was_where_a_file_could_not_be_written(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        with replacing_files(folder, last="record") as work:
            (work / "weights").write_text("new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail(tmp_path / "model")
    assert not list(tmp_path.iterdir())
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("old")
    with pytest.raises(RuntimeError):
        fail(tmp_path / "model")
    assert contents(tmp_path / "model") == {"weights": "old"}


def test_what_names_the_others_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between two files, a folder has either no record or a record whose files are there."""
    moved = []
    monkeypatch.setattr("fewseg.files.os.replace", lambda source, target: moved.append(Path(target).name))
    with replacing_files(tmp_path / "model", last="a-record") as work:
        for name in ("b", "a-record", "c"):
            (work / name).write_text("new")
    assert moved == ["b", "c", "a-record"]
