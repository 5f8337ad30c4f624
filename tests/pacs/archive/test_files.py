"""The instance files by themselves: places, headers, linking."""

import io
import os
import shutil
import threading
from pathlib import Path

import pytest
from pydicom import dcmread

from pacs.archive.files import AlreadyServed, Files, digest, part10_header

UID = "1.2.3.4"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    files = Files(tmp_path)
    files.open()
    return files


def written(files: Files, content: bytes = b"x") -> Path:
    part, file = files.begin(UID)
    os.write(file, content)
    os.close(file)
    return part


def test_the_place_is_the_hash_of_the_uid_in_two_levels_of_folders(files: Files, tmp_path: Path) -> None:
    path = files.path(UID)
    assert path.parent.parent.parent == tmp_path
    assert (path.parent.parent.name, path.parent.name) == (path.stem[:2], path.stem[2:4])
    assert (len(path.stem), path.suffix) == (64, ".dcm")
    assert files.path(UID) != files.path("1.2.3.5")


def test_the_header_is_read_by_pydicom() -> None:
    header = part10_header("1.2.840.10008.5.1.4.1.1.1.2", UID, "1.2.840.10008.1.2.1")
    meta = dcmread(io.BytesIO(header)).file_meta
    assert (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID) == (
        "1.2.840.10008.5.1.4.1.1.1.2",
        UID,
        "1.2.840.10008.1.2.1",
    )
    assert meta.FileMetaInformationGroupLength == len(header) - 144


def test_a_kept_file_is_never_overwritten_by_another(files: Files) -> None:
    first, second = written(files, b"first"), written(files, b"second")
    files.keep(first, UID)
    with pytest.raises(FileExistsError):
        files.keep(second, UID)
    assert files.path(UID).read_bytes() == b"first"
    files.replace(second, UID)
    assert files.path(UID).read_bytes() == b"second"
    assert sorted(files.leftovers()) == sorted([first, second])


def test_what_is_set_aside_is_found_under_its_content(files: Files) -> None:
    part = written(files, b"other")
    name = files.set_aside(part, digest(part))
    assert (files.quarantine / name).read_bytes() == b"other"
    assert list(files.leftovers()) == []


def test_a_second_process_is_kept_out(files: Files, tmp_path: Path) -> None:
    second = Files(tmp_path)
    with pytest.raises(AlreadyServed):
        second.open()
    second.close()  # nothing: it has nothing
    files.close()
    second.open()


def test_an_archive_is_laid_out_with_every_folder_and_what_is_there_stays(files: Files, tmp_path: Path) -> None:
    files.keep(written(files), UID)
    files.lay_out(stop=lambda: False)
    files.lay_out(stop=lambda: False)
    names = [f"{number:02x}" for number in range(256)]
    made = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("??/??"))
    assert made == [f"{first}/{second}" for first in names for second in names]
    assert files.path(UID).read_bytes() == b"x"


def test_laying_out_that_was_stopped_goes_on_where_it_was(files: Files, tmp_path: Path) -> None:
    asked = iter((False, True))
    files.lay_out(stop=lambda: next(asked))
    assert len(list(tmp_path.glob("??"))) == 256
    assert len(list(tmp_path.glob("??/??"))) == 256
    (tmp_path / "00" / "40").rmdir()
    asked = iter((False, False, True))
    files.lay_out(stop=lambda: next(asked))
    assert len(list(tmp_path.glob("??/??"))) == 2 * 256


def test_a_folder_that_was_taken_away_is_made_again(files: Files) -> None:
    files.keep(written(files), UID)
    shutil.rmtree(files.path(UID).parent.parent)
    files.keep(written(files), UID)
    assert files.path(UID).read_bytes() == b"x"


def test_who_finds_a_folder_that_another_thread_is_making_waits_until_its_name_is_on_disk(files: Files) -> None:
    folder = files.path(UID).parent
    folder.mkdir(parents=True)
    files._unsynced.add(folder)
    part = written(files)
    keeping = threading.Thread(target=files.keep, args=(part, UID))
    with files._making:
        keeping.start()
        keeping.join(0.2)
        assert keeping.is_alive()
    keeping.join()
    assert files.path(UID).read_bytes() == b"x"
    assert files._unsynced == set()
