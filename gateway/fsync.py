"""Folders whose names are still there after a power cut. Not for: what lies in them.

A file is only as safe as the names that lead to it: `mkdir` alone is forgotten with the next power cut, and takes with
it what was synced below it.
"""

import os
from contextlib import suppress
from pathlib import Path


def make_folder(folder: Path) -> None:
    """Make a folder, and what is missing above it; its name is on disk when this returns.

    One level after the other is made and synced. A process that is killed in between leaves at most the last level
    unsynced, and so the level that is there already is synced once more.
    """
    if folder.is_dir():
        with suppress(PermissionError):  # a folder that others made, in one that we may not read
            sync_folder(folder.parent)
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
