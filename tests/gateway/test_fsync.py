"""Folders: made with all that is missing above them. That their names are synced is proven in `tests/durability`."""

from pathlib import Path

import pytest

from gateway.fsync import make_folder


def test_a_folder_is_made_with_what_is_missing_above_it_and_making_it_again_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b" / "c"
    make_folder(folder)
    (folder / "kept").touch()
    make_folder(folder)
    assert [path.name for path in folder.iterdir()] == ["kept"]


def test_a_file_in_the_place_of_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(FileExistsError):
        make_folder(tmp_path / "a")


def test_a_folder_that_is_named_from_where_we_are_is_made_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_folder(Path("data"))
    assert (tmp_path / "data").is_dir()
