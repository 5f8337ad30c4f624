"""The files of an archive, for tests that look at them or damage them behind its back."""

from pacs import Archive
from pacs.archive.files import Files


def files_of(archive: Archive) -> Files:
    """The folder tree of an archive that lies as a site's does: `instances` beside its database."""
    return Files(archive.database_path.parent / "instances")
