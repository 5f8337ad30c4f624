"""Installs the viewer's folder from the published archive, and removes it.

A folder is there whole or not at all, and one that is not a viewer's is never replaced or removed.

Not for: fetching the archive (`operations.viewer.fetch`), the changes to it (`relay.pages.viewer_bundle`).
"""

import gzip
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import GatewayError
from gateway.fsync import make_folder, sync_folder
from relay.pages import viewer_bundle
from relay.pages.viewer import MARK

_SQUEEZED = (".js", ".css", ".wasm")
"""Files that are kept compressed as well; pictures and fonts are so already."""


class NotAViewer(GatewayError):
    """The folder holds something else; nothing in it was changed."""


@dataclass(frozen=True)
class Installed:
    """The contents of a viewer's folder; `sent_bytes` is the most that a browser fetches with an empty cache."""

    edition: str
    files: int
    stored_bytes: int
    sent_bytes: int


def installed(folder: Path) -> Installed | None:
    """The installed viewer of any edition; None when there is none. Raises NotAViewer."""
    _expect_viewer(folder)
    mark = folder / MARK
    try:
        return Installed(**json.loads(mark.read_bytes())) if mark.exists() else None
    except (ValueError, TypeError):  # of a release that wrote other facts, or not by us: to be replaced
        return None


def install(archive: Path, folder: Path) -> Installed:
    """Install the viewer of a verified archive in the folder, in place of an earlier one.

    Raises UnexpectedBundle when the archive is not as expected, NotAViewer, OSError; the folder is then as it was.
    """
    _expect_viewer(folder)
    make_folder(folder.parent)
    # Beside its place, and renamed when it is whole and on disk; the next installation removes what a killed one left.
    new = folder.with_name(folder.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    try:
        written = _fill(new, archive)
        _put_in_place(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return written


def remove(folder: Path) -> bool:
    """Remove the viewer; False when there was none. Raises NotAViewer."""
    _expect_viewer(folder)
    if not folder.exists():
        return False
    _take_away(folder)
    return True


def _expect_viewer(folder: Path) -> None:
    if folder.exists() and not (folder / MARK).is_file() and any(folder.iterdir()):
        raise NotAViewer(f"{folder} holds files, and not a viewer's. Give RELAY_VIEWER_PATH a folder of its own.")


def _fill(folder: Path, archive: Path) -> Installed:
    stored = sent = 0
    names = []
    for name, content in _files(archive):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        _write(target, content)
        # Compressed once and here, because the relay sends the .gz file as it is; without a time it is always the same.
        squeezed = gzip.compress(content, mtime=0) if target.suffix in _SQUEEZED else b""
        if squeezed:
            _write(target.with_name(target.name + ".gz"), squeezed)
        names.append(name)
        stored, sent = stored + len(content) + len(squeezed), sent + len(squeezed or content)
    viewer_bundle.expect_whole(names)
    written = Installed(viewer_bundle.EDITION, len(names), stored, sent)
    _write(folder / MARK, json.dumps(vars(written)).encode())
    for path in (folder, *filter(Path.is_dir, folder.rglob("*"))):
        sync_folder(path)
    return written


def _files(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the installed files."""
    # `kept` gives only names of known kinds, so none leads out of the folder.
    with tarfile.open(archive, "r:gz") as members:
        for member in members:
            name = viewer_bundle.kept(member.name)
            if name and (file := members.extractfile(member)):
                yield name, viewer_bundle.patched(name, file.read())


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _put_in_place(new: Path, folder: Path) -> None:
    # Between the two renames there is no viewer; the relay answers so.
    _take_away(folder)
    new.rename(folder)
    sync_folder(folder.parent)


def _take_away(folder: Path) -> None:
    # Renamed first, because the relay may serve it: it never sees a folder that is half removed.
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
        sync_folder(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
