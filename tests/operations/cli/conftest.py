"""Data folders that commands work on."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from gateway.errors import Conflict
from pacs import Archive
from tests.pacs.archive.test_archive import image, send
from worklist import Worklist

LONG_AGO = "2020-02-29T08:00:00.000Z"


@pytest.fixture
def empty_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder whose owners have run once; nobody runs now."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_DATA_DIR", str(tmp_path / "data"))
    Worklist.open(tmp_path / "data" / "worklist.db").close()
    Archive.open(tmp_path / "data" / "pacs.db", tmp_path / "data" / "instances").close()
    return tmp_path


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with two images and a quarantined one; nobody runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_DATA_DIR", str(tmp_path / "data"))
    Worklist.open(tmp_path / "data" / "worklist.db").close()
    with closing(served(tmp_path)) as archive:
        send(archive, image(1))
        send(archive, image(2))
        with pytest.raises(Conflict):
            send(archive, image(2, PatientID="SECOND"))
        with archive.write() as conn:  # long ago, whatever day it is today
            conn.execute("UPDATE study SET first_received_at = ?, last_received_at = ?", (LONG_AGO, LONG_AGO))
            conn.execute("UPDATE instance SET received_at = ?", (LONG_AGO,))
    return tmp_path


def served(folder: Path) -> Archive:
    return Archive.open(folder / "data" / "pacs.db", folder / "data" / "instances")


@pytest.fixture
def running(site: Path) -> Iterator[Archive]:
    """The archive as its process has it."""
    with closing(served(site)) as archive:
        yield archive


@pytest.fixture
def worklist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worklist]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_DATA_DIR", str(tmp_path))
    with closing(Worklist.open(tmp_path / "worklist.db")) as opened:
        yield opened


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("SUDO_USER", "ina")
    return tmp_path / "data"


def stored(folder: Path) -> list[Path]:
    """The files of the images."""
    return sorted((folder / "data" / "instances").glob("??/??/*.dcm"))
