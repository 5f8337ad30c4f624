"""The worklist and the archive of a site, opened beside the processes that own them.

Not for: opening them as their own process does (`Worklist.open`, `Archive.open`).
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager

from pacs import Archive
from pacs.archive.files import AlreadyServed, Files
from pacs.settings import PacsSettings
from worklist import Worklist
from worklist.settings import WorklistSettings


def worklist(settings: WorklistSettings) -> AbstractContextManager[Worklist]:
    """The worklist until the end of the block. Raises DatabaseNotReady until its process has run once."""
    return closing(Worklist.attach(settings.db_path))


def archive(settings: PacsSettings) -> AbstractContextManager[Archive]:
    """The archive until the end of the block. Raises DatabaseNotReady until its process has run once."""
    return closing(Archive.attach(settings.db_path, settings.storage_path, settings.watermarks))


@contextmanager
def folder_held(files: Files) -> Iterator[bool]:
    """Hold the folder of the images until the end of the block; False when the pacs process or a command holds it."""
    # Only the holder may remove or move files, because a receipt in progress counts on those that it has written.
    try:
        files.open()
    except AlreadyServed:
        yield False
        return
    with closing(files):
        yield True
