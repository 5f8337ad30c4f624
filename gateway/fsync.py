"""Durable folders: their names are still there after a power cut. Not for: the files in them."""

import os
from contextlib import suppress
from pathlib import Path


def make_folder(folder: Path) -> None:
    """Make a folder and the missing ones above it; its name is on disk when this returns."""
    if folder.is_dir():
        # Synced although it exists, because a process that was killed in between may have made it and not synced it.
        with suppress(PermissionError):  # a folder that others made, in one that we may not read
            sync_folder(folder.parent)
        return
    # One level after the other, because `mkdir` alone is forgotten in a power cut, with all that was synced below it.
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
