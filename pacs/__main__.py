"""Start the archive: `python -m pacs`."""

import sys
from contextlib import closing

from gateway.application import Limits
from gateway.listener import Listener
from gateway.log import configure
from gateway.process import run, until_stopped
from gateway.settings import load
from pacs.archive import Archive
from pacs.scp import application
from pacs.settings import PacsSettings


def main() -> None:
    """Take images from modalities until asked to stop."""
    settings = load(PacsSettings)
    configure(settings.log_level, process="pacs")
    with closing(Archive.open(settings.db_path, settings.storage_path)) as archive:
        served = application(archive, ae_title=settings.aet, calling_ae_titles=frozenset(settings.calling_aets))
        limits = Limits(associations=settings.max_associations)
        with Listener(served, host=settings.host, port=settings.port, limits=limits) as listener:
            until_stopped(listener.still_working)


if __name__ == "__main__":
    sys.exit(run(main))
